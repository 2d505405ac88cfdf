"""Predictors of a gain, from made-up samples and trials."""

import dataclasses

import numpy as np
import pytest

from intuitor_lib.paper.beyond import predictors
from intuitor_lib.paper.beyond.foretelling import (
    foretold,
    foretold_table,
    in_words,
    leave_one_out,
    predictors_table,
    rank_correlation,
)
from intuitor_lib.paper.beyond.outcomes import outcomes, outcomes_table, steps_table, tasks_table
from intuitor_lib.paper.beyond.predictors import PREDICTORS
from intuitor_lib.paper.plan import TASKS, arm_recipe
from intuitor_lib.paper.trials import Trial
from intuitor_lib.report import spearman

STEPS = [8]


def rows(problems):
    """Rows of `measure_confidence`: for each problem its completions (answer, certainty)."""
    made = [
        {
            "id": i,
            "sample": k,
            "cluster": None if answer is None else [a for a, _ in group].index(answer),
            "correct": answer == "right",
            "tokens": 3 + k,
            "self_certainty": certainty,
            "entropy": 20 - certainty,
            "log_prob": certainty - 20,
        }
        for i, group in enumerate(problems)
        for k, (answer, certainty) in enumerate(group)
    ]
    return predictors._voted(made)


RIGHT, WRONG = ("right", 13.0), ("wrong", 12.0)
SAMPLES = {
    "warm": rows([[RIGHT, WRONG, RIGHT, RIGHT], [WRONG, ("right", 12.5), WRONG, (None, 11.0)]]),
    "cool": rows([[RIGHT] * 4, [WRONG, WRONG, RIGHT, WRONG]]),
}


def measured(name, labels):
    return PREDICTORS[name].measure(SAMPLES, labels).value


def test_every_predictor_with_and_without_labels():
    assert measured("level", True) == (0.75 + 0.25) / 2
    assert measured("level", False) == pytest.approx((3 / 6 + 1 / 6) / 2)  # pairs that agree
    assert measured("plurality", True) == 0.5
    assert measured("plurality", False) == (0.75 + 0.5) / 2
    assert measured("vote", True) == 0.5 - 0.5
    assert measured("vote", False) == pytest.approx((0.75 - 3 / 6 + 0.5 - 1 / 6) / 2)
    assert measured("cooling", True) == pytest.approx((1.0 + 0.25) / 2 - 0.5)
    assert measured("cooling", False) == pytest.approx((1 + 3 / 6) / 2 - (3 / 6 + 1 / 6) / 2)
    assert measured("auc", True) == 1.0
    assert measured("auc", False) == pytest.approx((1.0 + 0.5) / 2)
    assert measured("auc-entropy", True) == measured("auc-log-prob", True) == 1.0
    assert measured("length", False) == measured("length", True) == 4.5
    values = np.array([12.0, 12.5, 12.0, 11.0])
    first = 0.75 / 4 / np.std([13, 12, 13, 13], ddof=1)  # (value - mean) / spread, over right ones
    second = (12.5 - values.mean()) / values.std(ddof=1) / 4
    assert measured("alignment", True) == pytest.approx((first + second) / 2)


@pytest.mark.parametrize(
    "answers", [["a", "b", "a", "b"], ["a", "b", "c", "d"], [None, None, None, None]]
)
def test_ties_tell_nothing(answers):
    """All of the most frequent answers count as voted, in whatever order they came."""
    tied = {"warm": rows([[(a, 12.0 + k) for k, a in enumerate(answers)]])}
    assert PREDICTORS["alignment"].measure(tied, False).value == 0
    assert PREDICTORS["auc"].measure(tied, False) is None


def test_alignment_is_nothing_where_all_are_alike():
    alike = {"warm": rows([[RIGHT] * 4, [WRONG] * 4])}
    assert PREDICTORS["alignment"].measure(alike, True).value == 0
    assert PREDICTORS["auc"].measure(alike, True) is None


def test_spearman_is_scipys():
    from scipy.stats import spearmanr

    x, y = [0.1, 0.5, 0.2, 0.2, 0.9, 0.4], [1, 3, 2, 0, 5, 2]
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    found = rank_correlation(x, y)
    assert found.low < found.value < found.high <= 1
    assert spearman([1, 1, 1], [1, 2, 3]) == 0
    with pytest.raises(ValueError, match="at least 5"):
        rank_correlation([1, 2], [1, 2])


def test_left_out_a_line_is_fitted_to_the_others():
    line, mean = leave_one_out([0, 1, 2, 3], [0, 2, 4, 6])
    assert line == pytest.approx(0)
    assert mean == pytest.approx(np.mean([4, 4 / 3, 4 / 3, 4]))
    assert leave_one_out([1, 1, 1], [0, 3, 6])[0] == pytest.approx(3.0)


def trial(arm, task, right, *, seed=7, alarm=None, halfway=50):
    """A policy that is right on the first `right` of 100 problems, on `halfway` after step 8."""
    made = {
        (test, step): [
            {"id": i, "sample": 0, "correct": i < n, "answer": "", "tokens": 3} for i in range(100)
        ]
        for test in ("own", "own_sampled")
        for step, n in ((None, right), (0 if arm == "base" else 8, halfway))
    }
    metrics = [
        {
            **{"step": s, "kl": 2.0 if alarm and s >= alarm else 0.01, "entropy": 1.0},
            **{"rewards/accuracy/mean": 0.05 if s < 6 else 0.95},  # a stop must not see it
        }
        for s in range(1, 17)
    ]
    done = None if arm == "base" else {"metrics": metrics, "rows": [], "seconds": 200}
    recipe = arm_recipe(f"{arm}/{task}", "cpu", seed)
    baselines = {"own": {"echo": {"value": 0.0}, "most frequent answer": {"value": 0.1}}}
    label = f"{arm}, {task}"
    return Trial(f"{arm}/{task}", label, "cpu", recipe, done, made, baselines)


