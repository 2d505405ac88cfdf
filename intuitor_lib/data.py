"""Problems to train on: procedural generators, local files, Hugging Face data sets.

Whatever the source, prompts are distinct, held-out problems are none of the training problems,
and the same recipe gives the same problems in every process.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import functools
import hashlib
import io
import json
import numbers
import os
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .recipe import GENERATOR_PREFIX, InputError, Recipe

__all__ = ["DEFAULT_GENERATED", "DataError", "Problem", "Problems", "gold_answer", "load_problems"]

DEFAULT_GENERATED = 1024
"""Training problems of a generator when `max_problems` is None (fewer if it has no more)."""

LOCAL_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
ID_COLUMNS = ("id", "unique_id", "task_id")
FAULTS_SHOWN = 20

# reasoning-gym seeds item i with seed + i; blocks with unrelated seeds keep the problems of
# dataset_seed 0 and 1 from being the same ones shifted by one.
GENERATOR_BLOCK = 1000

# Families of reasoning-gym 0.1.25 whose items follow the order of a set of strings.
HASH_ORDERED = frozenset(
    ("isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder")
)


class DataError(InputError):
    """Problems that cannot be loaded. The message names the source, the faults and a remedy."""


@dataclass(frozen=True)
class Problem:
    """One problem: the prompt as given, its gold answer if it has one, where it comes from."""

    prompt: str
    answer: str | None
    id: str
    source: str


@dataclass(frozen=True)
class Problems:
    """Training and held-out problems of one recipe.

    `duplicates_dropped` counts rows (of a generator: draws) whose prompt had come before;
    `unusable_dropped` counts rows of a hub data set without a usable prompt or answer.
    """

    source: str
    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...] = ()
    duplicates_dropped: int = 0
    unusable_dropped: int = 0

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 over every prompt and answer in order."""
        digest = hashlib.sha256()
        for part, problems in (("train", self.train), ("held_out", self.held_out)):
            for problem in problems:
                digest.update(json.dumps([part, problem.prompt, problem.answer]).encode() + b"\n")
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Source, counts and fingerprint as JSON-ready values, for a run's record."""
        return {
            "source": self.source,
            "train": len(self.train),
            "held_out": len(self.held_out),
            "without_answer": sum(p.answer is None for p in self.train + self.held_out),
            "duplicates_dropped": self.duplicates_dropped,
            "unusable_dropped": self.unusable_dropped,
            "fingerprint": self.fingerprint,
        }


class _Fault(str):
    """What makes a row unusable."""


class _Table(NamedTuple):
    """Rows as read: each with its number, and its cells or a fault."""

    columns: list[str]
    records: list[tuple[int, Mapping[str, Any] | _Fault]]
    unit: str = "line"


def load_problems(recipe: Recipe) -> Problems:
    """The training and held-out problems of a recipe.

    `recipe.dataset` is `reasoning-gym:FAMILY` (configured by `dataset_kwargs`), a file (.jsonl,
    .json, .csv, .parquet) or else the name of a Hugging Face data set. Of problems with the same
    prompt the first is kept. Held-out problems are drawn by a permutation seeded with
    `dataset_seed`, then up to `max_problems` training problems from the rest; both keep the order
    of their source.

    Raises:
        DataError: a source that cannot be read; every malformed row of a file, by line; fewer
            problems than the recipe needs.
    """
    path, unusable = Path(recipe.dataset).expanduser(), 0
    if recipe.dataset.startswith(GENERATOR_PREFIX):
        source = recipe.dataset
        distinct, duplicates = _generate(recipe)
    else:
        if path.is_file() or path.suffix.lower() in LOCAL_SUFFIXES:
            source = path.name
            rows, _ = _problems_of(_read_file(path, recipe), recipe, source, path.stem)
        else:
            source = recipe.dataset
            table = _read_hub(recipe)
            rows, unusable = _problems_of(table, recipe, source, source, drop_faults=True)
        first: dict[str, Problem] = {}
        for problem in rows:
            first.setdefault(problem.prompt.strip(), problem)
        distinct, duplicates = list(first.values()), len(rows) - len(first)
        if len(distinct) <= recipe.eval_problems:
            raise DataError(
                f"{source} has {len(distinct)} distinct problems; eval_problems="
                f"{recipe.eval_problems} would leave none to train on: lower it"
            )
    order = random.Random(recipe.dataset_seed).sample(range(len(distinct)), len(distinct))
    held_out, train = order[: recipe.eval_problems], order[recipe.eval_problems :]
    return Problems(
        source,
        tuple(distinct[i] for i in sorted(train[: recipe.max_problems])),
        tuple(distinct[i] for i in sorted(held_out)),
        duplicates,
        unusable,
    )


