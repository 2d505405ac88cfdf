"""Problems to train on: procedural generators, local files, Hugging Face data sets.

From any source, prompts are distinct, held-out problems are not among the training problems, and
the same recipe gives the same problems in every process.
"""

import contextlib
import difflib
import functools
import hashlib
import json
import numbers
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..grading.unit_tests import check_tests
from ..recipe import Recipe
from ..recipe.constants import (
    EMBEDDED_HUMANEVAL,
    EMBEDDED_PRODUCTS,
    FAMILY_PREFIX,
    GENERATED,
    GENERATOR_PREFIX,
)
from .families import FAMILIES
from .humaneval import humaneval_request, humaneval_rows, humaneval_tests
from .tables import (
    TABLE_SUFFIXES,
    DataError,
    Fault,
    RawTable,
    is_unicode,
    list_faults,
    read_hub,
    read_table,
    shown,
)

DEFAULT_GENERATED = 1024
"""Training problems of a generator if `max_problems` is None (fewer if it has no more)."""

ID_COLUMNS = ("id", "unique_id", "task_id")

# LaTeX whose backslash JSON read as an escape: a backspace begins \boxed, a tab \text{. What is
# also an English word at the start of a line or column, such as \tan or \rfloor, is left out, and
# so is \textbf, of which MATH itself has an eaten one.
_EATEN = re.compile(
    r"\x08[a-z]{2,}|\x0c(?:rac|orall|box)|\n(?:eq\b|abla(?![a-zA-Z]))"
    r"|\t(?:ext(?:it|rm|tt)?\{|imes|riangle|herefore|heta(?![a-zA-Z])|frac(?:\b|\d\d))"
    r"|\r(?:ight|angle(?! ?\w)|ho(?![a-zA-Z]))"
)

# reasoning-gym seeds item i with seed + i. With blocks of unrelated seeds, the problems of
# dataset_seed 0 and 1 are not the same ones shifted by one.
GENERATOR_BLOCK = 1000

# Families of reasoning-gym 0.1.25 whose items depend on the order of a set of strings.
HASH_ORDERED = frozenset(
    ("isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder")
)


@dataclass(frozen=True)
class Problem:
    """One problem: the prompt as given, its reference answer if it has one, its source.

    `tests` are the unit tests of a programming problem, as JSON for `unit_tests.run_tests`.
    """

    prompt: str
    answer: str | None
    id: str
    source: str
    tests: str | None = None


@dataclass(frozen=True)
class Problems:
    """Training and held-out problems of one recipe.

    `duplicates_dropped` counts rows, or draws of a generator, that repeat a prompt;
    `unusable_dropped` counts rows of a hub data set without a usable prompt or answer. `left_out`
    tells of rows whose absence may surprise.
    """

    source: str
    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...] = ()
    duplicates_dropped: int = 0
    unusable_dropped: int = 0
    left_out: tuple[str, ...] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 over every prompt and answer in order."""
        digest = hashlib.sha256()
        for part, problems in (("train", self.train), ("held_out", self.held_out)):
            for problem in problems:
                tests = [] if problem.tests is None else [problem.tests]
                text = json.dumps([part, problem.prompt, problem.answer, *tests])
                digest.update(text.encode() + b"\n")
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Source, counts and fingerprint as JSON-ready values."""
        return {
            "source": self.source,
            "train": len(self.train),
            "held_out": len(self.held_out),
            "without_answer": sum(p.answer is None for p in self.train + self.held_out),
            "duplicates_dropped": self.duplicates_dropped,
            "unusable_dropped": self.unusable_dropped,
            "fingerprint": self.fingerprint,
        }


