"""Whether self-certainty separates right from wrong: tables, panels, the verdict."""

import pytest

from intuitor_lib.paper.separation import PAIRS, figure_8, separation_answer, signals_table


def rows(gap, n=40):
    """Completions of n problems, two each; the right one is surer by `gap` nats."""
    return [
        {
            "id": i,
            "sample": s,
            "correct": s == 0,
            "tokens": 4,
            "self_certainty": 10 + (gap if s == 0 else 0) + (i * 7 % 11) / 10,
            "entropy": 1.0 - s / 10,
            "log_prob": -1.0,
        }
        for i in range(n)
        for s in (0, 1)
    ]


def test_what_each_signal_says_within_a_problem():
    table = signals_table(rows(1.0), "cpu")
    found = {row[0]: row[1:] for row in table.rows}
    assert found["self-certainty"][0] == "+1.00"
    assert found["self-certainty"][1].startswith("1.00 [")
    assert found["minus entropy"][1].startswith("0.00 [")
    assert found["minus length"][0] == "-"  # all have four tokens
    assert found["minus length"][1].startswith("0.50 [")
    assert "n = 40 problems, 80 completions" in table.caption


def test_the_panels_and_the_table_of_figure_8():
    pairs = dict.fromkeys(PAIRS, rows(1.0)) | {"GRPO → GRPO": [r for r in rows(1) if r["correct"]]}
    panels, table = figure_8(pairs, "cpu")
    right, wrong, text = panels["base → base"]
    assert len(right) == len(wrong) == 40
    assert "r = 0." in text
    assert panels["GRPO → GRPO"][2] == "one kind only"
    by_pair = {row[0]: row for row in table.rows}
    assert by_pair["base → base"][2] == "0.00"  # the paper's
    assert by_pair["GRPO → GRPO"][3:] == ["-", "-", "40 / 0"]


@pytest.mark.parametrize(
    ("before", "after", "verdict"), [(0.0, 2.0, "higher"), (2.0, 0.0, "lower"), (1, 1, "undecided")]
)
def test_the_verdict_follows_the_change_of_the_effect(before, after, verdict):
    pairs = {"base → base": rows(before), "INTUITOR → INTUITOR": rows(after)}
    (answer,) = separation_answer(pairs, "cpu")
    assert answer["verdict"] == verdict
    assert answer["levels"].keys() == {"INTUITOR", "base"}
    assert separation_answer(pairs, "smoke")[0]["verdict"] == "not tested here"


def test_without_both_kinds_there_is_no_answer():
    pairs = {"base → base": rows(1), "INTUITOR → INTUITOR": [r for r in rows(1) if r["correct"]]}
    assert separation_answer(pairs, "cpu") == []
