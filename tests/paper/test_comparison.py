"""Ours beside the paper: every table and figure has a record, every claim a verdict."""

import json

import pytest

from intuitor_lib.paper import comparison
from intuitor_lib.paper.comparison import (
    load_records,
    missing,
    paper_cells,
    replication_summary,
    side_by_side,
)
from intuitor_lib.paper.numbers import CLAIMS, TABLES, paper_ids
from intuitor_lib.paper.trials import Trial
from intuitor_lib.paper.verdicts import claim, measured, not_tested
from intuitor_lib.recipe.recipes import get_recipe
from intuitor_lib.report.intervals import Estimate
from intuitor_lib.store import project_root


def trial(arm, label, right, *, seed=7, step=None, training=True):
    rows = [
        {"id": i, "sample": 0, "correct": x, "tokens": 4, "self_certainty": 1.0}
        for i, x in enumerate(right)
    ]
    recipe = get_recipe("intuitor", "cpu", seed=seed)
    done = {"metrics": [], "completions": []} if training else None
    return Trial(arm, label, "cpu", recipe, done, {("in_domain", step): rows})


def test_every_cell_of_a_table_is_accounted_for():
    value = measured("x", Estimate(0.5, 0.4, 0.6, 10, 10), [trial("grpo", "GRPO", [1])])
    entry = paper_cells("table-2", {("Qwen2.5-3B + GRPO", "GSM8K"): value}, "no GPU")
    assert len(entry["cells"]) == 12
    assert sum("ours" in cell for cell in entry["cells"]) == 1
    assert all("ours" in cell or cell["not tested"] == "no GPU" for cell in entry["cells"])
    with pytest.raises(KeyError, match="has no cell"):
        paper_cells("table-2", {("Qwen2.5-3B + GRPO", "LCB"): value})


def record(**values):
    return {"values": values}


def full_answers():
    value = measured("x", Estimate(0.5, 0.4, 0.6, 10, 10), [trial("grpo", "GRPO", [1])])
    answers = {id: {"measured": [value]} for id in paper_ids()}
    for id in TABLES:
        answers[id] |= paper_cells(id, {})
    return answers


def test_what_lacks_a_record_is_named():
    answers = full_answers()
    assert missing([record(paper=answers)]) == []
    assert missing([record(paper={k: v for k, v in answers.items() if k != "figure-6"})]) == [
        "figure-6: no record"
    ]
    assert missing([record(paper=answers | {"figure-6": {}})]) == ["figure-6: its record is empty"]


@pytest.mark.parametrize("lost", ["profile", "n", "seeds", "low", "high", "model"])
def test_a_number_without_its_company_is_named(lost):
    answers = full_answers()
    bare = {k: v for k, v in answers["figure-6"]["measured"][0].items() if k != lost}
    answers["figure-6"] = {"measured": [bare]}
    assert missing([record(paper=answers)]) == [f"figure-6: x lacks {lost}"]


def test_a_gap_without_a_reason_is_named():
    answers = full_answers()
    answers["figure-9"] = {"not tested": [not_tested("7B", "")]}
    assert missing([record(paper=answers)]) == ["figure-9: 7B is not tested, without a reason"]
    answers = full_answers()
    del answers["table-4"]["cells"][0]["not tested"]
    (fault,) = missing([record(paper=answers)])
    assert fault == "table-4: cell 'Qwen2.5-7B', 'GSM8K' is not accounted for"


def test_the_summary_answers_every_claim_once_or_more():
    trials = [trial("intuitor", "INTUITOR", [1, 0])]
    better = claim("in-domain", "accuracy", Estimate(0.2, 0.1, 0.3, 50, 150), "higher", trials)
    worse = claim("transfer", "sums", Estimate(-0.2, -0.3, -0.1, 64, 64), "higher", trials)
    table = replication_summary(
        [record(claims={"in-domain": better}), record(claims={"transfer": worse,
            "larger": not_tested("7B", "needs a GPU")})]
    )  # fmt: skip
    assert [row[0] for row in table.rows] == [known.text for known in CLAIMS]
    verdicts = {row[0]: row[-1] for row in table.rows}
    assert verdicts[CLAIMS[0].text] == "same direction"
    assert [*verdicts.values()].count("not tested here") == len(CLAIMS) - 2
    assert "needs a GPU" in str(table)
    assert "opposite: 1" in table.caption


def test_ours_stand_beside_the_papers_row():
    trials = {
        "base": [trial("base", "base", [1, 0, 0, 0], training=False)],
        "INTUITOR": [trial("intuitor", "INTUITOR", [1, 1, 0, 0], seed=s) for s in (7, 8, 9)],
        "random": [trial("random", "random", [0, 0, 0, 0])],
    }
    table = side_by_side("table-1", trials, "cpu", ["in_domain"])
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["INTUITOR"][:2] == ["0.792", "0.612"]
    assert rows["INTUITOR"][-1].startswith("0.50 [")
    assert rows["random"][:6] == ["-"] * 6  # the paper has no such row
    for part in ("n = 4", "profile cpu", "INTUITOR 3", "SmolLM2-135M", "neither the paper's"):
        assert part in table.caption


# --- What is committed ----------------------------------------------------------------------


def committed():
    folder = project_root() / "data" / "records"
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*")}


def test_every_table_and_figure_of_the_paper_has_a_committed_record():
    records = load_records(runs="nowhere")
    assert sorted({name.rpartition("-")[0] for name in committed()}) == sorted(records)
    assert missing(records.values()) == []


def test_the_documentation_holds_the_summary_of_the_committed_records():
    page = (project_root() / "docs" / "replication.md").read_text(encoding="utf-8")
    summary = replication_summary(load_records(runs="nowhere").values()).to_markdown()
    block = f"<!-- replication -->\n{summary}\n<!-- /replication -->"
    assert block in page, "write it there: intuitor report --markdown"


def test_a_stand_in_never_has_a_benchmarks_name():
    for name, stored in committed().items():
        if not name.endswith(("-cpu", "-smoke")):
            continue
        for id, entry in stored["values"].get("paper", {}).items():
            assert not [cell for cell in entry.get("cells", []) if "ours" in cell], (name, id)


def test_profiles_that_measured_are_preferred(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "data_folder", lambda: None)
    folder = tmp_path / "records"
    folder.mkdir()
    for profile in ("smoke", "cpu"):
        (folder / f"02_main_results-{profile}.json").write_text(json.dumps({"profile": profile}))
    (folder / "08_model_families-smoke.json").write_text(json.dumps({"profile": "smoke"}))
    found = {name: entry["profile"] for name, entry in load_records(runs=tmp_path).items()}
    assert found == {"02_main_results": "cpu", "08_model_families": "smoke"}
    assert load_records("cpu", tmp_path).keys() == {"02_main_results"}
