"""The check of what a batch of notebooks left behind."""

import json

import pytest

from intuitor_lib.paper import checks, comparison
from intuitor_lib.paper.checks import audit
from intuitor_lib.paper.comparison import paper_cells
from intuitor_lib.paper.numbers import TABLES, paper_ids
from intuitor_lib.paper.plan import PLAN, planned
from intuitor_lib.paper.verdicts import not_tested
from intuitor_lib.recipe.recipes import get_recipe
from intuitor_lib.report.records import save_record
from intuitor_lib.report.tables import Table
from intuitor_lib.store.run_store import RunStore


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """A store as a whole batch leaves it, made up."""
    plan = dict.fromkeys(list(PLAN)[:2], ("grpo", "intuitor"))
    monkeypatch.setattr(checks, "PLAN", plan)
    wanted = {d: r for d, r in planned("smoke").items() if r.name in ("grpo", "intuitor")}
    monkeypatch.setattr(checks, "planned", lambda profile: wanted)
    monkeypatch.setattr(comparison, "data_folder", lambda: None)
    store = RunStore(tmp_path)
    for recipe in wanted.values():
        run = store.open(recipe, {"fingerprint": recipe.digest})
        run.append("metrics.jsonl", [{"step": s, "reward": 1.0} for s in (1, 2)])
        (run.path / "adapter").mkdir()
        run.finish()
    row = {"step": 1, "reward": 0.1, "loss": 0.0, "rewards/self_certainty/mean": 9.0}
    results = tmp_path / "results" / "smoke" / "grpo"
    results.mkdir(parents=True)
    training = {"key": 1, "result": {"metrics": [row], "completions": []}}
    (results / "training.json").write_text(json.dumps(training))
    columns = {"id": ["a"], "correct": [True], "tokens": [3], "self_certainty": [9.0]}
    (results / "in_domain.json").write_text(json.dumps({"key": 1, "result": {"rows": columns}}))
    answers = {id: {"not tested": [not_tested("x", "why")]} for id in paper_ids()}
    for id in TABLES:
        answers[id] |= paper_cells(id, {})
    for name in plan:
        save_record(
            name, "smoke", table=Table([], [], ""), values={"paper": answers}, runs=tmp_path
        )
    return tmp_path


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_batch_as_planned_has_no_fault(batch):
    assert audit("smoke", batch) == []


@pytest.mark.parametrize(
    ("corrupt", "fault"),
    [
        (lambda c: c.update(correct=["yes"]), "a verdict is neither true nor false"),
        (lambda c: c.update(self_certainty=[None]), "self-certainty None over 3 tokens"),
        (lambda c: c.update(self_certainty=[-1.0]), "self-certainty -1.0 over 3 tokens"),
        (lambda c: c.update(tokens=[0]), "self-certainty 9.0 over 0 tokens"),
        (lambda c: [v.clear() for v in c.values()], "no completions"),
    ],
)
def test_a_number_out_of_range_is_named(batch, corrupt, fault):
    path = batch / "results" / "smoke" / "grpo" / "in_domain.json"
    edit(path, lambda value: corrupt(value["result"]["rows"]))
    assert audit("smoke", batch) == [f"grpo/in_domain.json: {fault}"]


def test_a_loss_that_is_not_finite_is_named(batch):
    path = batch / "results" / "smoke" / "grpo" / "training.json"
    edit(path, lambda value: value["result"]["metrics"][0].update(loss=float("nan")))
    assert audit("smoke", batch) == ["grpo/training.json: loss is nan at step 1"]


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
