"""Graders: what counts as an answer, the reason given, and how several answers vote."""

import pytest
from grading_check import example

from intuitor_lib.evaluation.benchmarks.benchmarks import BENCHMARKS
from intuitor_lib.evaluation.benchmarks.graders import (
    ChoiceGrader,
    CodeGrader,
    Item,
    JudgedGrader,
    MathGrader,
    ValueGrader,
)
from intuitor_lib.grading.sandbox.confine import protections


def verdict(grader, reference, text):
    return grader.grade([Item("a", "q", "q", reference)], [text])[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so \\boxed{12}, done", (True, "12", "boxed")),
        ("so 3 + 9 = 12.", (True, "12", "last number")),
        ("\\boxed{13}, not 12", (False, "13", "boxed")),
        ("no idea", (False, None, "no answer")),
    ],
)
def test_math_says_where_the_answer_stood(text, expected):
    assert verdict(MathGrader(), "12", text) == expected


def test_without_a_reference_nothing_is_judged():
    items = [Item("a", "1?", "1?", None), Item("b", "2?", "2?", "4")]
    found = MathGrader().grade(items, ["It is 3.", "It is 4."])
    assert found == [(None, "3", "last number"), (True, "4", "last number")]
    assert MathGrader().baselines(items)["most frequent answer"]["n"] == 1
    assert MathGrader().baselines(items[:1]) == {}


def test_without_the_last_number_only_a_box_counts():
    assert verdict(MathGrader(extraction="boxed"), "12", "so it is 12") == (
        False,
        None,
        "no answer",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so \\boxed{12}, done", (True, "12", "boxed")),
        ("The final answer is $12$. I hope it is correct.", (True, "12", "stated")),
        ("So 12 of the 30.", (False, "30", "stated")),
        ("no idea", (False, None, "no answer")),
        ("Hm.\n\nProblem: Add 5 and 7.\n\nThe answer is 12.", (True, "12", "stated")),
        ("So 30.\n\nProblem: Add 5 and 7.\n\nThe answer is 12.", (False, "30", "stated")),
    ],
)
def test_the_harness_reads_statements(text, expected):
    assert verdict(MathGrader("harness"), "12", text) == expected


def test_the_papers_benchmarks_are_read_as_its_harness_does():
    found = {name: getattr(b.grader, "extraction", None) for name, b in BENCHMARKS.items()}
    assert [name for name, place in found.items() if place == "harness"] == ["gsm8k", "math500"]
    assert found["gsm_symbolic"] == "last_number"


def test_a_choice_is_a_letter_of_the_question():
    reference = {"answer": "B", "letters": "ABC"}
    assert verdict(ChoiceGrader(), reference, "Hence the answer is (B).") == (True, "B", "choice")
    assert verdict(ChoiceGrader(), reference, "Hence the answer is (C).") == (False, "C", "choice")
    assert verdict(ChoiceGrader(), reference, "Hence the answer is (J).") == (
        False,
        None,
        "no answer",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"reasoning": "r", "answer": "[1, 2]"}', (True, "[1, 2]", "JSON")),
        ('{"reasoning": "r", "answer": [1,2]}', (True, "[1, 2]", "JSON")),
        ('{"reasoning": "r", "answer": "(1, 2)"}', (False, "(1, 2)", "JSON")),
        ('{"reasoning": "r" "answer": "[1, 2]"}', (True, "[1, 2]", "malformed JSON")),
        ("it returns [1, 2]", (False, None, "no JSON answer")),
    ],
)
def test_a_value_is_a_field_of_a_json_object(text, expected):
    assert verdict(ValueGrader(), "[1, 2]", text) == expected


@pytest.mark.skipif(protections().mode == "none", reason="programs cannot be confined here")
def test_code_is_run_with_what_stood_before_the_function():
    reference = {
        "tests": {
            "kind": "check",
            "setup": "import math\n",
            "entry_point": "area",
            "test": "def check(f):\n    assert f(2) == math.pi * 4",
        },
        "defines": "area",
        "stub": "import math\ndef area(r):\n",
        "solution": "import math\ndef area(r):\n    return math.pi * r * r",
    }
    grader = CodeGrader()
    passed = grader.grade(
        [Item("a", "q", "q", reference)] * 4,
        [
            "Sure!\n```python\ndef area(r):\n    return math.pi * r**2\n```\nIt is `pi r^2`.",
            "    return math.pi * r * r",  # a base model continues the code
            "```python\n    return math.pi * r * r\n```",
            "```python\ndef area(r):\n    return 3 * r * r\n```",
        ],
    )
    assert [v.correct for v in passed] == [True, True, True, False]
    assert passed[3].reason == "error: AssertionError"
    item = Item("a", "q", "q", reference)
    assert verdict(grader, reference, example(grader, item, right=True)).correct
    assert not verdict(grader, reference, example(grader, item, right=False)).correct


def test_what_a_judge_must_say_is_left_open():
    assert verdict(JudgedGrader(), {}, "Hello!") == (None, None, "not judged")
    item = Item("a", "q", "q", {})
    assert example(JudgedGrader(), item, right=True) is None


def test_votes_go_by_equivalence_letters_or_text():
    votes = ["1/2", "3", "0.5", None, "\\frac{1}{2}", "3"]
    assert MathGrader().elected(votes) == [True, False, True, False, True, False]
    assert ChoiceGrader().elected(["A", "B", None, "B"]) == [False, True, False, True]
    assert ChoiceGrader().elected(["B", "A"]) == [True, False]  # the first of equals
    assert ChoiceGrader().elected([None, None]) == [False, False]
    assert ValueGrader().elected(["[1,2]", "[1, 2]", "2"]) == [True, True, False]
    quoted = ["'ab'", "'a b'", '"a b"', "a b", None, "0x" + "f" * 9_000]
    assert ValueGrader().elected(quoted) == [False, True, True, True, False, False]
    for grader in (CodeGrader(), JudgedGrader()):
        assert grader.elected(["a", "a"]) is None
