"""Graders: from a completion to a verdict, one class per kind of benchmark.

Each also writes a right and a wrong completion for an item, from its gold answer, so that grading
itself can be checked on every item (`intuitor check`).
"""

from __future__ import annotations

import ast
import json
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...grading.answers import extract_answer, grade, most_frequent, plurality
from ...grading.choices import extract_choice
from ...grading.forms import extract_code, extract_field, same_value
from ...grading.unit_tests import in_threads, run_tests
from ...problems.stand_ins.instructions import Check, violations

__all__ = [
    "ChoiceGrader",
    "CodeGrader",
    "Grader",
    "InstructionGrader",
    "Item",
    "JudgedGrader",
    "MathGrader",
    "ValueGrader",
    "Verdict",
]


@dataclass(frozen=True)
class Item:
    """One item of a benchmark.

    Args:
        id: unique within the benchmark.
        question: the bare problem.
        prompt: what the policy is given: the user's message, or the whole text without a chat.
        gold: what the grader compares with; JSON-ready.
    """

    id: str
    question: str
    prompt: str
    gold: Any


class Verdict(NamedTuple):
    """`correct` (None: not judged here), the extracted answer, and the reason in a few words."""

    correct: bool | None
    answer: str | None
    reason: str


class Grader(ABC):
    """What a benchmark needs to grade; what one does not define is not possible with it."""

    runs_code = False
    """Whether it runs programs of the model."""

    @abstractmethod
    def grade(self, items: Sequence[Item], texts: Sequence[str]) -> list[Verdict]:
        """The verdict on each completion."""

    def elected(self, answers: Sequence[str | None]) -> list[bool] | None:
        """Which answers are in the plurality of several to one item; None: no vote is possible."""
        return None

    def right(self, item: Item) -> str | None:
        """A completion that is right, None where the benchmark publishes none."""
        return None

    def wrong(self, item: Item) -> str | None:
        """A completion that is like it and wrong."""
        return None


@dataclass(frozen=True)
class MathGrader(Grader):
    r"""The last ``\boxed{}``, else with `last_number` the last number, by math-verify."""

    last_number: bool = True

    def grade(self, items: Sequence[Item], texts: Sequence[str]) -> list[Verdict]:
        """The verdict on each completion; the reason says where the answer stood."""
        golds = [item.gold for item in items]
        verdicts = grade(texts, golds, last_number=self.last_number)
        found = []
        for text, correct in zip(texts, verdicts, strict=True):
            boxed = extract_answer(text)
            answer = extract_answer(text, last_number=self.last_number)
            place = "boxed" if boxed else "last number" if answer else "no answer"
            found.append(Verdict(correct, answer, place))
        return found

    def elected(self, answers: Sequence[str | None]) -> list[bool]:
        """By math-verify's equivalence."""
        return plurality(answers)

    def right(self, item: Item) -> str:
        """The gold in a box."""
        return f"So the answer is \\boxed{{{item.gold}}}."

    def wrong(self, item: Item) -> str:
        """The gold plus one in a box."""
        return f"So the answer is \\boxed{{{item.gold} + 1}}."


@dataclass(frozen=True)
class ChoiceGrader(Grader):
    """The letter of a choice (MMLU-Pro); no guess where none is given."""

    def grade(self, items: Sequence[Item], texts: Sequence[str]) -> list[Verdict]:
        """The verdict on each completion."""
        found = []
        for item, text in zip(items, texts, strict=True):
            choice = extract_choice(text, item.gold["letters"])
            reason = "no answer" if choice is None else "choice"
            found.append(Verdict(choice == item.gold["answer"], choice, reason))
        return found

    def elected(self, answers: Sequence[str | None]) -> list[bool]:
        """By letter."""
        return most_frequent(answers)

    def right(self, item: Item) -> str:
        """The right letter."""
        return f"Therefore the answer is ({item.gold['answer']})."

    def wrong(self, item: Item) -> str:
        """The next letter."""
        letters = item.gold["letters"]
        other = letters[(letters.index(item.gold["answer"]) + 1) % len(letters)]
        return f"Therefore the answer is ({other})."