def load_problems(recipe: Recipe) -> Problems:
    """The training and held-out problems of a recipe.

    `recipe.dataset` is `reasoning-gym:FAMILY` (configured by `dataset_kwargs`), `family:NAME` (of
    `families.FAMILIES`), `embedded:products` (see `_products`), `embedded:humaneval` (164 functions
    to write, asked as in the benchmark `humaneval`), a file (.jsonl, .json, .csv, .parquet) or the
    name of a Hugging Face data set. The first of problems with the same prompt is kept. A
    permutation seeded with `dataset_seed` selects the held-out problems and then up to
    `max_problems` training problems; both keep the order of their source.

    Raises:
        DataError: the source cannot be read, has malformed rows (all are listed by line), or has
            fewer problems than the recipe needs.
    """
    source, path = recipe.dataset, Path(recipe.dataset).expanduser()
    unusable: list[str] = []
    left_out: list[str] = []
    named = (recipe.prompt_column, recipe.answer_column, recipe.tests_column)
    wanted = [column for column in (*named, *ID_COLUMNS) if column]
    if source.startswith(GENERATED):
        distinct, duplicates = _generate(recipe)
    else:
        if source == EMBEDDED_PRODUCTS:
            rows = _products(recipe)
        elif source == EMBEDDED_HUMANEVAL:
            rows = [*map(_humaneval, humaneval_rows())]
        elif path.is_file() or path.suffix.lower() in TABLE_SUFFIXES:
            source = path.name
            rows, _ = _problems_of(read_table(path, wanted), recipe, source, path.stem)
        elif path.is_dir():
            raise DataError(_is_folder(path))
        else:
            table = read_hub(
                *(source, recipe.dataset_name, recipe.dataset_split, recipe.dataset_revision),
                columns=wanted,
                instead="use a local file (--data FILE, or dataset='FILE.jsonl'), or a generator "
                f"('{GENERATOR_PREFIX}chain_sum', as the recipe quickstart under the profiles "
                "smoke and cpu)",
            )
            rows, unusable = _problems_of(table, recipe, source, source, drop_faults=True)
        distinct, several = _distinct(rows)
        duplicates = len(rows) - len(distinct)
        if unusable:
            left_out.append(
                f"{len(unusable)} of {len(rows) + len(unusable)} rows are unusable; the first: "
                f"{unusable[0]}"
            )
        if several:
            left_out.append(
                f"{len(several)} of {len(distinct)} prompts have several answers, of which one "
                f"counts; the first: {several[0]}"
            )
        if len(distinct) <= recipe.eval_problems:
            raise DataError(
                f"{source} has {len(distinct)} distinct problems; eval_problems="
                f"{recipe.eval_problems} would leave none to train on: lower it"
            )
    order = random.Random(recipe.dataset_seed).sample(range(len(distinct)), len(distinct))
    parts = (order[recipe.eval_problems :][: recipe.max_problems], order[: recipe.eval_problems])
    train, held_out = (tuple(distinct[i] for i in sorted(part)) for part in parts)
    return Problems(source, train, held_out, duplicates, len(unusable), tuple(left_out))


def _is_folder(path: Path) -> str:
    """What to name in place of a folder, which `load_dataset` would read as a data set."""
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in TABLE_SUFFIXES)
    known = f"a file that ends in one of {', '.join(TABLE_SUFFIXES)}, of which it has none"
    remedy = f"one of its files, such as {str(files[0])!r}" if files else known
    return f"dataset={str(path)!r} is a folder: name {remedy}"


def _distinct(rows: Sequence[Problem]) -> tuple[list[Problem], list[str]]:
    """One problem a prompt, and the other answers, one a prompt."""
    first: dict[str, Problem] = {}
    several: dict[str, str] = {}
    for problem in rows:
        prompt = problem.prompt.strip()
        kept = first.setdefault(prompt, problem)
        if kept.answer is None and problem.answer is not None:
            first[prompt] = problem
        elif problem.answer not in (None, kept.answer):
            told = f"{kept.answer!r:.60} in {kept.id}, {problem.answer!r:.60} in {problem.id}"
            several.setdefault(prompt, told)
    return list(first.values()), [*several.values()]


def gold_answer(text: str) -> str:
    """The reference answer in the last line of a GSM8K solution (`#### 18`).

    Any other text is returned unchanged, so that a MATH solution keeps its `\\boxed{}`.
    """
    final = re.search(r"(?:\A|\n)####[ \t]*(\S[^\n]*)\s*\Z", text)
    return final.group(1).strip() if final else text


def _humaneval(row: Mapping[str, str]) -> Problem:
    """A function to write, which has unit tests and no answer."""
    tests = json.dumps(humaneval_tests(row))
    return Problem(humaneval_request(row), None, row["task_id"], EMBEDDED_HUMANEVAL, tests)


def _products(recipe: Recipe) -> list[Problem]:
    """Every product of two numbers with as many digits as `dataset_kwargs["digits"]` says: [2, 1].

    No number is 0, 1 or a power of ten, so that no answer can be read off its question, and of two
    products that differ in the order of their numbers only one is there.
    """
    kwargs = dict(recipe.dataset_kwargs)
    digits = kwargs.pop("digits", None)
    sound = isinstance(digits, list | tuple) and len(digits) == 2 and {*digits} <= {1, 2, 3, 4}
    if kwargs or not sound:
        raise DataError(
            f"{EMBEDDED_PRODUCTS} with dataset_kwargs={dict(recipe.dataset_kwargs)}: give the "
            "digits of both numbers, from 1 to 4, and nothing else: {'digits': [2, 1]}"
        )
    first, second = (range(max(2, 10 ** (n - 1) + 1), 10**n) for n in digits)
    return [
        Problem(f"What is {a} * {b}?", str(a * b), f"{a}x{b}", EMBEDDED_PRODUCTS)
        for a in first
        for b in second
        if digits[0] != digits[1] or a <= b
    ]


