"""Rank tests against scipy's and by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from intuitor_lib.report.ranks import (
    auc_within_groups,
    mann_whitney,
    separation,
    separation_change,
    spearman,
)


@pytest.mark.parametrize("digits", [0, 1, 6])
def test_mann_whitney_is_scipys(digits):
    from scipy.stats import mannwhitneyu

    draw = np.random.default_rng(digits)
    right, wrong = (np.round(draw.normal(m, 1, n), digits) for m, n in ((0.4, 30), (0, 45)))
    theirs = mannwhitneyu(right, wrong, method="asymptotic", use_continuity=False)
    ours = mann_whitney(right, wrong)
    assert (ours["U"], ours["p"]) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert (ours["r"] > 0) == (ours["U"] > len(right) * len(wrong) / 2)
    with pytest.raises(ValueError, match="needs some of each"):
        mann_whitney(right, [])


def test_the_papers_effect_size_follows_from_its_u():
    # Figure 8, INTUITOR: r = Z / sqrt(N). Complete separation of equal halves gives .866.
    assert mann_whitney(range(10, 20), range(10))["r"] == pytest.approx(0.845, abs=0.001)
    assert mann_whitney([1.0, 1.0], [1.0])["r"] == 0


def test_within_groups_only_mixed_problems_count():
    rows = [
        {"id": "a", "v": 2, "correct": True},
        {"id": "a", "v": 1, "correct": False},
        {"id": "b", "v": 9, "correct": True},
        {"id": "c", "v": 3, "correct": False},
        {"id": "c", "v": 1, "correct": True},
        {"id": "c", "v": None, "correct": True},
    ]
    found = auc_within_groups(rows, "v")
    assert (found.value, found.n) == (0.5, 2)
    assert auc_within_groups(rows[2:3], "v") is None


def test_separation_resamples_problems():
    draw = np.random.default_rng(0)
    rows = [
        {"id": i, "v": draw.normal(loc=correct), "correct": correct}
        for i in range(30)
        for correct in (True, False, False)
    ]
    found = separation(rows, "v")
    sides = [[r["v"] for r in rows if r["correct"] is side] for side in (True, False)]
    assert found.value == mann_whitney(*sides)["r"]
    assert 0 < found.low < found.value < found.high < 1
    nothing = separation_change(rows, rows, "v")
    assert nothing.low < nothing.value == 0 < nothing.high
    assert nothing.same


def test_rank_correlations_of_many_samples_at_once():
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 5, (20, 9)), draw.normal(size=(20, 9))
    expected = [spearmanr(*pair).statistic for pair in zip(x, y, strict=True)]
    assert spearman(x, y) == pytest.approx(expected)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0
