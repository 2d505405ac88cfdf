"""Verdicts on claims and the entries of a record."""

import pytest

from intuitor_lib.paper.comparison import replication_summary
from intuitor_lib.paper.trials import Trial
from intuitor_lib.paper.verdicts import answer, claim, measured, verdict
from intuitor_lib.recipe.recipes import get_recipe
from intuitor_lib.report.intervals import Estimate


@pytest.mark.parametrize(
    ("low", "high", "expected", "found"),
    [
        (0.01, 0.3, "higher", "same direction"),
        (-0.3, -0.01, "higher", "opposite"),
        (-0.1, 0.3, "higher", "undecided"),
        (0.0, 0.3, "higher", "undecided"),
        (-0.3, -0.01, "lower", "same direction"),
        (0.01, 0.3, "lower", "opposite"),
        (-0.1, 0.1, "close", "same direction"),
        (-0.2, 0.05, "close", "undecided"),
        (-0.4, -0.11, "close", "opposite"),
        (0.11, 0.4, "close", "opposite"),
    ],
)
def test_a_verdict_needs_an_interval(low, high, expected, found):
    assert verdict(Estimate((low + high) / 2, low, high, 50, 50), expected) == found


def test_a_claim_carries_all_that_stands_beside_a_number():
    recipes = [get_recipe("intuitor", "cpu", seed=seed) for seed in (7, 8)]
    trials = [Trial("intuitor", "INTUITOR", "cpu", recipe) for recipe in recipes]
    entry = claim("in-domain", "accuracy", Estimate(0.2, 0.1, 0.3, 50, 150), "higher", trials)
    assert (entry["n"], entry["seeds"], entry["profile"]) == (50, [7, 8], "cpu")
    assert entry["model"] == "SmolLM2-135M-Instruct (NF4 + LoRA)"
    assert entry["verdict"] == "same direction"
    with pytest.raises(KeyError, match="choose from in-domain"):
        claim("speed", "x", Estimate(0, 0, 0, 1, 1), "higher", trials)


def test_two_steps_are_no_result():
    (small,) = [
        Trial("intuitor", "INTUITOR", "smoke", get_recipe("intuitor", "smoke"), {"metrics": []})
    ]
    entry = claim("in-domain", "accuracy", Estimate(0.2, 0.1, 0.3, 4, 4), "higher", [small])
    assert entry["verdict"] == "not tested here"
    summary = replication_summary([{"values": {"claims": {"in-domain": entry}}}])
    assert {row[-1] for row in summary.rows} == {"not tested here"}
    assert "executed at smoke only" in summary.rows[0][2]
    value = measured("x", Estimate(0.5, 0.4, 0.6, 4, 4), [small])
    assert "not tested" in answer([value])
    assert "not tested" not in answer([{**value, "profile": "cpu"}])
