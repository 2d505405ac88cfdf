"""Intervals against closed forms and brute force."""

import itertools
import math

import numpy as np
import pytest

from intuitor_lib.report.intervals import (
    combination_over_seeds,
    difference_over_problems,
    mcnemar,
    mean_over_problems,
    mean_over_seeds,
    pass_at_k,
    proportion,
    summarize,
)


def test_wilson_by_hand():
    # p = 7/10, z = 1.959964: centre (p + z^2/2n) / (1 + z^2/n), as in Wilson (1927).
    z, n, p = 1.959964, 10, 0.7
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    estimate = proportion(7, 10)
    assert estimate.value == 0.7
    assert (estimate.low, estimate.high) == pytest.approx((centre - half, centre + half), abs=1e-6)


@pytest.mark.parametrize(("successes", "n"), [(0, 12), (12, 12)])
def test_extremes_keep_a_width(successes, n):
    estimate = proportion(successes, n)
    assert 0 <= estimate.low < estimate.high <= 1


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 3), (4, 3)])
def test_impossible_proportions_are_refused(successes, n):
    with pytest.raises(ValueError, match="is no proportion"):
        proportion(successes, n)


def test_bootstrap_matches_the_standard_error_of_independent_problems():
    values = np.random.default_rng(1).normal(size=400)
    estimate = mean_over_problems(range(400), values)
    error = values.std(ddof=1) / math.sqrt(400)
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_samples_of_one_problem_are_no_independent_evidence():
    values = np.random.default_rng(2).normal(size=100)
    once = mean_over_problems(range(100), values)
    copies = mean_over_problems(list(range(100)) * 4, np.tile(values, 4))
    assert (copies.n, copies.samples) == (100, 400)
    assert copies.high - copies.low == pytest.approx(once.high - once.low, rel=0.1)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="2 problems for 1 values"):
        mean_over_problems(["a", "b"], [1.0])


def test_a_paired_difference_is_narrower_than_its_sides():
    difficulty = np.random.default_rng(3).normal(size=80) * 5
    before = [{"id": i, "x": v} for i, v in enumerate(difficulty)]
    after = [{"id": i, "x": v + 1 + i % 2 / 10} for i, v in enumerate(difficulty)]
    change = difference_over_problems(before, after, "x")
    apart = mean_over_problems(range(80), difficulty)
    assert change.value == pytest.approx(1.05)
    assert 0 < change.high - change.low < (apart.high - apart.low) / 20


def test_the_same_verdicts_leave_a_difference_uncertain():
    before = outcomes("1100" * 10)
    for found in (
        difference_over_problems(before, before, "correct"),
        difference_over_seeds([before] * 3, [before] * 3, "correct"),
    ):
        half = 1.959964**2 / (40 + 1.959964**2)  # Wilson's upper bound for 0 of 40
        assert (found.value, found.low, found.high) == pytest.approx((0, -half, half), abs=1e-6)
        assert found.same
        assert found.n == 40
    always = difference_over_problems(outcomes("0" * 40), outcomes("1" * 40), "correct")
    assert (always.value, always.low, always.high) == pytest.approx((1, 1 - half, 1 + half))
    assert always.low > 0
    assert not difference_over_problems(before, outcomes("1" * 40), "correct").same


@pytest.mark.parametrize(("won", "apart"), [(1, False), (4, False), (5, False), (6, True)])
def test_few_problems_are_no_difference_unless_the_exact_test_finds_one(won, apart):
    before, after = outcomes("0" * 50 + "1" * 50), outcomes("1" * won + "0" * (50 - won) + "1" * 50)
    assert (mcnemar(before, after)["p"] < 0.05) == apart
    gain, loss = (
        difference_over_problems(*pair, "correct") for pair in ((before, after), (after, before))
    )
    assert gain.value == pytest.approx(won / 100)
    assert (gain.low > 0) == (loss.high < 0) == apart
    assert (gain.low, gain.high) == pytest.approx((-loss.high, -loss.low))
    assert gain.low <= gain.value <= gain.high
    none = difference_over_problems(before, before, "correct")
    assert none.high - none.low > 0.05 < gain.high - gain.low


def test_a_difference_of_no_share_is_in_the_units_of_the_values():
    lengths = [{"id": i, "tokens": v} for i, v in enumerate([5, 25] * 20)]
    found = difference_over_problems(lengths, lengths, "tokens")
    assert found.high == pytest.approx(20 * proportion(0, 40).high)
    assert found.low == -found.high


@pytest.mark.parametrize("value", [0, 1])
def test_problems_that_agree_have_wilsons_interval(value):
    expected = proportion(40 * value, 40)
    rows = [{"id": i, "correct": bool(value)} for i in range(40) for _ in range(2)]
    for found in (
        mean_over_problems([row["id"] for row in rows], [row["correct"] for row in rows]),
        mean_over_seeds([rows] * 3, "correct"),
        pass_at_k(rows, 2),
        summarize(rows)["accuracy"],
    ):
        interval = (expected.value, expected.low, expected.high)
        assert (found.value, found.low, found.high) == pytest.approx(interval)
        assert found.same
        assert found.n == 40


def test_agreement_on_another_number_keeps_a_width():
    halves = mean_over_problems([0, 0, 1, 1], [0, 1, 1, 0])  # each problem one of two
    assert 0 < halves.low < halves.value == 0.5 < halves.high < 1
    assert halves.same
    four = mean_over_problems(range(50), [4] * 50)
    assert 3.9 < four.low < four.value == 4 < four.high < 4.1
    alone = mean_over_problems(["a", "a"], [10, 20])
    assert alone.low < 11 < 19 < alone.high


