"""Alarms: they ring for what collapses, and not for what does not."""

import pytest

from intuitor_lib.training.monitor import RULES, WINDOW, alarms, distinct, marked, repetition

HEALTHY = {
    "completions/repetition": 0.1,
    "completions/mean_length": 25.0,
    "completions/distinct": 0.9,
    "entropy": 1.7,
    "kl": 0.0,
    "sampling/sampling_logp_difference/mean": 1e-6,
    "rewards/accuracy/mean": 0.2,
}
BROKEN = {
    "repetition": {"completions/repetition": 0.6},
    "short completions": {"completions/mean_length": 3.0},
    "same completions": {"completions/distinct": 0.05},
    "entropy": {"entropy": 0.1},
    "kl": {"kl": 1.5},
    "sampler": {"sampling/sampling_logp_difference/mean": 0.2},
}


def rows(*parts):
    """Metrics of steps: each part is (number of steps, changes)."""
    values = [{**HEALTHY, **changes} for number, changes in parts for _ in range(number)]
    return [{"step": i, **row} for i, row in enumerate(values, 1)]


def names(found):
    return [alarm.name for alarm in found]


def test_every_rule_has_its_case():
    assert BROKEN.keys() == {rule.name for rule in RULES}


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_rings_for_its_own_sign(name):
    history = rows((10, {}), (WINDOW, BROKEN[name]))
    found = alarms(history, problems=64)
    assert names(found) == [name]
    assert found[0].step == 10 + WINDOW
    assert f"step {10 + WINDOW}, {name}: " in str(found[0])
    # Not for a single step out of line.
    assert alarms(history[: 10 + 1], problems=64) == []


@pytest.mark.parametrize("name", BROKEN)
def test_what_was_so_from_the_start_is_no_collapse(name):
    if name not in ("kl", "sampler"):  # the first begins at 0, the second is a fault at any time
        assert alarms(rows((12, BROKEN[name])), problems=64) == []


def test_a_healthy_run_rings_nothing():
    history = rows((30, {}))
    for i, row in enumerate(history):
        row |= {
            # As in the quickstart's: longer, surer, further from the start.
            "completions/mean_length": 22 + min(i, 10),
            "completions/repetition": 0.1 + 0.005 * i,
            "entropy": 1.8 - 0.037 * i,
            "kl": 0.01 * i,
        }
    assert all(alarms(history[:n], problems=64) == [] for n in range(len(history) + 1))


@pytest.mark.parametrize("column", ["rewards/accuracy/mean", "rewards/unit_tests/mean"])
def test_a_fall_of_accuracy_beyond_chance_rings(column):
    fallen = rows((10, {column: 0.5}), (3, {column: 0.2}))
    assert names(alarms(fallen, problems=64)) == ["accuracy"]
    # The same fall on few problems may be chance.
    assert alarms(fallen, problems=4) == []
    slight = rows((10, {column: 0.5}), (3, {column: 0.3}))
    assert alarms(slight, problems=640) == []


def test_problems_without_a_label_are_no_sample():
    fallen = rows((10, {"rewards/accuracy/mean": 0.5}), (3, {"rewards/accuracy/mean": 0.2}))
    assert alarms([row | {"rewards/accuracy/n": 4} for row in fallen], problems=64) == []
    assert alarms([row | {"rewards/accuracy/n": 0.25} for row in fallen], problems=64) == []


@pytest.mark.parametrize("accuracy", [0.1, 0.9])
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_a_policy_that_begins_to_spam_is_named_within_three_rollouts(accuracy, iterations):
    """400 tokens become 30 of one phrase. Later updates of a rollout have only its KL."""
    usual = {"completions/repetition": 0.02, "completions/mean_length": 400.0, "kl": 0.001}
    spam = {"completions/repetition": 0.75, "completions/mean_length": 30.0, "kl": 4.0}
    rollouts = [usual | {"rewards/accuracy/mean": 0.1}] * 5
    rollouts += [spam | {"rewards/accuracy/mean": accuracy}] * 3
    updates = [
        rollout if i == 0 else {"kl": rollout["kl"]}
        for rollout in rollouts
        for i in range(iterations)
    ]
    history = [{"step": step, **row} for step, row in enumerate(updates, 1)]
    rung = {a.name for n in range(1, len(history) + 1) for a in alarms(history[:n], problems=16)}
    # Terse answers that are right more often are no collapse; repetition and a lost policy are.
    assert rung == {"repetition", "kl"} | ({"short completions"} if accuracy == 0.1 else set())
    assert not any(alarms(history[: 5 * iterations], problems=16))


