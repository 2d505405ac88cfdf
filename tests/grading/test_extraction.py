"""Where the answer of a completion is read: boxes, marks, statements, and not behind it."""

import pytest

from intuitor_lib.grading import (
    EXTRACTIONS,
    echoed,
    equivalence,
    extract_answer,
    extract_answers,
    grade,
    is_correct,
)
from intuitor_lib.grading.extraction import before_next_question, marked_answer
from intuitor_lib.recipe import Recipe, RecipeError

NEXT = [
    "\n\nQuestion: How many legs have 2 cats?\nAnswer: 8",
    "\n\nProblem 12.\nAdd 4 and 4. \\boxed{8}",
    "\n### Question\n8",
    "\nQ: 4 + 4?\nA: 8",
    "<|im_end|>\n<|im_start|>user\n4 + 4 = 8",
    "\n\nHuman: and 8?",
    "\nuser\n4 + 4?\nassistant\n8",
]


STATED = {"boxed": r"So it is \boxed{6}.", "alone": "6.", "whole": "6."}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"$\boxed{2}$, $\boxed{3}$ and $\boxed{5}$", "2, 3, 5"),
        (r"\(\boxed{2}\) or \(\boxed{3}\)", "2, 3"),
        (r"$x=\boxed{2}$ and $y=\boxed{3}$", "2, 3"),
        (r"\boxed{2} pens and \boxed{3} cups", "2, 3"),
        (r"\boxed{2}\boxed{3}", "2, 3"),
        (r"\boxed{(1,2)};\;\boxed{(3,4)}", "(1,2), (3,4)"),
        (r"\boxed{4} and \boxed{4}", "4"),
        (r"(a) \boxed{4} (b) \boxed{5}", "4, 5"),
        ("(i) \\boxed{4}\n(ii) \\boxed{5}", "4, 5"),
        (r"(a) \boxed{4}. (b) \boxed{5}", "5"),
        (r"\boxed{1\frac{1}{2}} or \boxed{\frac{3}{2}}", r"\frac{3}{2}"),
        (r"\boxed{2} is wrong, \boxed{3}", "3"),
        ("\\boxed{2}\n\\boxed{3}", "3"),
        ("\\boxed{2},\n\n\\boxed{3}", "3"),
        (r"\boxed{2}. And \boxed{3}", "3"),
        (r"\boxed{2} = \boxed{3}", "3"),
    ],
)
def test_boxes_side_by_side_are_a_list(text, answer):
    assert extract_answer(text) == answer


def test_a_reference_with_several_boxes_is_a_list():
    solution = r"Its roots are $\boxed{2}$ and $\boxed{7}$."
    assert is_correct(r"\boxed{7, 2}", solution)
    assert not is_correct(r"\boxed{7}", solution)


@pytest.mark.parametrize("extraction", EXTRACTIONS)
@pytest.mark.parametrize("behind", NEXT)
def test_what_follows_the_answer_does_not_count(behind, extraction):
    stated = STATED.get(extraction, "So the answer is 6.")
    assert is_correct(stated + behind, "6", extraction=extraction)


@pytest.mark.parametrize("extraction", [e for e in EXTRACTIONS if e != "whole"])
def test_an_answer_behind_a_restated_question_counts(extraction):
    text = "First, what is asked.\nQuestion: 2 + 3?\nThat is \\boxed{5}"
    assert extract_answer(text, extraction) == "5"
    assert (
        before_next_question("\nQuestion: 1?\nIt is 1.\nQuestion: 2?") == "Question: 1?\nIt is 1."
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("6 * 7 = 42\n#### 42", "42"),
        ("#### $1,200 dollars", "1,200"),
        ("#### -3.5", "-3.5"),
        ("#### 42\n\n#### 43", "42"),
        ("#### Step 2\n#### 2. Add them\n#### 7", "7"),
        ("A: 9 apples", "9"),
        ("A: there are 9", None),
        ("##### 42", None),
        ("cost: #### 42", None),
    ],
)
def test_marked_answer(text, answer):
    assert marked_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It takes 2 1/2 hours.", "2 1/2"),
        ("A town of 12 345 people.", "12 345"),
        ("They leave at 9:45.", "9:45"),
        ("about 3e-5", "3e-5"),
        ("x = –3", "-3"),
        ("it takes 1½ days", r"1\frac{1}{2}"),
        ("das sind 2,5 Meter", "2,5"),
        ("It costs -€5", "-5"),
        ("It weighs 9.1 × 10⁻³¹ kg", r"9.1 \times  10^{-31}"),
        ("It costs $1.5 million.", "1.5 million"),
        ("the 3 hundreds", "3"),
        ("of length 2*sqrt(5)", "2*sqrt(5)"),
        ("an angle of 2pi/3", "2pi/3"),
        ("an angle of π/6", r"\pi /6"),
        ("The area is 25 in terms of pi", "25"),
    ],
)
def test_the_last_number_is_whole(text, answer):
    assert extract_answer(text, "last_number") == answer


@pytest.fixture
def patient(monkeypatch):
    """Grading waits for a busy machine."""
    monkeypatch.setattr(equivalence, "CPU_SECONDS", 5)


