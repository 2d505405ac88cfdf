"""The benchmarks as data: sources, prompts and graders.

The paper's six and HumanEval have their own names. Embedded generators, which need no network,
have theirs: a stand-in is never reported under the name of the benchmark it stands in for. They
are kept in `benchmarks.yaml`.
"""

import dataclasses
import functools
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...grading import EXTRACTIONS
from ...problems import Problem, conversation, load_problems
from ...problems.humaneval import humaneval_rows
from ...problems.tables import TABLE_SUFFIXES, DataError, list_faults
from ...recipe import SYSTEM_PROMPTS, InputError, Recipe
from ...recipe.constants import read_yaml
from . import livecodebench, questions
from .graders import ChoiceGrader, CodeGrader, Grader, Item, JudgedGrader, MathGrader, ValueGrader
from .sources import Embedded, HubFiles, HubTable, Row, Source, benchmarks_folder

HELD_OUT = "held_out"
"""Name of the benchmark of the problems that the recipe `intuitor` holds out."""


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
    size: int | None = None  # number of items where the source is fixed
    metric: str = "accuracy"  # name of the score
    column: str | None = None  # of the paper's Table 1
    stands_in_for: str | None = None  # title of the benchmark that it replaces
    system_prompt: str | None = None
    chat: bool = True  # whether prompts go through the chat template
    stop: Sequence[str] = ()  # texts that end a completion
    shots: HubTable | None = None  # worked examples, added to each row as `shots`


def get_benchmark(name: str) -> Benchmark:
    """Return a benchmark by name; an unknown one raises an InputError."""
    if name not in BENCHMARKS:
        raise InputError(f"unknown benchmark {name!r}: choose from {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def with_extraction(benchmark: Benchmark, extraction: str) -> Benchmark:
    """The benchmark with answers read in another place, one of `grading.EXTRACTIONS`."""
    if extraction not in EXTRACTIONS:
        raise InputError(f"extraction={extraction!r}: choose from {', '.join(EXTRACTIONS)}")
    if not isinstance(benchmark.grader, MathGrader):
        raise InputError(
            f"extraction={extraction!r} with {benchmark.name}: only answers to mathematics can be "
            "read in several places; leave it out"
        )
    return dataclasses.replace(benchmark, grader=MathGrader(extraction))


def held_out_benchmark(recipe: Recipe) -> Benchmark:
    """Make a benchmark of a recipe's held-out problems, with the prompts of training."""
    problems = load_problems(recipe).held_out
    if not problems:
        raise DataError(f"recipe {recipe.name!r} holds no problem out: set eval_problems")
    return benchmark_of(problems, recipe, HELD_OUT)


def benchmark_of(problems: Sequence[Problem], recipe: Recipe, part: str) -> Benchmark:
    """Make a benchmark of some of a recipe's problems, with the prompts of training.

    `part` says in the name and the title which ones these are.
    """
    family = recipe.dataset.rpartition(":")[2]
    if Path(family).suffix.lower() in TABLE_SUFFIXES:
        family = Path(family).name  # records are published, and a file may move
    rows = [{"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in problems]

    def to_item(row: Any) -> Item:
        prompt = conversation(row["prompt"], recipe)[-1]["content"]
        return Item(row["id"], row["prompt"], prompt, row["answer"])

    return Benchmark(
        name=f"{part}_{family}",
        title=f"{family}, {part.replace('_', ' ')}",
        source=Embedded(
            lambda n, seed: rows[:n],
            f"{part.replace('_', '-')} problems of {recipe.dataset}",
            len(problems),
        ),
        to_item=to_item,
        grader=MathGrader(extraction=recipe.answer_extraction),
        licence="as its source",
        max_new_tokens=recipe.max_completion_length,
        system_prompt=recipe.system_prompt,
    )


def with_math_prompt(benchmark: Benchmark, system_prompt: str | None) -> Benchmark:
    """The benchmark with a model's system prompt, where both are those of mathematics."""
    mathematics = {text for name, text in SYSTEM_PROMPTS.items() if name.startswith("math")}
    if not {benchmark.system_prompt, system_prompt} <= mathematics:
        return benchmark
    return dataclasses.replace(benchmark, system_prompt=system_prompt)


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
    ids = [item.id for item in items]
    if not all(ids) or len(set(ids)) < len(ids):
        named = enumerate(items)
        items = [dataclasses.replace(item, id=f"{benchmark.name}/{i}") for i, item in named]
    if n is None or n == len(items):
        return items
    if n > len(items):
        raise DataError(f"{benchmark.name} has {len(items)} items, not {n}: lower n")
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), n))]


def fingerprint(items: Sequence[Item]) -> str:
    """16 hex digits of the SHA-256 of the items' ids, prompts and references in order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.id, item.prompt, item.reference]).encode() + b"\n")
    return digest.hexdigest()[:16]


_GRADERS: Mapping[str, Grader] = {
    "math": MathGrader(),
    "math, as lighteval": MathGrader(extraction="harness"),
    "choice": ChoiceGrader(),
    "value": ValueGrader(),
    "code": CodeGrader(),
    "code, LiveCodeBench": CodeGrader(resolve=livecodebench.unit_tests_of),
    "judge": JudgedGrader(),
}

# How the rows of a raw file are read, and of an embedded benchmark are made.
_ROWS: Mapping[str, Callable[..., Any]] = {
    "livecodebench": livecodebench.read_problems,
    "alpaca_eval": questions.alpaca_eval_rows,
    "humaneval": lambda n, seed: humaneval_rows(),
    "gsm_symbolic": functools.partial(questions.generated_rows, "gsm_symbolic"),
    "chain_sum": functools.partial(
        questions.generated_rows, "chain_sum", min_terms=2, max_terms=2, min_digits=1, max_digits=2
    ),
}


def _benchmark(name: str, entry: dict[str, Any]) -> Benchmark:
    """The benchmark of an entry of `benchmarks.yaml`."""
    source: Source
    if "table" in entry:
        source = HubTable(**entry.pop("table"))
    elif "files" in entry:
        source = HubFiles(**entry.pop("files"), read=_ROWS[name])
    else:
        source = Embedded(_ROWS[name], **entry.pop("embedded"))
    if "shots" in entry:
        entry["shots"] = HubTable(**entry["shots"])
    if "system_prompt" in entry:
        entry["system_prompt"] = SYSTEM_PROMPTS[entry["system_prompt"]]
    to_item, grader = getattr(questions, f"{name}_item"), _GRADERS[entry.pop("grader")]
    return Benchmark(name, source=source, to_item=to_item, grader=grader, **entry)


_ENTRIES = read_yaml(__file__, "benchmarks.yaml")

BENCHMARKS: Mapping[str, Benchmark] = {
    name: _benchmark(name, entry) for name, entry in _ENTRIES.items()
}
"""Every benchmark by name."""

EMBEDDED = tuple(b.name for b in BENCHMARKS.values() if isinstance(b.source, Embedded))
"""Names of the benchmarks that need neither hub nor files."""