@dataclass(frozen=True)
class ValueGrader(Grader):
    """A Python value in the field `answer` of a JSON object (CRUXEval-O as in ZeroEval)."""

    def grade(self, items: Sequence[Item], texts: Sequence[str]) -> list[Verdict]:
        """The verdict on each completion; the reason tells well-formed JSON from the rest."""
        found = []
        for item, text in zip(items, texts, strict=True):
            field = extract_field(text)
            if field is None:
                found.append(Verdict(False, None, "no JSON answer"))
                continue
            value = field.value
            answer = value if isinstance(value, str) else json.dumps(value)
            reason = "JSON" if field.well_formed else "malformed JSON"
            found.append(Verdict(same_value(value, item.gold), answer, reason))
        return found

    def elected(self, answers: Sequence[str | None]) -> list[bool]:
        """By the text of the value."""
        return most_frequent([answer and "".join(answer.split()) for answer in answers])

    def right(self, item: Item) -> str:
        """The gold as the answer."""
        return json.dumps({"reasoning": "Step by step.", "answer": item.gold})

    def wrong(self, item: Item) -> str:
        """Another value of the same kind as the answer."""
        value = ast.literal_eval(item.gold)
        other = value + "x" if isinstance(value, str) else [value]
        return json.dumps({"reasoning": "Step by step.", "answer": repr(other)})


@dataclass(frozen=True)
class CodeGrader(Grader):
    """A program in a code block, by its unit tests in the sandbox.

    An item's gold: `tests` as `unit_tests.run_tests` takes them (or what `resolve` makes them
    from), `defines` (the function or class a block must define, or None), `head` (source to run
    before it: imports and helpers of the prompt), `stub` (what a bare function body continues, or
    None) and, where published, `solution` and `wrong`.
    """

    resolve: Any = None
    runs_code = True

    def grade(self, items: Sequence[Item], texts: Sequence[str]) -> list[Verdict]:
        """The verdict on each completion; the reason is the first failure."""
        return in_threads(lambda pair: self._grade(*pair), list(zip(items, texts, strict=True)))

    def _grade(self, item: Item, text: str) -> Verdict:
        gold = item.gold
        code = extract_code(text, gold["defines"])
        if gold["stub"] is not None and (code is None or f"def {gold['defines']}" not in code):
            body = text if code is None else code
            # A block is extracted flush left, as a function's body is not.
            code = gold["stub"] + (body if body[:1].isspace() else textwrap.indent(body, "    "))
        if code is None:
            return Verdict(False, None, "no code")
        tests = gold["tests"] if self.resolve is None else self.resolve(gold["tests"])
        passed, reason = run_tests(gold["head"] + code, tests)
        return Verdict(passed, code, reason)

    def right(self, item: Item) -> str | None:
        """The published solution."""
        solution = item.gold.get("solution")
        return solution and f"```python\n{solution}\n```"

    def wrong(self, item: Item) -> str | None:
        """The published solution, made to return or print nothing."""
        solution = item.gold.get("solution")
        if solution is None:
            return None
        name = item.gold["defines"]
        spoiled = f"{solution}\n\n\ndef {name}(*_, **__):\n    return None" if name else "pass"
        return f"```python\n{spoiled}\n```"


@dataclass(frozen=True)
class InstructionGrader(Grader):
    """Instructions whose every check can be verified; right is what breaks none."""

    def grade(self, items: Sequence[Item], texts: Sequence[str]) -> list[Verdict]:
        """The verdict on each completion; the reason names the checks it breaks."""
        found = []
        for item, text in zip(items, texts, strict=True):
            broken = violations([_check(check) for check in item.gold["checks"]], text)
            found.append(Verdict(not broken, None, ", ".join(broken) or "followed"))
        return found

    def right(self, item: Item) -> str:
        """A response that follows the instruction."""
        return item.gold["right"]

    def wrong(self, item: Item) -> str:
        """A response that does not."""
        return item.gold["wrong"]


def _check(values: Mapping[str, Any]) -> Check:
    return Check(values["kind"], values["arguments"])


@dataclass(frozen=True)
class JudgedGrader(Grader):
    """Nothing is graded here: an outside judge does (AlpacaEval)."""

    def grade(self, items: Sequence[Item], texts: Sequence[str]) -> list[Verdict]:
        """No verdict."""
        return [Verdict(None, None, "not judged") for _ in items]
