"""Items from the rows of each benchmark: prompts and references.

`NAME_item` makes an item of the benchmark NAME from a row. A row with missing or bad columns raises
KeyError or ValueError, which `benchmarks.load_items` collects.
"""

import ast
from pathlib import Path
from typing import Any

from ...problems import gold_answer, load_problems
from ...problems.humaneval import humaneval_request, humaneval_tests
from ...problems.tables import read_table, sound_rows
from ...recipe import Recipe
from ...recipe.constants import GENERATOR_PREFIX
from . import livecodebench
from .graders import Item
from .sources import Row


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{column!r} is {value!r}, expected text")
    return value


def gsm8k_item(row: Row) -> Item:
    """A GSM8K problem, unchanged; its reference answer follows `####`."""
    question = _text(row, "question")
    return Item("", question, question, gold_answer(_text(row, "answer")))


def math500_item(row: Row) -> Item:
    """A MATH500 problem, unchanged."""
    question = _text(row, "problem")
    return Item(str(row.get("unique_id") or ""), question, question, _text(row, "answer"))


def generated_rows(family: str, n: int, seed: int, **settings: Any) -> list[Row]:
    """`n` distinct problems of a reasoning-gym family, different from those recipes train on."""
    # Far from the small seeds that recipes use, so that the problems differ.
    recipe = Recipe(
        dataset=GENERATOR_PREFIX + family,
        dataset_kwargs=settings,
        dataset_seed=1_000_003 + seed,
        max_problems=n,
    )
    problems = load_problems(recipe).train
    return [{"id": p.id, "question": p.prompt, "answer": p.answer} for p in problems]


def chain_sum_item(row: Row) -> Item:
    """A sum with the prompt of `00_quickstart`."""
    question = row["question"]
    return Item(row["id"], question, f"{question} Answer briefly.", row["answer"])


def gsm_symbolic_item(row: Row) -> Item:
    """A word problem, unchanged."""
    return Item(row["id"], row["question"], row["question"], row["answer"])


_LETTERS = "ABCDEFGHIJ"


def _mmlu_question(row: Row) -> str:
    options = [option for option in row["options"] if option != "N/A"]
    if not 2 <= len(options) <= len(_LETTERS):
        raise ValueError(f"{len(options)} options, expected 2 to {len(_LETTERS)}")
    lines = [f"{letter}. {text}" for letter, text in zip(_LETTERS, options, strict=False)]
    return "\n".join([f"Question: {_text(row, 'question')}", "Options:", *lines])


def mmlu_pro_item(row: Row) -> Item:
    """The prompt of MMLU-Pro's own script: five worked examples of the category, no chat."""
    category = _text(row, "category")
    shots = [shot for shot in row["shots"] if shot["category"] == category][:5]
    if not shots:
        raise ValueError(f"no worked example of category {category!r} among the validation rows")
    opening = (
        "The following are multiple choice questions (with answers) about "
        f'{category}. Think step by step and then finish your answer with "the answer is (X)" '
        "where X is the correct letter choice.\n\n"
    )
    worked = []
    for shot in shots:
        thoughts = _text(shot, "cot_content").removeprefix("A: ")
        worked.append(f"{_mmlu_question(shot)}\nAnswer: {thoughts}\n\n")
    question = _mmlu_question(row)
    prompt = f"{opening}{''.join(worked)}{question}\nAnswer: Let's think step by step."
    answer = _text(row, "answer")
    letters = _LETTERS[: sum(option != "N/A" for option in row["options"])]
    if answer not in letters:
        raise ValueError(f"answer {answer!r} is none of {letters}")
    reference = {"answer": answer, "letters": letters}
    return Item(str(row.get("question_id", "")), question, prompt, reference)


def cruxeval_item(row: Row) -> Item:
    """CRUXEval-O as ZeroEval asks it: a JSON object with reasoning and answer."""
    code, given = _text(row, "code"), row["input"]
    ast.literal_eval(row["output"])  # raises if it is no literal and so cannot be graded
    question = f"```python\n{code}\n```\n\nCall: f({given})"
    prompt = (
        f"Here is a Python function and a call of it.\n\n{question}\n\n"
        "What does the call return? Reply with one JSON object that has two fields: "
        '"reasoning", your thoughts step by step, and "answer", the returned value as a Python '
        'literal, both as text:\n\n{"reasoning": "...", "answer": "..."}'
    )
    return Item(str(row.get("id", "")), question, prompt, row["output"])


def humaneval_item(row: Row) -> Item:
    """A HumanEval function to complete, as a chat; graded by its `check`."""
    request, prompt = humaneval_request(row), row["prompt"]
    reference = {
        "tests": humaneval_tests(row),
        "defines": row["entry_point"],
        "stub": prompt,
        "solution": prompt + row["canonical_solution"],
    }
    return Item(row["task_id"], request, request, reference)


def livecodebench_item(row: Row) -> Item:
    """A LiveCodeBench problem; its tests are read from the file when it is graded."""
    question, starter = _text(row, "question_content"), row.get("starter_code") or ""
    method = livecodebench.entry_point(row)
    if method is None:
        how = (
            "Write a Python program that reads standard input and prints the answer to standard "
            "output. Reply with the whole program in a Python code block."
        )
    elif starter.strip():
        how = f"Start from:\n\n```python\n{starter}\n```\n\n"
        how += "Reply with the whole class in a Python code block."
    else:
        raise ValueError("a problem that asks for a method has no starter_code")
    reference = {
        "tests": row["tests"],
        "defines": method and method.partition(".")[0],
        "stub": None,
    }
    place = {"file": row["file"], "offset": row["offset"]}
    return Item(row["question_id"], question, f"{question}\n\n{how}", reference, place)


def alpaca_eval_rows(file: Path) -> list[Row]:
    """The instructions of `alpaca_eval.json`."""
    return [row for _, row in sound_rows(read_table(file), file.name)]


def alpaca_eval_item(row: Row) -> Item:
    """An AlpacaEval instruction, unchanged."""
    instruction = _text(row, "instruction")
    return Item("", instruction, instruction, {"dataset": row.get("dataset", "")})