def gold_answer(text: str) -> str:
    """The answer to grade against: text as given, or what GSM8K writes after its last `####`.

    GSM8K ends a worked solution with a line `#### 18`. Any other text is returned unchanged, so
    that a MATH solution keeps its `\\boxed{}`.
    """
    final = re.search(r"(?:\A|\n)####[ \t]*(\S[^\n]*)\s*\Z", text)
    return final.group(1).strip() if final else text


def _generate(recipe: Recipe) -> tuple[list[Problem], int]:
    """Distinct problems of a generator, as many as the recipe needs, and the repeats drawn."""
    wanted = (recipe.max_problems or DEFAULT_GENERATED) + recipe.eval_problems
    needed = (recipe.max_problems or 1) + recipe.eval_problems
    first: dict[str, Problem] = {}
    since_new = repeats = 0
    with _seeded_globals(recipe.dataset_seed):
        for problem in _draw(recipe):
            if first.setdefault(problem.prompt.strip(), problem) is problem:
                since_new = 0
            else:
                since_new, repeats = since_new + 1, repeats + 1
            # Equally likely items: so many draws miss the last one once in 20,000 times.
            if len(first) == wanted or since_new > 10 * len(first) + 500:
                break
    if len(first) < needed:
        raise DataError(
            f"{recipe.dataset} makes only {len(first)} distinct problems with dataset_kwargs="
            f"{dict(recipe.dataset_kwargs)}, but max_problems={recipe.max_problems} + "
            f"eval_problems={recipe.eval_problems} need {needed}: lower one of them, or widen "
            "dataset_kwargs"
        )
    return list(first.values()), repeats


