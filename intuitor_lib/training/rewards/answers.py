"""Reward functions with TRL's signature: `reward(prompts, completions, completion_ids, ...)`.

Each returns one float per completion, or None for a completion it cannot judge.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from ...grading.answers import clusters, extract_answer, grade_labelled
from ...grading.forms import extract_code
from ...grading.unit_tests import in_threads, run_tests
from ...store.processes import from_all, join

__all__ = ["AccuracyReward", "PluralityReward", "RandomReward", "UnitTestReward", "completion_text"]

Conversation = Sequence[dict[str, str]]


def completion_text(completion: str | Conversation) -> str:
    """The text of a completion as TRL hands it over: plain, or one assistant message."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


class AccuracyReward:
    """1.0 where the completion's answer equals the row's `answer`, else 0.0 (GRPO's reward).

    A row without an answer is judged None, which TRL leaves out. `last_number` accepts the last
    number of a completion that has no \\boxed{} answer.
    """

    __name__ = "accuracy"

    def __init__(self, *, last_number: bool = False) -> None:
        self.last_number = last_number

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[str | Conversation],
        answer: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """One verdict per completion; `answer` is the data set's column."""
        verdicts = grade_labelled(
            [completion_text(completion) for completion in completions],
            [None] * len(completions) if answer is None else answer,
            last_number=self.last_number,
        )
        return [None if verdict is None else float(verdict) for verdict in verdicts]


class PluralityReward:
    """1.0 where the completion gives its group's most frequent answer, else 0.0: GRPO-PV.

    No labels: the group votes, by math-verify's equivalence. A completion without an answer, or
    with one that math-verify cannot read, has no vote and gets 0. The paper does not say what a
    tie is worth; here every one of the equally frequent answers gets 1.0, so that a group without
    two equal answers teaches nothing rather than its first answer.

    A group is the run of equal prompts, over all processes. `last_number` accepts the last number
    of a completion that has no \\boxed{} answer.
    """

    __name__ = "plurality"

    def __init__(self, *, last_number: bool = False) -> None:
        self.last_number = last_number

    def __call__(
        self,
        prompts: Sequence[str | Conversation],
        completions: Sequence[str | Conversation],
        **kwargs: Any,
    ) -> list[float | None]:
        """One vote's worth per completion."""
        texts = [completion_text(completion) for completion in completions]
        answers = [extract_answer(text, last_number=self.last_number) for text in texts]
        everyone = from_all(list(zip(map(json.dumps, prompts), answers, strict=True)))
        values = []
        for _, members in groupby(everyone, key=lambda pair: pair[0]):
            votes = clusters([answer for _, answer in members])
            most = max((votes.count(vote) for vote in votes if vote is not None), default=0)
            values += [float(vote is not None and votes.count(vote) == most) for vote in votes]
        first = join().process_index * len(prompts)
        return [*values[first : first + len(prompts)]]


class UnitTestReward:
    """1.0 where a completion's program passes every unit test of its row, else 0.0.

    The program is the completion's code block, run in the sandbox; `tests` is a column of JSON
    texts as `unit_tests.run_tests` takes them. A row without tests is judged None.

    Raises:
        SandboxError: programs cannot be confined on this machine; when it is made.
    """

    __name__ = "unit_tests"

    def __init__(self) -> None:
        run_tests("", {"kind": "stdin", "tests": []})

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[str | Conversation],
        tests: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """One verdict per completion."""
        texts = [completion_text(completion) for completion in completions]
        return in_threads(
            lambda pair: _passes(*pair),
            list(zip(texts, tests or [None] * len(texts), strict=True)),
        )


def _passes(text: str, tests: str | None) -> float | None:
    if tests is None:
        return None
    wanted = json.loads(tests)
    code = extract_code(text, wanted.get("entry_point"))
    return 0.0 if code is None else float(run_tests(code, wanted)[0])


class RandomReward:
    """0.0 or 1.0 by a fair coin (Figure 12): the control beside any claim.

    Drawn from its own generator, seeded by `seed`, the training step and the process, so it
    leaves sampling alone and repeats when a run resumes.
    """

    __name__ = "random"

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def __call__(
        self, prompts: Sequence[Any], trainer_state: Any = None, **kwargs: Any
    ) -> list[float | None]:
        """One coin per completion."""
        step = getattr(trainer_state, "global_step", 0)
        coin = random.Random(f"{self.seed}:{step}:{os.environ.get('RANK', 0)}")
        return [float(coin.random() < 0.5) for _ in prompts]
