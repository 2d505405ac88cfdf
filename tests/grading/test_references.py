"""Reference answers that no completion can match are found before they are graded by."""

import pytest

from intuitor_lib.grading import answers
from intuitor_lib.grading.answers import describe_doubts, doubtful

PROSE = "Solution: (1-1/3) / (25/36), so it takes 180 days.\nTherefore, the answer is: 180."


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (PROSE, "prose without a box"),
        ("Therefore the answer is: 180.", "prose without a box"),
        ("We add the two numbers and then we halve the sum of both.", "prose without a box"),
        ("either \\boxed{3} or, with the other sign, \\boxed{-3}", "the last of several boxes"),
        ("nan", "a missing value"),
        (" N/A ", "a missing value"),
        ("\\frac{1", "not readable"),
        ("??", "not readable"),
        ("https://a.b/c", "not readable"),
        ("7" * 3000, "not readable"),
    ],
)
def test_what_no_completion_can_match(reference, reason):
    assert doubtful({"a": "4", "b": reference}) == {"b": reason}


@pytest.mark.parametrize(
    "reference",
    [
        "180",
        "0.00001",
        "-3/4",
        "1,234",
        "\\frac{3}{4}",
        "x^2 + 1",
        "(1, 2)",
        "yes",
        "Monday and Tuesday",
        "5 apples and 3 pears",
        "5 \\text{ if the number is not prime and } 3 \\text{ if it is}",
        "The days are 1/3 of 540, hence \\boxed{180} days are needed for it.",
        "First \\boxed{180}, and once more it is \\boxed{180}.",
        "\\boxed{\\fbox{3}}",
    ],
)
def test_what_can_be_matched(reference):
    assert doubtful({"a": reference}) == {}


def test_the_first_is_named_with_the_count():
    given = {"one": "4", "two": PROSE, "three": "nan"}
    text = describe_doubts(given, doubtful(given))
    assert "2 of 3 reference answers; the first, of two, is prose without a box" in text
    assert "'Solution: (1-1/3) / (25/36), so it" in text
    assert text.isprintable()


def test_of_many_answers_some_are_read(monkeypatch):
    asked = []
    monkeypatch.setattr(answers, "readable", lambda texts: asked.extend(texts) or [False] * 300)
    given = {str(i): f"x^{i // 2}" for i in range(1800)}
    found = doubtful(given)
    assert asked == [f"x^{i}" for i in range(0, 900, 3)]
    assert len(found) == 600  # both of each