@pytest.mark.parametrize(
    ("text", "reference", "right"),
    [
        (r"Hence \boxed{4}, not 5.", "4", True),
        (r"We get \boxed{4}. The final answer is $5$. I hope it is correct.", "5", True),
        ("The final answer is $k+1$. I hope it is correct.", "1+k", True),
        ("The answer is 12, out of 30.", "12", True),
        (r"so \[\begin{pmatrix}3\\4\end{pmatrix}\]", r"\begin{bmatrix}3\\4\end{bmatrix}", True),
        (r"hence $7 > t$", "t < 7", True),
        (r"that is, $t \in [2, 5)$", "[2,5)", True),
        ("the roots are $2$ and $9$", "9, 2", True),
        (r"this leaves \(-\frac{2}{3}\)", "-2/3", True),
        ("4 + 5 = 9 so **9**", "9", True),
        ("比例为13/28", "13/28", True),
        ("a chance of 40%", "0.4", True),
        (r"The answer is $1 - \frac{1}{\mathrm{e}}$", r"1 + \frac{1}{\mathrm{e}}", False),
        (r"The answer is 3\pi", "3", False),
        ("The answer is 2 1/2.", "1/2", False),
        ("The answer is 2 1/2.", "5/2", True),
        ("The answer is 2½.", "2", False),
        ("The answer is 2½.", "5/2", True),
        ("The answer is sqrt(7).", "7", False),
        ("The answer is 3*pi.", "3", False),
        ("The answer is pi/6.", "6", False),
        ("It costs $2 million.", "2", False),
        ("It costs $2 million.", "2000000", True),
        ("a chance of 37.5%", "3/8", True),
        ("They leave at 9:45.", "9", False),
        ("They leave at 9:45.", "9:45", True),
        ("The answer is $10^{-30}$.", "10^{-31}", False),
        ("nothing", "5", False),
        ("", "5", False),
        ("so $7$", "Adding all of them, we have $7$ apples", True),
    ],
)  # fmt: skip
def test_harness(patient, text, reference, right):
    assert is_correct(text, reference, extraction="harness") is right


def test_harness_reads_long_texts_and_survives_hostile_ones(patient):
    long = "Then $x = 3$ and we go on.\n" * 1500 + "The answer is $x^2$."
    hostile = ["$" * 20_000, r"\boxed{" * 5000, r"\frac{" * 5000, "answer" * 4000, "1 " * 20_000]
    answers = extract_answers([long, *hostile], "harness")
    assert answers[0] == "x^2"


def test_a_box_needs_no_worker_for_the_harness(monkeypatch):
    monkeypatch.setattr("intuitor_lib.grading.equivalence._POOL", None)
    assert grade([r"\boxed{3}", "#### 4"], ["3", "5"], extraction="harness") == [True, False]


def test_recipes_name_the_same_choices():
    for extraction in EXTRACTIONS:
        assert Recipe(answer_extraction=extraction).answer_extraction == extraction
    with pytest.raises(
        RecipeError, match=r"answer_extraction='last'.*boxed, alone, whole, last_number, harness"
    ):
        Recipe(answer_extraction="last")
    with pytest.raises(ValueError, match=r"extraction is 'last'; choose from boxed"):
        extract_answer("5", "last")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("162", "162"),
        (" 162.\n", "162"),
        ("$162$", "162"),
        ("-3", "-3"),
        ("+4", "4"),
        ("1,234", "1,234"),
        ("3.5", "3.5"),
        ("1/2", "1/2"),
        ("\uff11\uff16\uff12", "162"),
        (r"\boxed{5}", "5"),
        (r"So it is \boxed{5}.", "5"),
        ("81 * 2 = 162", None),
        ("The answer is 162", None),
        ("162 apples", None),
        ("1 2", None),
        ("--4", None),
        ("-", None),
        ("", None),
        ("no idea", None),
    ],
)
def test_an_answer_alone_is_all_of_the_completion(text, answer):
    assert extract_answer(text, "alone") == answer


def test_a_label_is_all_of_the_completion():
    texts = [
        "Positive.",
        " negative\n",
        r"It is \boxed{positive}.",
        "not sure",
        "negative\n\nQ: 1?",
        "",
    ]
    found = [extract_answer(text, "whole") for text in texts]
    assert found == ["Positive", "negative", "positive", "not sure", "negative", None]
    assert grade(texts, ["positive"] * 6, extraction="whole") == [True, False, True] + [False] * 3


@pytest.mark.parametrize(
    ("prompt", "answer", "stands_there"),
    [
        ("What is 7 * 0?", "0", True),
        ("What is 7 * 1?", "7", True),
        ("What is 31 * 4?", "124", False),
        ("What is 31 * 4?", "3", False),  # a part of a number is no number of the prompt
        ("Half of 1/2 or 0.25?", "0.25", True),
        ("5 - 8 + -3", "-3", True),
        ("1,240 and more", "1240", True),
        ("no number", "4", False),
        ("x is 4", r"so \boxed{4}", True),
    ],
)
def test_answers_that_stand_in_the_question(prompt, answer, stands_there):
    assert echoed([prompt], [answer]) == [stands_there]