def study(gains, **more):
    """Outcomes of tasks whose base has as many mixed problems as training gains there."""
    trials, samples = {}, {}
    for task, gain in zip(TASKS, gains, strict=False):
        for arm, right in (("base", 50), ("intuitor", 50 + gain), ("random", 50)):
            made = [trial(arm, task, right, **(more if arm == "intuitor" else {}))]
            if arm == "intuitor":
                made.append(trial(arm, task, right, seed=8))
            trials[made[0].label] = made
        mixed = [[RIGHT, WRONG, RIGHT, RIGHT]] * (10 + gain)
        warm = rows([*mixed, *[[RIGHT] * 4] * (90 - gain)])
        samples[task] = {"warm": warm, "cool": warm}
    return outcomes(trials, samples, STEPS)


def test_the_rule_of_the_protocol():
    found = study([0, 4, 8, 12, 16, 20, 24, 28, 32, 20, 0, 30])
    rule = foretold(found)
    assert rule["recommended"] is True
    assert rule["correlation"]["value"] == pytest.approx(1.0)
    assert rule["errors"][0] < 1e-6 < rule["errors"][1]
    assert {name: one["right"] for name, one in rule["held_back"].items()} == {
        "sums": True,
        "percentages": True,
        "next-days": True,
    }
    assert len(foretold_table(rule).rows) == 3
    shown = {row[0]: row[1:] for row in predictors_table(found).rows}
    primary = shown["self-certainty's advantage × voted (primary)"]
    assert primary[-3:] == ["0.000", "0.000", "1.00"]  # errors left out and held back, all twelve
    assert "By the protocol it is a recommendation." in in_words(rule)
    assert "right on 3 of 3; to say *no gain* of each is right on 1." in in_words(rule)


def test_a_held_back_task_can_prove_the_rule_wrong():
    found = study([0, 4, 8, 12, 16, 20, 24, 28, 32, 20, 30, 30])
    swapped = {
        **found,
        "sums": dataclasses.replace(found["sums"], samples=found["products"].samples),
    }
    held_back = foretold(swapped)["held_back"]
    assert held_back["sums"]["predicted"] < 0.03 < held_back["sums"]["measured"]["low"]
    assert held_back["sums"]["right"] is False
    assert held_back["percentages"]["right"] is True


def test_a_rank_without_a_line_is_no_recommendation():
    """One task far off the line: the order is right, the line errs more than the mean."""
    found = study([0, 1, 2, 3, 4, 5, 6, 7, 50])
    samples = study([0, 1, 2, 3, 4, 5, 6, 7, 8])
    odd = {k: dataclasses.replace(o, samples=samples[k].samples) for k, o in found.items()}
    rule = foretold(odd)
    assert rule["correlation"]["low"] > 0
    assert rule["errors"][0] > rule["errors"][1]
    assert rule["recommended"] is False


def test_no_rule_where_the_predictor_says_nothing():
    found = study([20, 20, 0, 8, 30, 2, 4, 28, 9])
    flat = {k: dataclasses.replace(o, samples=found["dates"].samples) for k, o in found.items()}
    rule = foretold(flat)
    assert rule["recommended"] is False
    assert rule["held_back"] == {}
    assert rule["line"][0] == 0
    assert foretold(dict(list(found.items())[:3])) == {}


def test_either_side_is_taken_where_its_own_alarms_stop_it():
    found = study([30], alarm=10, halfway=60)["products"]
    assert found.gain("own").value == pytest.approx(0.30)
    assert found.gain("own", step=8).value == pytest.approx(0.05)  # one of two seeds has 60 there
    assert found.gain("own", kept=True).value == pytest.approx((0.10 + 0.30) / 2)
    early = study([30], alarm=5)["products"]
    assert early.gain("own", kept=True).value == pytest.approx(
        (0.0 + 0.30) / 2
    )  # the base, and seed 8
    assert (early.kept_at("intuitor"), early.kept_at("random")) == ("0, 16", "16")


def test_skill_does_not_silence_the_stop_without_labels():
    """Entropy falls and accuracy rises: the monitor, which sees both, is silent."""
    made = trial("intuitor", "products", 80)
    metrics = [
        row | {"entropy": 1.0 if row["step"] < 6 else 0.01} for row in made.training["metrics"]
    ]
    sharp = dataclasses.replace(made, training=made.training | {"metrics": metrics})
    assert not any(row.get("collapse") for row in sharp.metrics)
    assert (sharp.kept([8, 16]), sharp.first_alarm) == (0, 8)


def test_a_task_without_its_control_is_told():
    made = {arm: [trial(arm, "products", 50)] for arm in ("base", "intuitor")}
    with pytest.raises(ValueError, match="products: no trials of random"):
        outcomes(made, {"products": SAMPLES}, STEPS)


def test_tables_have_every_task():
    found = study([0, 10, 20, 30])
    for table in (tasks_table(found), outcomes_table(found), steps_table(found)):
        assert [row[0] for row in table.rows] == [TASKS[name].title for name in found]
    shown = predictors_table(found)
    assert sum("(primary)" in row[0] for row in shown.rows) == 1
    assert len(shown.rows) == 2 * len(PREDICTORS) - 2
    assert found["products"].verdict("own") == "no gain"
    assert found["code-sums"].verdict("own") == "gain"