def test_seeds_are_counted():
    rows = outcomes("10")
    assert mean_over_seeds([rows] * 3, "correct").trainings == 3
    assert difference_over_seeds([rows], [rows] * 2, "correct").trainings == 2
    assert mean_over_problems([1, 2], [0, 1]).trainings == 0


def test_a_difference_needs_the_same_problems():
    with pytest.raises(ValueError, match="only one side has"):
        difference_over_problems([{"id": "a", "x": 1}], [{"id": "b", "x": 1}], "x")


def outcomes(text, name="p"):
    """Rows of one completion each; '1' is right."""
    return [{"id": f"{name}{i}", "correct": mark == "1"} for i, mark in enumerate(text)]


def test_pass_at_k_is_the_share_of_draws_with_a_right_one():
    marks = {"a": "1100", "b": "0000", "c": "1000", "d": "1111"}
    rows = [
        {"id": name, "sample": i, "correct": mark == "1"}
        for name, text in marks.items()
        for i, mark in enumerate(text)
    ]
    for k in (1, 2, 3, 4):
        draws = ["1" in draw for text in marks.values() for draw in itertools.combinations(text, k)]
        estimate = pass_at_k(rows, k)
        assert estimate.value == pytest.approx(np.mean(draws))
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.n == 4
    with pytest.raises(ValueError, match="pass@5 needs 5 completions"):
        pass_at_k(rows, 5)
    with pytest.raises(ValueError, match="pass@0"):
        pass_at_k(rows, 0)


def test_mcnemar_by_hand():
    #                 both, lost, won, neither
    before = outcomes("111" + "11" + "0000000" + "00")
    after = outcomes("111" + "00" + "1111111" + "00")
    found = mcnemar(before, after)
    assert (found["lost"], found["won"]) == (2, 7)
    # Two-sided: of 9 coins, 2 or fewer or 7 or more heads.
    tail = sum(math.comb(9, i) for i in range(3)) / 2**9
    assert found["p"] == pytest.approx(2 * tail)
    assert mcnemar(before, before) == {"lost": 0, "won": 0, "p": 1.0}


def test_mcnemar_wants_the_same_problems_once():
    rows = outcomes("10")
    for other in (outcomes("10", "q"), outcomes("1"), rows + rows):
        with pytest.raises(ValueError, match="same problems on both sides, each once"):
            mcnemar(rows, other)
        with pytest.raises(ValueError, match="same problems on both sides, each once"):
            mcnemar(other, rows)


def difference_over_seeds(before, after, column):
    return combination_over_seeds([(1, after), (-1, before)], column)


def table(*values, column="correct"):
    return [{"id": f"p{i}", column: value} for i, value in enumerate(values)]


def test_over_seeds_the_interval_covers_both_sources_of_chance():
    draw = np.random.default_rng(3)
    inside = 0
    for _ in range(60):
        shift = draw.normal(0, 0.3, size=12)  # of each training
        skill = draw.normal(0, 1.0, size=40)  # of each problem
        tables = [table(*(skill + s + draw.normal(0, 0.2, size=40))) for s in shift]
        found = mean_over_seeds(tables, "correct")
        inside += found.low <= 0 <= found.high
    assert 50 <= inside <= 60  # of 60; problems alone, or trainings alone, would give fewer


def test_one_seed_is_the_interval_over_problems():
    rows = table(*([1, 0, 0, 1, 1, 0, 1, 1] * 10))
    one = mean_over_seeds([rows], "correct")
    plain = mean_over_problems([r["id"] for r in rows], [r["correct"] for r in rows])
    assert one.value == plain.value
    assert (one.low, one.high) == pytest.approx((plain.low, plain.high), abs=0.03)
    assert (one.n, one.samples) == (80, 80)
    three = mean_over_seeds([rows] * 3, "correct")
    assert (three.n, three.samples) == (80, 240)
    apart = mean_over_seeds([table(*[0] * 80), table(*[1] * 80)], "correct")
    assert (apart.low, apart.high) == (0, 1)  # problems agree, trainings do not


def test_all_alike_is_not_certain():
    never = mean_over_seeds([table(*[0] * 10)] * 3, "correct")
    expected = proportion(0, 10)
    assert (never.value, never.low, never.high) == (0, 0, expected.high)
    assert never.same
    assert (never.n, never.samples) == (10, 30)
    always = mean_over_seeds([table(*[1] * 10)], "correct")
    assert (always.value, always.low) == (1, pytest.approx(1 - expected.high))


def test_differences_over_seeds_are_paired():
    base, after = table(0, 0, 1, 1), [table(0, 1, 1, 1), table(1, 0, 1, 1)]
    found = difference_over_seeds([base], after, "correct")
    assert found.value == 0.25
    constant = difference_over_seeds([base], [table(1, 1, 2, 2)] * 3, "correct")
    assert constant.low < constant.value == 1 < constant.high
    assert constant.same
    with pytest.raises(ValueError, match="only one side has"):
        difference_over_seeds([base], [table(0, 1)], "correct")
    with pytest.raises(ValueError, match="do not pair up"):
        difference_over_seeds([base, base], after + after[:1], "correct")
    with pytest.raises(ValueError, match="give at least one"):
        mean_over_seeds([], "correct")
