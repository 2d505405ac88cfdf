"""Runs side by side."""

import pytest

from intuitor_lib.lab import compare_runs, display
from intuitor_lib.lab.compare import settings_table
from intuitor_lib.problems import load_problems
from intuitor_lib.recipe import InputError
from intuitor_lib.store import RunStore


@pytest.fixture
def two(tiny_recipe, tmp_path):
    """Two runs with a step each, of another seed and learning rate."""
    store, problems = RunStore(tmp_path), load_problems(tiny_recipe).describe()
    runs = []
    for seed, rate in ((1, 1e-3), (2, 2e-3)):
        run = store.open(tiny_recipe.replace(seed=seed, learning_rate=rate), problems)
        row = {"step": 1, "rewards/self_certainty/mean": 9.0 + seed, "step_time": 1.0}
        run.append("metrics.jsonl", [row])
        runs.append(run)
    return runs


def test_only_the_settings_that_differ_are_listed(two):
    table = settings_table(two)
    assert [row[0] for row in table.rows] == ["learning_rate", "seed"]
    assert table.rows[0][1:] == ["0.001", "0.002"]
    assert "same" in settings_table([two[0], two[0]]).caption


def test_all_of_it_is_shown_in_batch(two, tmp_path, shown):
    compare_runs(runs=tmp_path)
    ((static, widget),) = shown
    assert widget is None
    assert "<img" in static
    assert "learning_rate" in static
    assert "No differences" in static


def test_runs_are_picked_from_a_list(two, tmp_path, shown, monkeypatch):
    monkeypatch.setattr(display, "person_there", lambda: True)
    compare_runs(two[0], runs=tmp_path)
    picked, _, text = shown[0][1].children
    assert picked.value == (two[0].id,)
    assert "machine are the same" in text.value
    picked.value = tuple(run.id for run in two)
    assert "What differs" in text.value
    picked.value = ()
    assert text.value == "no run is selected"


def test_the_first_that_was_given_stays_the_one_compared_with(two, tmp_path, shown, monkeypatch):
    monkeypatch.setattr(display, "person_there", lambda: True)
    later, earlier = sorted(two, key=lambda run: run.id, reverse=True)
    compare_runs(later, earlier, runs=tmp_path)
    picked, _, text = shown[0][1].children
    for chosen in ((earlier.id,), (earlier.id, later.id)):
        picked.value = chosen
    assert text.value.index(f">{later.id}<") < text.value.index(f">{earlier.id}<")


def test_other_problems_and_another_machine_are_differences(two, tiny_recipe, tmp_path):
    problems = load_problems(tiny_recipe).describe() | {"fingerprint": "another"}
    other = RunStore(tmp_path).open(two[0].recipe, problems)
    other.set_environment({"device": "cuda:0"})
    rows = {row[0]: row[1:] for row in settings_table([two[0], other]).rows}
    assert rows["problems: fingerprint"][1] == "another"
    assert rows["device"] == ["None", "cuda:0"]
    assert "learning_rate" not in rows


def test_an_empty_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing to compare"):
        compare_runs(runs=tmp_path)