def _generate(recipe: Recipe) -> tuple[list[Problem], int]:
    """Distinct problems of a generator, as many as the recipe needs, and the number of repeats."""
    wanted = (recipe.max_problems or DEFAULT_GENERATED) + recipe.eval_problems
    needed = (recipe.max_problems or 1) + recipe.eval_problems
    own = recipe.dataset.startswith(FAMILY_PREFIX)
    if not own:
        import reasoning_gym  # noqa: F401 - its import draws from the global generators, too

    first: dict[str, Problem] = {}
    since_new = repeats = 0
    with _seeded_globals(recipe.dataset_seed):
        for problem in _draw_family(recipe) if own else _draw(recipe):
            if first.setdefault(problem.prompt.strip(), problem) is problem:
                since_new = 0
            else:
                since_new, repeats = since_new + 1, repeats + 1
            # If items are equally likely, this misses the last one once in 20,000 times.
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


def _draw_family(recipe: Recipe) -> Iterator[Problem]:
    """An endless stream of problems of one of `FAMILIES`."""
    name = _known(recipe, FAMILY_PREFIX, FAMILIES)
    if recipe.dataset_kwargs:
        raise DataError(
            f"{recipe.dataset} has no settings, so dataset_kwargs="
            f"{dict(recipe.dataset_kwargs)} must be empty"
        )
    draw, index = random.Random(f"{name}:{recipe.dataset_seed}"), 0
    while True:
        question, answer = FAMILIES[name](draw)
        yield Problem(question, answer, f"{name}:{index}", recipe.dataset)
        index += 1


def _known(recipe: Recipe, prefix: str, known: Iterable[str]) -> str:
    """The name of the recipe's generator, one of the `known`."""
    name = recipe.dataset.removeprefix(prefix)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise DataError(f"unknown generator {name!r} in dataset={recipe.dataset!r}: {hint}")
    return name


def _draw(recipe: Recipe) -> Iterator[Problem]:
    """An endless stream of items of a reasoning-gym family."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    family, kwargs = _known(recipe, GENERATOR_PREFIX, DATASETS), dict(recipe.dataset_kwargs)
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
    # Each generator checks its settings in its own way, some only when drawn from.
    try:
        while True:
            settings = kwargs | {"size": GENERATOR_BLOCK, "seed": seeds.getrandbits(32)}
            for item in reasoning_gym.create_dataset(family, **settings):
                answer = None if item["answer"] is None else _as_text(item["answer"])
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
    """Seed the global generators, from which some families draw, and restore them after."""
    import numpy

    before = random.getstate(), numpy.random.get_state()
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before[0])
        numpy.random.set_state(before[1])


def _problems_of(
    table: RawTable, recipe: Recipe, source: str, stem: str, *, drop_faults: bool = False
) -> tuple[list[Problem], list[str]]:
    """Problems of the rows, and what is wrong with the others, which are dropped or all told."""
    if not table.records:
        raise DataError(f"{source} holds no problems: one a row is expected")
    faults = []
    rows = [row for _, row in table.records if not isinstance(row, Fault)]
    for key in ("prompt_column", "answer_column", "tests_column"):
        column = getattr(recipe, key)
        if not table.columns or column is None:
            continue
        if table.columns.count(column) > 1:
            faults.append(f"{table.columns.count(column)} columns {column!r}: rename all but one")
        elif column not in table.columns and all(_cell(row, column) is None for row in rows):
            names = ", ".join(map(shown, table.columns))
            if len(table.columns) == 1 and set(";\t|") & set(table.columns[0]):
                names += " (save the file with commas between its cells)"
            remedy = "" if key == "prompt_column" else f" or {key}=null"
            faults.append(f"no column {column!r}, only {names}: set {key} to one of them{remedy}")
    made = [
        (n, row if isinstance(row, Fault) else _problem_of(row, recipe, source, f"{stem}:{n}"))
        for n, row in table.records
        if isinstance(row, Fault) or not faults
    ]
    numbered = [(n, row) for n, row in made if isinstance(row, Problem)]
    # Results go by id, so one that several have gets the number of its row.
    count = Counter(p.id for _, p in numbered)
    problems = [p if count[p.id] == 1 else replace(p, id=f"{p.id}:{n}") for n, p in numbered]
    bad = [f"{table.unit} {n}: {row}" for n, row in made if isinstance(row, Fault)]
    if faults or (bad and not (drop_faults and problems)):
        if bad:
            faults.append(f"mend or remove {len(bad)} of {len(table.records)} rows:")
        raise DataError(f"{source}: {'; '.join(faults)}{list_faults(bad)}")
    return problems, bad


def _problem_of(row: Mapping[str, Any], recipe: Recipe, source: str, id: str) -> Problem | Fault:
    prompt = _single_message(_cell(row, recipe.prompt_column), recipe)
    if isinstance(prompt, Fault):
        return prompt
    if not isinstance(prompt, str) or not prompt.strip():
        if isinstance(prompt, str) or prompt is None:
            return Fault(f"{recipe.prompt_column!r} is {'missing' if prompt is None else 'empty'}")
        return _no_text(recipe.prompt_column, prompt)
    answer = _cell(row, recipe.answer_column)
    # A missing answer is NaN in parquet files written from float columns.
    if answer is None or answer != answer or not str(answer).strip():
        answer = None
    elif isinstance(answer, str | numbers.Number):
        answer = gold_answer(_as_text(answer))
    else:
        return _no_text(recipe.answer_column, answer)
    if not is_unicode(prompt + (answer or "")):
        return Fault("holds a lone surrogate (\\ud800 to \\udfff), which is no character")
    if (eaten := _EATEN.search(prompt + (answer or ""))) is not None:
        return Fault(f"holds {eaten[0]!r}: LaTeX whose backslash was read as an escape, double it")
    try:
        tests = _unit_tests(_cell(row, recipe.tests_column))
    except (ValueError, KeyError, TypeError) as error:
        return Fault(f"{recipe.tests_column!r} holds no unit tests: {error}")
    given = next((row[c] for c in ID_COLUMNS if row.get(c) not in (None, "")), id)
    return Problem(prompt, answer, str(given), source, tests)


def _cell(row: Any, column: str | None) -> Any:
    """The value in a column, or in the field of one: `reward_model.ground_truth`, `prompt.0`."""
    if column is None or column in row:
        return row[column] if column else None
    for part in column.split("."):
        if isinstance(row, Mapping):
            row = row.get(part)
        elif isinstance(row, list) and part.isdecimal() and int(part) < len(row):
            row = row[int(part)]
        else:
            return None
    return row


def _as_text(value: Any) -> str:
    """A number as digits: no completion matches Python's 1e-05."""
    if isinstance(value, float | Decimal):
        return format(Decimal(str(value)), "f")
    return str(value)


