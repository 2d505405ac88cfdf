"""Families of short problems: right answers, no echo, the same problems in every process."""

import datetime
import random
import re

import pytest

from intuitor_lib.grading import echoed
from intuitor_lib.problems import load_problems
from intuitor_lib.problems.families import FAMILIES, MONTHS, WORDS, in_words
from intuitor_lib.problems.tables import DataError
from intuitor_lib.recipe import RecipeError, get_recipe

VALUES = dict(
    **{"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8},
    **{"nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14},
    **{"fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19},
    **{"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70},
    **{"eighty": 80, "ninety": 90},
)
EXPRESSIONS = {
    "sums": r"What is (.+)\?",
    "differences": r"What is (.+)\?",
    "decimal-products": r"What is (.+)\?",
    "products-and-sums": r"What is (.+)\?",
    "percentages": r"What is (\d+)% of (\d+)\?",
    "code-sums": r"a = (\d+)\nb = (\d+)\nprint\(a \+ b\)",
}


def of(family, **changes):
    changes = {"max_problems": 200, "eval_problems": 100, "eval_steps": None} | changes
    return load_problems(get_recipe("intuitor", "cpu", dataset=f"family:{family}", **changes))


def expected(family, question):
    """The answer, computed in another way than the family's."""
    if family in EXPRESSIONS:
        found = re.fullmatch(EXPRESSIONS[family], question)
        if family == "percentages":
            return f"{int(found[1]) * int(found[2]) / 100:g}"
        if family == "code-sums":
            return str(int(found[1]) + int(found[2]))
        return str(round(eval(found[1]), 1))
    if family == "numerals":
        names = re.findall(r"[a-z]+", question.removeprefix("What is ").removesuffix(" in digits?"))
        hundreds = 100 * VALUES[names[0]]
        return str(hundreds + sum(VALUES[name] for name in names[2:] if name != "and"))
    words = [word.strip(",") for word in question.split() if word.strip(",?") in WORDS]
    words = [word.strip("?") for word in words]
    if family == "first-letters":
        return ", ".join(word[:1] for word in words)
    if family == "reversed-words":
        return ", ".join(words[::-1])
    if family == "dates":
        day = datetime.datetime.strptime(question, "Write the date %B %d, %Y as DD.MM.YYYY.")
        return f"{day:%d.%m.%Y}"
    day = datetime.date.fromisoformat(re.search(r"[\d-]{10}", question)[0])
    return str(datetime.date.fromordinal(day.toordinal() + 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_right_and_stand_in_no_question(family):
    problems = of(family)
    both = [*problems.train, *problems.held_out]
    assert len({problem.prompt for problem in both}) == len(both) == 300
    assert all(expected(family, p.prompt) == p.answer for p in both)
    assert not any(echoed([p.prompt for p in both], [p.answer for p in both]))
    assert not any(p.answer in p.prompt for p in both if not p.answer.isdigit())
    assert of(family).fingerprint == problems.fingerprint
    assert of(family, dataset_seed=1).fingerprint != problems.fingerprint


@pytest.mark.parametrize(
    ("n", "words"),
    [
        *(
            (0, "zero"),
            (13, "thirteen"),
            (40, "forty"),
            (99, "ninety-nine"),
            (300, "three hundred"),
        ),
        *((101, "one hundred and one"), (518, "five hundred and eighteen")),
    ],
)
def test_numbers_in_words(n, words):
    assert in_words(n) == words


def test_names_and_settings_that_do_not_exist_are_refused():
    assert len(MONTHS) == 12
    with pytest.raises(DataError, match=r"unknown generator 'sum'.*did you mean sums"):
        of("sum")
    with pytest.raises(DataError, match="family:sums has no settings, so dataset_kwargs="):
        of("sums", dataset_kwargs={"digits": [2, 1]})


def test_accuracy_can_be_rewarded():
    """Their answers need no column."""
    recipe = get_recipe("grpo", "cpu", dataset="family:sums", answer_column=None, eval_steps=None)
    assert load_problems(recipe).train[0].answer
    with pytest.raises(RecipeError, match="answer_column is null"):
        get_recipe("grpo", "cpu", dataset="sums.jsonl", answer_column=None)


def test_drawing_leaves_the_global_generators_alone():
    before = random.getstate()
    of("differences")
    assert random.getstate() == before
