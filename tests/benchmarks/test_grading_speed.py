"""The answers that grading is timed with: spelled differently, right as often as they claim."""

import pytest
from grading_speed import short_answers, time_grading

from intuitor_lib.grading.answers import grade
from intuitor_lib.grading.sandbox.confine import protections


def test_the_answers_are_what_they_claim():
    triples = short_answers(160)
    assert triples == short_answers(160)
    assert triples != short_answers(160, seed=1)
    assert all(answer != gold for answer, gold, _ in triples)
    right = [claim for _, _, claim in triples]
    assert 50 < sum(right) < 110
    texts = [f"\\boxed{{{answer}}}" for answer, _, _ in triples]
    assert grade(texts, [gold for _, gold, _ in triples]) == right


@pytest.mark.slow
@pytest.mark.skipif(protections().mode == "none", reason="programs cannot be confined here")
def test_both_are_timed():
    answers, programs = time_grading(24)
    assert (answers["n"], programs["n"]) == (24, 164)
    for row in (answers, programs):
        assert row["right"] == row["expected"] > 0
        assert row["seconds"] > 0
