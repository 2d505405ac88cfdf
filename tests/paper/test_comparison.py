"""Ours beside the paper: every table and figure has a record, every claim a verdict."""

import json

from notebook_results import missing
from test_verdicts import trial, trials

from intuitor_lib.paper import comparison
from intuitor_lib.paper.comparison import (
    accuracy_table,
    claims_table,
    every_record,
    load_records,
    others_table,
    paper_cells,
    paper_table,
    questions_table,
    save,
    verdicts_table,
)
from intuitor_lib.paper.numbers import CLAIMS
from intuitor_lib.paper.trials import Trial
from intuitor_lib.paper.verdicts import ask
from intuitor_lib.report.tables import Table
from intuitor_lib.store import project_root

EMPTY = Table(["a"], [], "")


def on_gpu():
    """Trials of a profile that trains the paper's model on its benchmark."""
    return trials("gpu-24gb", base=54, random=50, intuitor=80)


def recorded(tmp_path, profile, ids=(), **settings):
    path = save("02_main_results", profile, table=EMPTY, ids=ids, runs=tmp_path, **settings)
    return json.loads(path.read_text())


def test_accuracies_stand_beside_what_needs_no_training():
    made = trials(base=40, intuitor=60)
    base = made["base"][0]
    echo = {"value": 0.0, "low": 0.0, "high": 0.02, "n": 100, "samples": 100}
    samples = [
        {"id": i, "sample": s, "correct": i < 30, "answer": "x" if s else None, "tokens": 3}
        for i in range(100)
        for s in (0, 1)
    ]
    tables = {**base.tables, ("cool", None): samples, ("in_domain_sampled", None): samples}
    made["base"] = [
        Trial("base", "base", "cpu", base.recipe, None, tables, {"in_domain": {"echo": echo}})
    ]
    table = accuracy_table(made, "cpu", ["in_domain", "in_domain_sampled"])
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["base"][1].startswith("0.40 [")
    assert rows["base"][2].endswith(" (50%)")  # half of the samples state no answer
    assert rows["INTUITOR"] == ["1", rows["INTUITOR"][1], "-"]
    assert rows["echo"] == ["-", "0.00 [0.00, 0.02]", "-"]
    assert rows["base at T = 0.3"][1:] == [rows["base at T = 0.3"][1]] * 2
    assert rows["base, vote of its samples"][2].startswith("0.30 [")
    assert table.header[2] == "products, held out, greedy (n = 100)"
    made["base"][0].tables["cool", None] = [row for row in samples if row["id"] % 2]
    cells = accuracy_table(made, "cpu", ["in_domain", "in_domain_sampled"]).rows[-2][2:]
    assert all(cell.startswith("0.30 [") and cell.endswith("] (n = 50)") for cell in cells)


def test_every_cell_of_a_table_is_accounted_for():
    cells = paper_cells("table-1", on_gpu(), "gpu-24gb")
    assert len(cells) == 48
    ours = {(c["row"], c["column"]): c["ours"]["value"] for c in cells if "ours" in c}
    assert ours == {("Qwen2.5-3B", "MATH500"): 0.54, ("Qwen2.5-3B + INTUITOR", "MATH500"): 0.8}
    assert all("ours" in cell or "the paper's model" in cell["not tested"] for cell in cells)
    shown = paper_table("table-1", cells)
    assert "0.612; ours 0.80 [" in str(shown)
    assert "2 of 48 cells" in shown.caption


def test_a_number_of_another_model_stands_in_no_cell_of_the_papers():
    cells = paper_cells("table-1", trials(base=54, intuitor=80), "cpu")
    assert not any("ours" in cell for cell in cells)


