"""Graders: from a completion to a verdict, one class per kind of benchmark."""

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...grading import echoed, extract_choice, extract_code, extract_field, same_value
from ...grading.answers import extract_answers, grade_labelled, most_frequent, plurality
from ...grading.forms import value_text
from ...grading.unit_tests import in_threads, run_tests


@dataclass(frozen=True)
class Item:
    """One item of a benchmark."""

    id: str  # unique within the benchmark
    question: str  # the bare problem
    prompt: str  # the user's message, or the whole text without a chat
    reference: Any  # JSON-ready: an answer, a solution or tests
    place: Any = None  # where its tests lie; another place makes no other item


class Verdict(NamedTuple):
    """`correct` (None: not judged here), the extracted answer, and the reason in a few words."""

    correct: bool | None
    answer: str | None
    reason: str


class Grader:
    """Grade the completions of a benchmark. Subclasses override what their benchmark allows."""

    runs_code = False
    """Whether it runs programs of the model."""

    def grade(self, items: Sequence[Item], texts: Sequence[str]) -> list[Verdict]:
        """Grade one completion per item."""
        return [self.verdict(item, text) for item, text in zip(items, texts, strict=True)]

    def verdict(self, item: Item, text: str) -> Verdict:
        """Grade a completion; by default it is not judged."""
        return Verdict(None, None, "not judged")

    def elected(self, answers: Sequence[str | None]) -> list[bool] | None:
        """Whether each answer to an item is in their plurality; None if there is no vote."""
        return None

    def baselines(self, items: Sequence[Item]) -> dict[str, dict[str, Any]]:
        """Accuracies without any skill, by name, as JSON-ready estimates; none by default."""
        return {}


_WITHOUT_BOX = {
    "alone": "number alone",
    "whole": "whole text",
    "last_number": "last number",
    "harness": "stated",
}


@dataclass(frozen=True)
class MathGrader(Grader):
    """Compare an answer by math-verify; `extraction` is where it is read, of `EXTRACTIONS`.

    The reason gives the place of the answer.
    """

    extraction: str = "last_number"

    def grade(self, items: Sequence[Item], texts: Sequence[str]) -> list[Verdict]:
        answers = extract_answers(texts, self.extraction)
        references = [item.reference for item in items]
        verdicts = grade_labelled(answers, references, self.extraction)
        place = _WITHOUT_BOX.get(self.extraction, "boxed")
        found = zip(answers, extract_answers(texts), strict=True)
        reasons = ["boxed" if box else place if answer else "no answer" for answer, box in found]
        return [*map(Verdict, verdicts, answers, reasons)]

    def elected(self, answers: Sequence[str | None]) -> list[bool]:
        return plurality(answers, self.extraction)

    def baselines(self, items: Sequence[Item]) -> dict[str, dict[str, Any]]:
        """Estimate the floor of accuracies.

        "echo" is the share of items whose answer is a number of the question: no policy that
        repeats a part of it scores more. "most frequent answer" is the score of always saying that.
        """
        from ...report import proportion

        known = [item for item in items if item.reference is not None]
        references = [str(item.reference) for item in known]
        [(_, most)] = Counter(references).most_common(1) or [("", 0)]
        echoes = sum(echoed([item.question for item in known], references, self.extraction))
        found = {"echo": echoes, "most frequent answer": most}
        return {name: proportion(n, len(known)).to_dict() for name, n in found.items() if known}


class ChoiceGrader(Grader):
    """Compare the letter of a choice (MMLU-Pro); a missing choice is not replaced by a guess."""

    def verdict(self, item: Item, text: str) -> Verdict:
        choice = extract_choice(text, item.reference["letters"])
        reason = "no answer" if choice is None else "choice"
        return Verdict(choice == item.reference["answer"], choice, reason)

    def elected(self, answers: Sequence[str | None]) -> list[bool]:
        return most_frequent(answers)


class ValueGrader(Grader):
    """Compare a Python value in the field `answer` of a JSON object (CRUXEval-O as in ZeroEval).

    The reason distinguishes well-formed JSON.
    """

    def verdict(self, item: Item, text: str) -> Verdict:
        field = extract_field(text)
        if field is None:
            return Verdict(False, None, "no JSON answer")
        value = field.value
        answer = value if isinstance(value, str) else json.dumps(value)
        reason = "JSON" if field.well_formed else "malformed JSON"
        return Verdict(same_value(value, item.reference), answer, reason)

    def elected(self, answers: Sequence[str | None]) -> list[bool]:
        return most_frequent([None if a is None else value_text(a) for a in answers])


@dataclass(frozen=True)
class CodeGrader(Grader):
    """Run a program from a code block against unit tests in the sandbox.

    The reason is the first failure. An item's reference holds `tests` as `unit_tests.run_tests`
    takes them (or their digest, where `resolve` reads them at the item's place), `defines` (the
    function or class a block must define, or None), `stub` (the text that a bare function body
    continues, or None) and, if published, `solution`.
    """

    resolve: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    runs_code = True

    def grade(self, items: Sequence[Item], texts: Sequence[str]) -> list[Verdict]:
        pairs = list(zip(items, texts, strict=True))
        return in_threads(lambda pair: self.verdict(*pair), pairs)

    def verdict(self, item: Item, text: str) -> Verdict:
        reference = item.reference
        defines, stub, tests = reference["defines"], reference["stub"], reference["tests"]
        code = extract_code(text, defines)
        if stub is not None and (code is None or f"def {defines}" not in code):
            body = text if code is None else code
            # A block is extracted flush left, unlike the body of a function.
            code = stub + (body if body[:1].isspace() else textwrap.indent(body, "    "))
        if code is None:
            return Verdict(False, None, "no code")
        tests = tests if self.resolve is None else self.resolve(item.place)
        passed, reason = run_tests(code, tests)
        return Verdict(passed, code, reason)


class JudgedGrader(Grader):
    """Judge nothing here: an outside judge does (AlpacaEval)."""
