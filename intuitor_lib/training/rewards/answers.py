"""Rewards for answers: by a reference answer, by votes, by unit tests, or at random.

They have TRL's signature and return one float per completion, None where it cannot be judged.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from accelerate.utils import gather_object

from ...grading import clusters, extract_answers, extract_code, grade_labelled, in_plurality
from ...grading.unit_tests import in_threads, run_tests
from ...store.processes import join

Conversation = Sequence[dict[str, str]]
Texts = Sequence[str | Conversation]
Value = TypeVar("Value")


def completion_text(completion: str | Conversation) -> str:
    """The text of a completion as TRL passes it: plain, or one assistant message."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def gathered_groups(prompts: Texts, values: Sequence[Value]) -> list[list[Value]]:
    """The values of each run of equal prompts, over all processes; each passes its own."""
    everyone = gather_object(list(zip(prompts, values, strict=True)))
    return [[value for _, value in group] for _, group in groupby(everyone, key=lambda p: p[0])]


@dataclass(kw_only=True, eq=False)
class AccuracyReward:
    """1.0 where the completion's answer equals the row's `answer`, else 0.0 (GRPO's reward).

    None for a row without an answer, which TRL leaves out. `extraction` is where a completion's
    answer is read: see `grading.EXTRACTIONS`.
    """

    extraction: str = "boxed"
    __name__ = "accuracy"

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Texts,
        answer: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """One verdict per completion; `answer` is the data set's column."""
        stated = extract_answers([*map(completion_text, completions)], self.extraction)
        verdicts = grade_labelled(stated, answer or [None] * len(stated), self.extraction)
        return [None if verdict is None else float(verdict) for verdict in verdicts]


@dataclass(kw_only=True, eq=False)
class PluralityReward:
    """1.0 where the completion gives its group's most frequent answer, else 0.0: GRPO-PV.

    The group votes, by math-verify's equivalence, or by the texts where `extraction` is "whole". A
    completion has no vote and gets 0 if it has no answer, or one that math-verify cannot read. The
    paper does not define ties; here every one of the equally frequent answers gets 1.0, so a group
    without two equal answers teaches nothing.

    A group is a run of equal prompts, over all processes. `extraction` is where a completion's
    answer is read: see `grading.EXTRACTIONS`.
    """

    extraction: str = "boxed"
    __name__ = "plurality"

    def __call__(self, prompts: Texts, completions: Texts, **kwargs: Any) -> list[float | None]:
        """One value per completion."""
        answers = extract_answers([*map(completion_text, completions)], self.extraction)
        values: list[float | None] = []
        for members in gathered_groups(prompts, answers):
            values += map(float, in_plurality(clusters(members, self.extraction)))
        first = join().process_index * len(prompts)
        return [*values[first : first + len(prompts)]]


@dataclass(kw_only=True, eq=False)
class StatedReward:
    """1.0 where the completion states an answer, right or wrong, else 0.0: the control for format.

    What a reward gains beyond this one is not that more completions can be read. `extraction` is
    where an answer is read: see `grading.EXTRACTIONS`; with "whole" every text is an answer.
    """

    extraction: str = "boxed"
    __name__ = "stated"

    def __call__(
        self, prompts: Sequence[Any], completions: Texts, **kwargs: Any
    ) -> list[float | None]:
        """One value per completion."""
        answers = extract_answers([*map(completion_text, completions)], self.extraction)
        return [float(answer is not None) for answer in answers]


class UnitTestReward:
    """1.0 where a completion's program passes every unit test of its row, else 0.0.

    The program is the completion's code block, run in the sandbox. The column `tests` holds JSON
    texts as `unit_tests.run_tests` takes them. None for a row without tests.

    Raises:
        SandboxError: at construction, where programs cannot be confined on this machine.
    """

    __name__ = "unit_tests"

    def __init__(self) -> None:
        run_tests("", {"kind": "stdin", "tests": []})

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Texts,
        tests: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """One verdict per completion."""
        columns = (map(completion_text, completions), tests or [None] * len(completions))
        return in_threads(lambda pair: _passes(*pair), list(zip(*columns, strict=True)))


def _passes(text: str, tests: str | None) -> float | None:
    if tests is None:
        return None
    wanted = json.loads(tests)
    code = extract_code(text, wanted.get("entry_point"))
    return 0.0 if code is None else float(run_tests(code, wanted)[0])


@dataclass(kw_only=True, eq=False)
class RandomReward:
    """0.0 or 1.0 with equal probability (Figure 12): the control for any claim.

    Drawn from a generator of its own, seeded by `seed`, the training step and the process: it does
    not affect sampling, and repeats when a run resumes.
    """

    seed: int = 0
    __name__ = "random"

    def __call__(
        self, prompts: Sequence[Any], trainer_state: Any = None, **kwargs: Any
    ) -> list[float | None]:
        """One random reward per completion."""
        step = getattr(trainer_state, "global_step", 0)
        generator = random.Random(f"{self.seed}:{step}:{join().process_index}")
        return [float(generator.random() < 0.5) for _ in prompts]
