"""Check what a batch of notebooks left behind, or keep it in the project's `data/`.

    python tests/notebook_results.py check --profile cpu      # exit status 1: there are faults
    python tests/notebook_results.py keep --profile cpu       # copies results and records
    python tests/notebook_results.py keep --profile cpu 08    # the records of notebook 08 alone

reads the run store (`INTUITOR_RUNS`).
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from intuitor_lib.paper.comparison import load_records
from intuitor_lib.paper.numbers import FIGURES, TABLES
from intuitor_lib.paper.plan import PLAN, planned
from intuitor_lib.paper.results import read_result
from intuitor_lib.recipe import PROFILES, InputError
from intuitor_lib.store import RunStore, data_folder
from intuitor_lib.store.files import write_bytes

MOST_CERTAIN = 60.0
"""Nats; more than any vocabulary's logits give in practice."""


def audit(profile: str, runs: str | Path | None = None) -> list[str]:
    """List the faults left after every notebook was executed under a profile.

    Every planned training must be finished, exist once and have each step recorded once; no other
    training may have a name of the plan. Every stored number must be finite and in its range.
    Every notebook must have a record, and every table and figure of the paper an answer.
    """
    store = RunStore(runs)
    faults = [*_trainings(store, profile), *_numbers(store, profile)]
    records = load_records(profile, store.root, committed=False)
    faults += [
        f"{name}: no record"
        for name in dict.fromkeys(n.partition(":")[0] for n in PLAN)
        if name not in records
    ]
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
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        yield f"no results in {folder}"
    for file in files:
        name = file.relative_to(folder)
        found = read_result(file)
        if file.stem == "training":
            for row in found["metrics"]:
                for column in ("reward", "loss", "rewards/self_certainty/mean"):
                    if not _finite(row.get(column)):
                        yield f"{name}: {column} is {row.get(column)} at step {row['step']}"
        else:
            if not found["rows"]:
                yield f"{name}: no completions"
            for row in found["rows"]:
                certainty, tokens = row["self_certainty"], row["tokens"]
                if tokens < 1 or not (_finite(certainty) and 0 <= certainty < MOST_CERTAIN):
                    yield f"{name}: self-certainty {certainty} over {tokens} tokens"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def missing(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """List the paper's tables and figures without a record, and faults of the records."""
    entries: dict[str, list[Mapping[str, Any]]] = {}
    faults = []
    for record in records:
        for id, entry in record["values"].get("paper", {}).items():
            entries.setdefault(id, []).append({**entry, "record": record})
        for score in record["values"].get("scores", ()):
            needed = ("profile", "n", "seeds", "low", "high", "model")
            lacking = [key for key in needed if key not in score]
            if lacking:
                faults.append(f"{record['notebook']}: a score lacks {', '.join(lacking)}")
            elif not score["low"] < score["high"]:
                faults.append(f"{record['notebook']}: an interval of width 0 in {score}")
    for id in (*TABLES, *FIGURES):
        if id not in entries:
            faults.append(f"{id}: no record")
            continue
        given = [c for e in entries[id] for c in e.get("cells", [])]
        # Of a cell in several records, one that was measured counts.
        cells = {(c["row"], c["column"]): c for c in sorted(given, key=lambda c: "ours" in c)}
        for row, column, _ in TABLES[id].cells() if id in TABLES else ():
            cell = cells.get((row, column))
            if not (cell and (cell.get("ours") or cell.get("not tested"))):
                faults.append(f"{id}: cell {row!r}, {column!r} is not accounted for")
        answered = any(
            e.get("not tested") or values.get("scores") or values.get("answers")
            for e in entries[id]
            for values in (e["record"]["values"],)
        )
        if id not in TABLES and not answered:
            faults.append(f"{id}: neither a score nor a reason")
    return faults


def keep(
    profile: str, notebooks: Sequence[str] = (), *, runs: str | Path | None = None
) -> list[Path]:
    """Copy results and records of the run store into the project's data folder.

    With names or numbers of notebooks, only their records are copied and no results.
    """
    data, root = data_folder(), RunStore(runs).root
    if data is None:
        raise InputError("no project here: keep results from within a clone of it")
    sources = [] if notebooks else sorted((root / "results" / profile).rglob("*.parquet"))
    sources += [
        source
        for source in sorted((root / "records").glob(f"*-{profile}.json"))
        if not notebooks or source.stem.startswith(tuple(notebooks))
    ]
    if not sources:
        raise InputError(f"{root} holds no results under {profile}: execute the notebooks first")
    copies = [data / source.relative_to(root) for source in sources]
    for source, copy in zip(sources, copies, strict=True):
        write_bytes(copy, source.read_bytes())
    return copies


def main() -> int:
    """Check, or keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=["check", "keep"])
    parser.add_argument("notebooks", nargs="*", help="keep only the records of these, as 08")
    parser.add_argument("--profile", default="cpu", choices=[*PROFILES])
    options = parser.parse_intermixed_args()
    if options.action == "keep":
        kept = keep(options.profile, options.notebooks)
        size = sum(path.stat().st_size for path in kept) / 2**20
        print(f"{len(kept)} files, {size:.1f} MiB")
        return 0
    faults = audit(options.profile)
    print("\n".join(faults) or f"all results under {options.profile} are as planned")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