def test_held_out_accuracy_is_compared_point_by_point():
    history = rows((12, {}))
    for row in history:
        if row["step"] % 4 == 0:
            row |= {"held_out/accuracy": 0.6 if row["step"] < 12 else 0.1, "held_out/n": 100}
    assert names(alarms(history, problems=64)) == ["accuracy"]
    assert alarms(history[:8], problems=64) == []
    for row in history:
        row["held_out/n"] = 5
    assert alarms(history, problems=64) == []


SKILL = ("short completions", "same completions", "entropy")


@pytest.mark.parametrize("column", ["rewards/accuracy/mean", "rewards/unit_tests/mean"])
@pytest.mark.parametrize("name", BROKEN)
def test_what_skill_looks_like_too_rings_nothing_while_accuracy_has_risen(name, column):
    right, usual = {column: 0.9}, {column: HEALTHY["rewards/accuracy/mean"]}
    history = rows((10, usual), (WINDOW, {**BROKEN[name], **right}))
    assert names(alarms(history, problems=64)) == ([] if name in SKILL else [name])
    # A rise that may be chance is none.
    assert names(alarms(history, problems=2)) == [name]
    # Neither is one that is lost again.
    lost = rows((10, usual), (WINDOW, BROKEN[name] | right), (WINDOW, BROKEN[name] | usual))
    assert name in names(alarms(lost, problems=64))


def test_the_last_held_out_accuracy_counts_between_two():
    history = rows((10, {}), (WINDOW, BROKEN["entropy"]))
    for row in history[3::4]:
        row |= {"held_out/accuracy": 0.2 if row["step"] == 4 else 0.8, "held_out/n": 50}
    assert "held_out/accuracy" not in history[-1]
    assert alarms(history, problems=4) == []


def test_a_stored_run_is_judged_anew():
    stored = rows((10, {}), (WINDOW, BROKEN["kl"]))
    stored[2]["collapse"] = ["of an older rule"]
    judged = marked(stored, problems=64)
    assert [row.get("collapse") for row in judged] == [None] * 11 + [["kl"]] * 2
    assert stored[2]["collapse"] == ["of an older rule"]
    assert [{k: v for k, v in row.items() if k != "collapse"} for row in judged] == rows(
        (10, {}), (WINDOW, BROKEN["kl"])
    )


def test_what_is_not_finite_rings_at_once():
    found = alarms([{"step": 1, **HEALTHY, "not_finite": ["loss"]}], problems=64)
    assert [str(alarm) for alarm in found] == ["step 1, not finite: loss is NaN or infinite"]


def test_updates_that_are_left_out_for_ever_ring():
    history = rows((40, {"update_skipped": 1.0}))
    assert alarms(history[:19], problems=64) == []
    (found,) = alarms(history[:20], problems=64)
    assert (found.name, found.step) == ("not finite", 20)
    assert alarms([*history[:30], {"step": 31, **HEALTHY}], problems=64) == []


def test_metrics_that_are_not_there_ring_nothing():
    assert alarms([], problems=64) == []
    assert alarms([{"step": i, "reward": 1.0} for i in range(1, 20)], problems=64) == []


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], 0.0),
        ([1, 2, 3], 0.0),
        ([1, 2, 3, 4], 0.0),
        ([1] * 12, 1 - 1 / 9),
        ([1, 2] * 6, 1 - 2 / 9),
        (list(range(50)), 0.0),
    ],
)
def test_repetition_is_the_share_of_repeated_4_grams(tokens, expected):
    assert repetition(tokens) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(["a"] * 4, 0.0), (list("abcd"), 1.0), (list("abab"), 1 / 3), (list("aaaaabcd"), 1 / 2)],
)
def test_distinct_is_the_share_that_is_no_copy(texts, expected):
    assert distinct(texts, 4) == pytest.approx(expected)
