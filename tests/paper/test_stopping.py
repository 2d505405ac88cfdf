"""Rules that stop a training without labels, from made-up trainings."""

from types import SimpleNamespace

import pytest

from intuitor_lib.paper.beyond.stopping import ALARMS, SIGNALS, _over_arms, stopping_table, ways_of
from intuitor_lib.paper.plan import arm_recipe
from intuitor_lib.paper.trials import Trial

STEPS = [8, 16, 24, 32, 40]


def trial(arm, levels, *, seed=7, entropy=None):
    """Right on as many of 100 problems as `levels` says at step 0 or at each snapshot."""
    at = dict(zip([0] if arm == "base" else [*STEPS, None], levels, strict=True))
    at |= {None: levels[0]} if arm == "base" else {}
    made = {
        ("own", step): [{"id": i, "sample": 0, "correct": i < n} for i in range(100)]
        for step, n in at.items()
    }
    metrics = [
        {
            **{column: 1.0 for column, _ in SIGNALS.values()},
            **{"step": s, "kl": 0.01, "entropy": entropy(s) if entropy else 1.0},
        }
        for s in range(1, 49)
    ]
    done = None if arm == "base" else {"metrics": metrics, "rows": []}
    return Trial(arm, arm, "cpu", arm_recipe("online", "cpu", seed), done, made)


def falling(seed):
    """Rises to step 16 and falls when entropy does."""
    levels = [60, 70, 40, 30, 20, 10]
    return trial("online", levels, seed=seed, entropy=lambda s: 1.0 if s < 20 else 0.5)


def rising(seed):
    return trial("offline", [55, 60, 62, 64, 66, 68], seed=seed)


def table(**several):
    base = {"base": [trial("base", [50])]}
    shown = stopping_table(ways_of(base | several, "own", STEPS))
    return {row[0]: (float(row[1].split()[0]), *row[2:]) for row in shown.rows}


def test_the_signal_that_falls_with_accuracy_stops_best():
    rows = table(online=[falling(7), falling(8)], offline=[rising(7), rising(8)])
    regret, less, stops = rows["entropy, of its start"]
    assert (regret, stops) == (0, "16: 2, 48: 2")
    assert less.startswith("-0.30")
    assert rows["the last step"][0] == rows[ALARMS][0] == 0.30
    assert rows["KL to the start"][0] >= rows["a fixed step"][0] > 0
    assert set(rows) == {*SIGNALS, ALARMS, "the last step", "a fixed step"}


def test_a_training_that_only_harms_is_best_not_begun():
    harmful = [trial("online", [40, 30, 20, 10, 10, 10], seed=seed) for seed in (7, 8, 9)]
    rows = table(online=harmful)
    assert rows["a fixed step"][::2] == (0, "0: 3")
    assert rows["a fixed step"][1].startswith("-0.40")
    assert rows["the last step"][::2] == (0.40, "48: 3")


def test_a_threshold_is_not_fitted_to_the_training_that_it_stops():
    """Only one training falls: nothing in the others says that it would."""
    rows = table(online=[falling(7)], offline=[rising(7), rising(8), rising(9)])
    assert rows["entropy, of its start"][0] == pytest.approx((0.70 - 0.10) / 4)


def test_never_to_stop_is_a_rule_and_a_training_beyond_all_others_is_not_stopped():
    """Nothing falls in the others, so their largest value is no reason to stop."""
    steady = [rising(7), rising(8), rising(9)]
    odd = trial("online", [55, 60, 62, 64, 66, 68], entropy=lambda s: 1.0 + s)
    rows = table(online=[odd], offline=steady)
    assert rows["entropy, of its start"] == (0, "stops as they do", "48: 4")


def test_arms_that_lose_alike_decide_nothing():
    """Four arms are no ground for an interval without width."""
    ways = [SimpleNamespace(arm=f"arm {i}", regret=lambda step: step / 100) for i in range(4)]
    gap = _over_arms(ways, [1] * 4, [0] * 4)
    assert gap.value == pytest.approx(0.01)
    assert gap.low < 0 < gap.high


def test_too_few_trainings_are_refused():
    with pytest.raises(ValueError, match="2 trainings: give at least three"):
        table(online=[falling(7), falling(8)])