def _single_message(prompt: Any, recipe: Recipe) -> Any:
    """The text of a conversation with one message of a user; anything else as it is."""
    messages = prompt if isinstance(prompt, list) else [prompt]
    if not messages or not all(
        isinstance(message, Mapping) and {"role", "content"} <= message.keys()
        for message in messages
    ):
        return prompt
    *others, (role, text) = [(message["role"], _content(message)) for message in messages]
    if role == "user" and all(other == ("system", recipe.system_prompt) for other in others):
        return text
    roles = ", ".join(str(message["role"]) for message in messages)
    return Fault(
        f"{recipe.prompt_column!r} is a conversation of {roles}: a problem is one message of the "
        "user, after a system message only if that is the recipe's system_prompt; put the "
        "problem's text into a column of its own"
    )


def _content(message: Mapping[str, Any]) -> Any:
    """The text of a message, whose content may be a list of one part."""
    content = message["content"]
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], Mapping):
        return content[0].get("text")
    return content


def _no_text(column: str | None, value: Any) -> Fault:
    first, at = (value[0], ".0") if isinstance(value, list) and value else (value, "")
    keys = [f".{key}" for key in first] if isinstance(first, Mapping) else [""]
    fields = " or ".join(f"{column}{at}{key}" for key in keys if at + key)
    hint = f": name one of its fields, {fields}" if fields else ""
    return Fault(f"{column!r} is a {type(value).__name__}, not text{hint}")


def _unit_tests(value: Any) -> str | None:
    """Unit tests of a row as JSON for `unit_tests.run_tests`, or None.

    The value is already that, as a mapping or as JSON, or it is code_contests' mapping of inputs
    and outputs of a program.
    """
    if value is None or value == "":
        return None
    given = json.loads(value) if isinstance(value, str) else value
    if not isinstance(given, Mapping):
        raise TypeError(f"a {type(given).__name__}, expected a mapping")
    if "kind" in given:
        check_tests(given)
        return json.dumps(dict(given))
    if "input" not in given or "output" not in given:
        raise KeyError(f"neither 'kind' nor 'input' and 'output' among {', '.join(given)}")
    columns = [given["input"], given["output"]]
    if not all(isinstance(column, list | tuple) for column in columns):
        raise TypeError(f"'input' and 'output' are lists of texts: {columns!r:.60}")
    tests = {"kind": "stdin", "tests": list(zip(*columns, strict=True))}
    check_tests(tests)
    return json.dumps(tests) if tests["tests"] else None
