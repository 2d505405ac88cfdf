"""Check the trainings, numbers and records that a batch of notebooks left behind."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..store import RunStore
from .comparison import load_records, missing
from .plan import PLAN, planned
from .results import read_result, result_files

_MOST_CERTAIN = 60.0  # nats; more than any vocabulary's logits give in practice


def audit(profile: str, runs: str | Path | None = None) -> list[str]:
    """List the faults left after every notebook was executed under a profile.

    Every planned training must be finished, exist once and have each step recorded once; no other
    training may have a name of the plan. Every stored number must be finite and in its range.
    Every notebook must have a record, and every table and figure of the paper an answer.
    """
    store = RunStore(runs)
    faults = [*_trainings(store, profile), *_numbers(store, profile)]
    records = load_records(profile, store.root, committed=False)
    faults += [f"{name}: no record" for name in PLAN if name not in records]
    return faults + missing(records.values())


def _trainings(store: RunStore, profile: str) -> Iterator[str]:
    wanted = planned(profile)
    runs = list(store)
    found = Counter(run.recipe.digest for run in runs)
    names = {recipe.name for recipe in wanted.values()}
    for digest, recipe in wanted.items():
        if found[digest] != 1:
            yield f"{recipe.name}, seed {recipe.seed}: trained {found[digest]} times, not once"
    for run in runs:
        steps = [row["step"] for row in run.metrics]
        if run.recipe.name in names and run.recipe.digest not in wanted:
            yield f"{run.id}: not planned"
        if not run.finished or steps != list(range(1, run.recipe.max_steps + 1)):
            yield f"{run.id}: {run.status['state']}, with the steps {steps}"


def _numbers(store: RunStore, profile: str) -> Iterator[str]:
    folder = store.root / "results" / profile
    files = result_files(folder)
    if not files:
        yield f"no results in {folder}"
    for file in files:
        name = file.relative_to(folder)
        found = read_result(file)["result"]
        if file.stem == "training":
            for row in found["metrics"]:
                for column in ("reward", "loss", "rewards/self_certainty/mean"):
                    if not _finite(row.get(column)):
                        yield f"{name}: {column} is {row.get(column)} at step {row['step']}"
        elif file.suffix == ".parquet":
            if not found["rows"]:
                yield f"{name}: no completions"
            for row in found["rows"]:
                certainty, tokens = row["self_certainty"], row["tokens"]
                if tokens < 1 or not (_finite(certainty) and 0 <= certainty < _MOST_CERTAIN):
                    yield f"{name}: self-certainty {certainty} over {tokens} tokens"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