def _draw(recipe: Recipe) -> Iterator[Problem]:
    """Items of a reasoning-gym family without end."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    family, kwargs = recipe.dataset.removeprefix(GENERATOR_PREFIX), dict(recipe.dataset_kwargs)
    if family not in DATASETS:
        near = difflib.get_close_matches(family, DATASETS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(DATASETS)}"
        raise DataError(f"unknown generator {family!r} in dataset={recipe.dataset!r}: {hint}")
    if family in HASH_ORDERED and os.environ.get("PYTHONHASHSEED") != "0":
        raise DataError(
            f"{recipe.dataset} makes other problems in every process, since it follows the order "
            "of Python's string hashes: set PYTHONHASHSEED=0 before Python starts, or choose "
            "another generator"
        )
    for key, instead in (("size", "max_problems"), ("seed", "dataset_seed")):
        if key in kwargs:
            raise DataError(f"dataset_kwargs[{key!r}]={kwargs[key]!r}: set {instead} instead")
    seeds, index = random.Random(recipe.dataset_seed), 0
    # Generators check their settings each in its own way, some only when drawn from.
    try:
        while True:
            settings = kwargs | {"size": GENERATOR_BLOCK, "seed": seeds.getrandbits(32)}
            for item in reasoning_gym.create_dataset(family, **settings):
                answer = None if item["answer"] is None else str(item["answer"])
                yield Problem(item["question"], answer, f"{family}:{index}", recipe.dataset)
                index += 1
    except Exception as error:
        known = sorted({*DATASETS[family][1].__dataclass_fields__} - {"size", "seed"})
        raise DataError(
            f"{recipe.dataset} refuses dataset_kwargs={kwargs}: {error or type(error).__name__}. "
            f"Its settings are {', '.join(known)}"
        ) from error


@contextlib.contextmanager
def _seeded_globals(seed: int) -> Iterator[None]:
    """Seed the global generators, which some families draw from, and restore them after."""
    import numpy

    before = random.getstate(), numpy.random.get_state()
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before[0])
        numpy.random.set_state(before[1])


def _read_hub(recipe: Recipe) -> _Table:
    import datasets

    names = {
        "dataset_name": recipe.dataset_name,
        "dataset_split": recipe.dataset_split,
        "dataset_revision": recipe.dataset_revision,
    }
    name, split, revision = names.values()
    # Network libraries under `datasets` raise errors of unrelated classes.
    try:
        table = datasets.load_dataset(recipe.dataset, name, split=split, revision=revision)
    except Exception as error:
        raise DataError(
            f"cannot load dataset={recipe.dataset!r} from the Hugging Face hub with {names}: "
            f"{error}. Check these; without the hub, use a local file (--data FILE, or dataset="
            f"'FILE.jsonl'), or a generator ('{GENERATOR_PREFIX}chain_sum', as the recipe "
            "quickstart under the profiles smoke and cpu)"
        ) from error
    rows = table.select_columns(_columns_read(recipe, table.column_names))
    return _Table(list(table.column_names), list(enumerate(rows, 1)), "row")


def _columns_read(recipe: Recipe, columns: Iterable[str]) -> list[str]:
    """The columns needed of those there are: code data sets carry megabytes of tests in others."""
    return [c for c in columns if c in {recipe.prompt_column, recipe.answer_column, *ID_COLUMNS}]


def _read_file(path: Path, recipe: Recipe) -> _Table:
    suffix = path.suffix.lower()
    if suffix not in LOCAL_SUFFIXES:
        raise DataError(f"{path}: a file of problems ends in one of {', '.join(LOCAL_SUFFIXES)}")
    try:
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(
            f"dataset={recipe.dataset!r}: cannot read {path.absolute()} ({error.strerror})"
        ) from error
    if suffix == ".parquet":
        return _read_parquet(content, recipe)
    if suffix == ".csv":
        return _read_csv(content)
    if suffix == ".json" and content.lstrip().startswith(b"["):
        return _read_json(content, array=True)
    return _read_json(content)


def _read_json(content: bytes, *, array: bool = False) -> _Table:
    if array:
        rows = _parse_json(content)
        pairs = [(1, rows)] if isinstance(rows, _Fault) else list(enumerate(rows, 1))
    else:
        # JSON text may hold U+2028 and other marks at which str.splitlines would cut it.
        lines = enumerate(content.split(b"\n"), 1)
        pairs = [(number, _parse_json(line)) for number, line in lines if line.strip()]
    records: list[tuple[int, Any]] = [
        (n, row if isinstance(row, dict | _Fault) else _Fault("not a JSON object"))
        for n, row in pairs
    ]
    columns = dict.fromkeys(c for _, row in records if isinstance(row, dict) for c in row)
    return _Table(list(columns), records, "row" if array else "line")


def _parse_json(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _Fault(f"invalid UTF-8: {error.reason} at byte {error.start}")
    except json.JSONDecodeError as error:
        return _Fault(f"invalid JSON: {error.msg} at character {error.pos}")
    except (ValueError, RecursionError) as error:
        return _Fault(f"invalid JSON: {error}")


def _read_csv(content: bytes) -> _Table:
    # Invalid bytes become surrogates, so that the lines beside them can still be read.
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    columns: list[str] = []
    records: list[tuple[int, Any]] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return _Table(columns, records)
        except csv.Error as error:
            records.append((number, _Fault(f"invalid CSV: {error}")))
            continue
        if not _is_unicode("".join(cells)):
            records.append((number, _Fault("invalid UTF-8")))
        elif not columns:
            columns = cells
        elif len(cells) > len(columns):
            fault = f"{len(cells)} cells under {len(columns)} columns: quote cells with commas"
            records.append((number, _Fault(fault)))
        elif cells:
            records.append((number, dict(zip(columns, cells, strict=False))))


def _read_parquet(content: bytes, recipe: Recipe) -> _Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(content)) as file:
            columns = list(file.schema_arrow.names)
            batches = file.read(_columns_read(recipe, columns))
    except pyarrow.ArrowException as error:
        raise DataError(f"{recipe.dataset} is not a readable parquet file: {error}") from error
    records: list[tuple[int, Any]] = []
    for i in range(batches.num_rows):
        try:
            records.append((i + 1, batches.slice(i, 1).to_pylist()[0]))
        except UnicodeDecodeError as error:
            records.append((i + 1, _Fault(f"invalid UTF-8: {error.reason}")))
    return _Table(columns, records, "row")


def _problems_of(
    table: _Table, recipe: Recipe, source: str, stem: str, *, drop_faults: bool = False
) -> tuple[list[Problem], int]:
    """Problems of the rows, and the count of faulty rows dropped.

    Raises:
        DataError: every fault at once; with `drop_faults`, those of rows only if no row is left.
    """
    if not table.records:
        raise DataError(f"{source} holds no problems: one a row is expected")
    faults = []
    for key, remedy in (("prompt_column", ""), ("answer_column", " or answer_column=null")):
        column = getattr(recipe, key)
        if table.columns and column is not None and column not in table.columns:
            faults.append(
                f"no column {column!r}, only {', '.join(table.columns)}: set {key} to one of "
                f"them{remedy}"
            )
    made = [
        (n, row if isinstance(row, _Fault) else _problem_of(row, recipe, source, f"{stem}:{n}"))
        for n, row in table.records
        if isinstance(row, _Fault) or not faults
    ]
    problems = [row for _, row in made if isinstance(row, Problem)]
    bad = [f"\n  {table.unit} {n}: {row}" for n, row in made if isinstance(row, _Fault)]
    if faults or (bad and not (drop_faults and problems)):
        if bad:
            faults.append(f"mend or remove {len(bad)} of {len(table.records)} rows:")
        more = f"\n  and {len(bad) - FAULTS_SHOWN} more" if len(bad) > FAULTS_SHOWN else ""
        raise DataError(f"{source}: {'; '.join(faults)}{''.join(bad[:FAULTS_SHOWN])}{more}")
    return problems, len(bad)


def _problem_of(row: Mapping[str, Any], recipe: Recipe, source: str, id: str) -> Problem | _Fault:
    prompt = row.get(recipe.prompt_column)
    if not isinstance(prompt, str) or not prompt.strip():
        kinds = {str: "empty", type(None): "missing"}
        kind = kinds.get(type(prompt), f"a {type(prompt).__name__}, not text")
        return _Fault(f"{recipe.prompt_column!r} is {kind}")
    answer = row.get(recipe.answer_column) if recipe.answer_column else None
    # A missing answer is NaN in parquet files written from float columns.
    if answer is None or answer != answer or not str(answer).strip():
        answer = None
    elif isinstance(answer, str | numbers.Number):
        answer = gold_answer(str(answer))
    else:
        return _Fault(f"{recipe.answer_column!r} is a {type(answer).__name__}, not text")
    if not _is_unicode(prompt + (answer or "")):
        return _Fault("holds a lone surrogate (\\ud800 to \\udfff), which is no character")
    given = next((row[c] for c in ID_COLUMNS if row.get(c) not in (None, "")), id)
    return Problem(prompt, answer, str(given), source)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
