"""The check of what a batch of notebooks left behind."""

import notebook_results
import pytest
from notebook_results import audit, missing
from test_comparison import recorded
from test_verdicts import trials

from intuitor_lib.paper import comparison, results
from intuitor_lib.paper.comparison import save
from intuitor_lib.paper.numbers import FIGURES, TABLES
from intuitor_lib.paper.plan import PLAN, planned
from intuitor_lib.paper.results import result
from intuitor_lib.recipe.recipes import get_recipe
from intuitor_lib.report.tables import Table
from intuitor_lib.store.run_store import RunStore

EMPTY = Table([], [], "")
IDS = [*TABLES, *FIGURES]


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """A store as a whole batch leaves it, made up."""
    plan = dict.fromkeys(list(PLAN)[:2], ("grpo", "intuitor"))
    monkeypatch.setattr(notebook_results, "PLAN", plan)
    wanted = {d: r for d, r in planned("smoke").items() if r.name in ("grpo", "intuitor")}
    monkeypatch.setattr(notebook_results, "planned", lambda profile: wanted)
    monkeypatch.setattr(comparison, "data_folder", lambda: None)
    store = RunStore(tmp_path)
    for recipe in wanted.values():
        run = store.open(recipe, {"fingerprint": recipe.digest})
        run.append("metrics.jsonl", [{"step": s, "reward": 1.0} for s in (1, 2)])
        (run.path / "adapter").mkdir()
        run.finish()
    monkeypatch.setattr(results, "data_folder", lambda: None)
    put(tmp_path)
    reasons = dict.fromkeys(FIGURES, "why")
    for name in plan:
        save(name, "smoke", table=EMPTY, ids=IDS, not_tested=reasons, runs=tmp_path)
    return tmp_path


def put(runs, *, metrics=(), rows=None, **row):
    """A training and a test on record, with some values other than sound ones."""
    step = {"step": 1, "reward": 0.1, "loss": 0.0, "rewards/self_certainty/mean": 9.0}
    completion = {"id": "a", "correct": True, "tokens": 3, "self_certainty": 9.0, **row}
    made = {
        "training": {"metrics": [step | dict(metrics)], "rows": [{"step": 1, "completion": "x"}]},
        "in_domain": {"rows": [completion] if rows is None else rows},
    }
    for name, value in made.items():
        result(
            f"grpo/{name}", lambda value=value: value, key=str(value), profile="smoke", runs=runs
        )


def test_a_batch_as_planned_has_no_fault(batch):
    assert audit("smoke", batch) == []


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"self_certainty": None}, "self-certainty None over 3 tokens"),
        ({"self_certainty": -1.0}, "self-certainty -1.0 over 3 tokens"),
        ({"tokens": 0}, "self-certainty 9.0 over 0 tokens"),
        ({"rows": []}, "no completions"),
    ],
)
def test_a_number_out_of_range_is_named(batch, wrong, fault):
    put(batch, **wrong)
    assert audit("smoke", batch) == [f"grpo/in_domain.parquet: {fault}"]


def test_a_loss_that_is_missing_is_named(batch):
    put(batch, metrics={"loss": None})
    assert audit("smoke", batch) == ["grpo/training.parquet: loss is None at step 1"]


def test_a_training_too_many_or_too_few_is_named(batch):
    store = RunStore(batch)
    more = store.open(get_recipe("grpo", "smoke", seed=8), {"fingerprint": "x"})
    more.append("metrics.jsonl", [{"step": 1}, {"step": 1}, {"step": 2}])
    found = audit("smoke", batch)
    assert f"{more.id}: not planned" in found
    assert any(f"{more.id}: " in fault and "[1, 1, 2]" in fault for fault in found)
    twin = store.open(get_recipe("grpo", "smoke"), {"fingerprint": "of other problems"})
    twin.append("metrics.jsonl", [{"step": 1}])
    (twin.path / "adapter").mkdir()
    twin.finish()
    found = audit("smoke", batch)
    assert "grpo, seed 7: trained 2 times, not once" in found
    assert f"{twin.id}: finished, with the steps [1]" in found
    for run in list(RunStore(batch)):
        if run.recipe.rewards == ("self_certainty",):
            (run.path / "recipe.json").rename(run.path / "gone.json")
    assert any("trained 0 times, not once" in fault for fault in audit("smoke", batch))


def test_a_notebook_without_a_record_is_named(batch):
    (batch / "records" / "00_quickstart-smoke.json").unlink()
    assert audit("smoke", batch) == ["00_quickstart: no record"]


def test_what_lacks_a_record_is_named(tmp_path):
    made = trials(base=54, intuitor=80)
    record = recorded(tmp_path, "cpu", IDS, trials=made)
    assert missing([record]) == []
    del record["values"]["paper"]["figure-6"]
    assert missing([record]) == ["figure-6: no record"]


def test_a_number_without_its_company_is_named(tmp_path):
    record = recorded(tmp_path, "cpu", IDS, trials=trials(base=54))
    (score,) = record["values"]["scores"]
    score["low"] = score["high"]
    assert "an interval of width 0" in missing([record])[0]
    del score["seeds"]
    assert missing([record]) == ["02_main_results: a score lacks seeds"]


def test_a_figure_without_a_score_needs_a_reason(tmp_path):
    record = recorded(tmp_path, "cpu", IDS)
    assert missing([record]) == [f"{id}: neither a score nor a reason" for id in FIGURES]
    record = recorded(tmp_path, "cpu", IDS, not_tested=dict.fromkeys(FIGURES, "needs 7B"))
    assert missing([record]) == []
    del record["values"]["paper"]["table-4"]["cells"][0]["not tested"]
    assert missing([record]) == ["table-4: cell 'Qwen2.5-7B', 'GSM8K' is not accounted for"]
