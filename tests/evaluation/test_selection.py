"""Choosing one of N answers: by hand on tiny groups."""

import pytest

from intuitor_lib.evaluation.selection import SELECTORS, best_of_n


def group(*answers, id="p"):
    """Completions of one problem, given as (cluster, self-certainty, correct)."""
    return [{"id": id, "cluster": c, "self_certainty": s, "correct": k} for c, s, k in answers]


TWO_TO_ONE = group((0, 5.0, False), (0, 1.0, False), (1, 9.0, True))


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("one sample", 1 / 3),
        ("self-certainty", 1.0),
        ("majority", 0.0),
        ("Borda vote", 1.0),  # 3 votes against 2 + 1: a tie, broken by the sum of confidences
        ("any of them", 1.0),
    ],
)
def test_selectors_by_hand(selector, expected):
    assert best_of_n(TWO_TO_ONE, 3, selector).value == pytest.approx(expected)


def test_what_cannot_vote_is_not_elected():
    rows = group((None, 9.0, False), (None, 8.0, False), (1, 1.0, True))
    assert best_of_n(rows, 3, "majority").value == 1
    assert best_of_n(group((None, 9.0, False)), 1, "majority").value == 0


def test_a_completion_without_a_confidence_comes_last():
    assert best_of_n(group((0, None, False), (1, 0.1, True)), 2, "self-certainty").value == 1


def test_of_one_every_confidence_chooses_the_same():
    rows = TWO_TO_ONE + group((0, 5.0, True), (1, 1.0, False), (1, 9.0, True), id="q")
    for seed in (1, 2, 3):
        values = [best_of_n(rows, 1, s, draws=400, seed=seed).value for s in SELECTORS]
        assert values == [values[0]] * len(SELECTORS)
        assert values[0] == pytest.approx((1 / 3 + 2 / 3) / 2, abs=0.04)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="choose from one sample"):
        best_of_n(TWO_TO_ONE, 2, "best")
    with pytest.raises(ValueError, match="choose from 1 to the 3"):
        best_of_n(TWO_TO_ONE, 4, "majority")