def test_a_record_holds_scores_with_all_that_belongs_to_them(tmp_path):
    made = trials(base=54, random=50, intuitor=80)
    answers = ask(["gain"], made, "cpu")
    values = recorded(tmp_path, "cpu", ["table-1", "figure-3"], trials=made, answers=answers)[
        "values"
    ]
    assert [score["policy"] for score in values["scores"]] == ["base", "random", "INTUITOR"]
    (score,) = (s for s in values["scores"] if s["policy"] == "INTUITOR")
    assert (score["n"], score["seeds"], score["profile"]) == (100, [7], "cpu")
    assert score["model"] == "Qwen2.5-Coder-0.5B-Instruct (NF4 + LoRA)"
    assert values["answers"] == answers
    assert len(values["paper"]["table-1"]["cells"]) == 48


def test_a_claim_is_judged_on_the_papers_models_alone(tmp_path):
    small = trials(base=40, random=40, intuitor=70)
    record = recorded(tmp_path, "cpu", trials=small, answers=ask(["gain"], small, "cpu"))
    table = claims_table([record])
    assert [row[0] for row in table.rows] == [claim.text for claim in CLAIMS]
    assert {row[-1] for row in table.rows} == {"not tested here"}
    assert [row[-1] for row in questions_table([record]).rows] == ["gain"]
    ((question, answer),) = verdicts_table([record]).rows
    assert question.startswith("Does self-certainty alone")
    assert answer.startswith("greedy: **gain**, +0.30 [")
    assert "gain: 1." in verdicts_table([record]).caption
    assert {len(row) for row in claims_table([record], short=True).rows} == {3}
    large = recorded(tmp_path, "gpu-24gb", answers=ask(["gain"], on_gpu(), "gpu-24gb"))
    verdicts = {row[0]: row[-1] for row in claims_table([record, large]).rows}
    assert verdicts[CLAIMS[0].text] == "gain"
    assert [*verdicts.values()].count("not tested here") == len(CLAIMS) - 1
    assert "profile gpu-24gb, Qwen/Qwen2.5-3B" in claims_table([record, large]).caption
    assert others_table([record, large]) is None


def test_an_answer_of_a_gpu_that_is_no_claim_of_the_papers_is_shown(tmp_path):
    made = trials("gpu-evening", base=54, random=50, intuitor=80)
    record = recorded(tmp_path, "gpu-evening", answers=ask(["gain"], made, "gpu-evening"))
    assert {row[-1] for row in claims_table([record]).rows} == {"not tested here"}
    assert [row[-1] for row in others_table([record]).rows] == ["gain"]


def test_records_of_every_profile_are_loaded_larger_ones_later(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "data_folder", lambda: None)
    folder = tmp_path / "records"
    folder.mkdir()
    for profile in ("gpu-12gb", "cpu"):
        (folder / f"02_main_results-{profile}.json").write_text(json.dumps({"profile": profile}))
    (folder / "08_model_families-smoke.json").write_text(json.dumps({"profile": "smoke"}))
    assert [r["profile"] for r in every_record(tmp_path)] == ["smoke", "cpu", "gpu-12gb"]
    assert load_records("cpu", tmp_path) == {"02_main_results": {"profile": "cpu"}}


# --- What is committed ----------------------------------------------------------------------


def committed():
    folder = project_root() / "data" / "records"
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*")}


def test_every_table_and_figure_of_the_paper_has_a_committed_record():
    records = every_record("nowhere")
    assert len(records) == len(committed())
    assert missing(records) == []


def test_a_seed_of_its_own_does_not_hide_another():
    several = [trial("INTUITOR", 40, seed=7), trial("INTUITOR", 60, seed=8)]
    table = accuracy_table({"INTUITOR": several}, "cpu", ["in_domain"])
    assert table.rows[0][1] == "2"
    assert table.rows[0][2].startswith("0.50 [")


def test_the_answer_with_the_most_seeds_counts():
    (one,) = ask(["gain"], trials(base=40, random=42, intuitor=70), "cpu")
    several = {**one, "seeds": [7, 8, 9], "verdict": "no gain"}
    for order in ([one, several], [several, one]):
        table = verdicts_table([{"values": {"answers": [answer]}} for answer in order])
        assert len(table.rows) == 1
        assert "**no gain**" in table.rows[0][1]
