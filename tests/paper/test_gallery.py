"""The page over all notebooks, and the check of what a batch left behind."""

import base64
import io
import json

import pytest

from intuitor_lib.paper import checks as audit_module, comparison
from intuitor_lib.paper.checks import audit
from intuitor_lib.paper.comparison import paper_cells
from intuitor_lib.paper.gallery import build_gallery
from intuitor_lib.paper.numbers import TABLES, paper_ids
from intuitor_lib.paper.plan import PLAN, planned
from intuitor_lib.paper.verdicts import not_tested
from intuitor_lib.recipe.recipes import get_recipe
from intuitor_lib.report.records import save_record
from intuitor_lib.report.tables import Table
from intuitor_lib.store.run_store import RunStore


def png():
    from matplotlib.figure import Figure

    stream = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(stream, format="png")
    return base64.b64encode(stream.getvalue()).decode()


def test_the_page_shows_figures_tables_and_links(tmp_path):
    folder = tmp_path / "notebooks" / "smoke"
    folder.mkdir(parents=True)
    output = {"output_type": "display_data", "data": {"image/png": png()}}
    cells = [
        {"cell_type": "markdown", "source": ["<span>papermill's own</span>"]},
        {"cell_type": "markdown", "source": ["# 02 · Results <b>\n", "text"]},
        {"cell_type": "code", "outputs": [output, output]},
    ]
    (folder / "02_main_results.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    table = Table(["policy", "accuracy"], [["GRPO & co", "0.5"]], "n = 4")
    save_record("02_main_results", "smoke", table=table, values={}, runs=tmp_path)
    page = build_gallery("smoke", tmp_path)
    text = page.read_text(encoding="utf-8")
    assert 'href="../notebooks/smoke/02_main_results.html"' in text
    assert text.count("02 · Results &lt;b&gt;") >= 2
    assert "Results <b>" not in text
    assert "GRPO &amp; co" in text
    assert "not tested here" in text  # the claims, unanswered
    for i in (1, 2):
        assert f'src="figures/02_main_results-{i}.png"' in text
        assert (page.parent / "figures" / f"02_main_results-{i}.png").is_file()
    assert str(tmp_path) not in text
    assert "viewport" in text
    assert "(failed)" not in text
    cells[-1]["outputs"][1:] = [{"output_type": "error"}]
    (folder / "02_main_results.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert "Results &lt;b&gt; (failed)" in build_gallery("smoke", tmp_path).read_text("utf-8")
    left = [path.name for path in (page.parent / "figures").iterdir()]
    assert left == ["02_main_results-1.png"]  # none of the time before


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """A store as a whole batch leaves it, made up."""
    plan = dict.fromkeys(list(PLAN)[:2], ("grpo", "intuitor"))
    monkeypatch.setattr(audit_module, "PLAN", plan)
    wanted = {d: r for d, r in planned("smoke").items() if r.name in ("grpo", "intuitor")}
    monkeypatch.setattr(audit_module, "planned", lambda profile: wanted)
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
    ("spoil", "fault"),
    [
        (lambda c: c.update(correct=["yes"]), "a verdict is neither true nor false"),
        (lambda c: c.update(self_certainty=[None]), "self-certainty None over 3 tokens"),
        (lambda c: c.update(self_certainty=[-1.0]), "self-certainty -1.0 over 3 tokens"),
        (lambda c: c.update(tokens=[0]), "self-certainty 9.0 over 0 tokens"),
        (lambda c: [v.clear() for v in c.values()], "no completions"),
    ],
)
def test_a_number_out_of_range_is_named(batch, spoil, fault):
    path = batch / "results" / "smoke" / "grpo" / "in_domain.json"
    edit(path, lambda value: spoil(value["result"]["rows"]))
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
