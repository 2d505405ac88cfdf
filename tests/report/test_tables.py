"""Tables as text and as HTML."""

import pytest

from intuitor_lib.recipe import get_recipe
from intuitor_lib.report.tables import Table, training_summary
from intuitor_lib.store import RunStore


def test_a_table_reads_as_text_and_escapes_as_html():
    table = Table(["metric", "after"], [["accuracy", 0.5], ["<script>", "a & b"]], "n = 4")
    lines = str(table).splitlines()
    assert lines[0].split() == ["metric", "after"]
    assert lines[2].split() == ["accuracy", "0.5"]
    assert lines[-1] == "n = 4"
    assert "<script>" not in table._repr_html_()
    assert "&lt;script&gt;" in table._repr_html_()
    assert str(Table(**table.to_dict())) == str(table)


def test_a_short_run_is_compared_by_halves(tmp_path):
    run = RunStore(tmp_path).open(get_recipe("quickstart", "smoke"), {"fingerprint": "x"})
    values = [9.0, 9.5, 12.0]
    rows = [{"step": i, "rewards/self_certainty/mean": v} for i, v in enumerate(values, 1)]
    run.append("metrics.jsonl", rows)
    assert training_summary([run]).rows[0][5] == "9.00 -> 12.00"


def test_a_row_of_another_width_is_refused():
    with pytest.raises(ValueError, match="1 cells under 2 headings"):
        Table(["a", "b"], [["x"]], "")
