"""Our records beside the paper's tables and claims: tables, the summary, gaps in the records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..recipe import PROFILES
from ..report import Estimate, Table
from ..store import RunStore, data_folder
from .numbers import CLAIMS, TABLES, get_table, paper_ids
from .plan import SUITES
from .trials import Trial
from .verdicts import NO_GPU, VERDICTS, estimate, measured, policy_name

__all__ = [
    "load_records",
    "missing",
    "paper_cells",
    "real_cells",
    "replication_summary",
    "side_by_side",
]

PAPER_MODELS = {"gpu-12gb": "Qwen2.5-1.5B", "gpu-24gb": "Qwen2.5-3B", "paper": "Qwen2.5-3B"}
"""The model of the paper's tables that a profile trains."""


def paper_cells(
    table_id: str, ours: Mapping[tuple[str, str], Mapping[str, Any]], reason: str = NO_GPU
) -> dict[str, Any]:
    """Make a record's entry for a table of the paper that accounts for every cell.

    Args:
        table_id: a key of `TABLES`.
        ours: `measured` values of the same model on the same benchmark, by row and column.
        reason: why the other cells were not tested.

    Raises:
        KeyError: the table has no such row or column.
    """
    table = get_table(table_id)
    for row, column in ours:
        table.value(row, column)
    cells = []
    for row, column, value in table.cells():
        found = ours.get((row, column))
        cells.append(
            {"row": row, "column": column, "paper": value}
            | ({"ours": dict(found)} if found else {"not tested": reason})
        )
    return {"cells": cells}


def real_cells(
    table_id: str, trials: Mapping[str, Sequence[Trial]], profile: str, step: int | None = None
) -> dict[tuple[str, str], dict[str, Any]]:
    """Measured values for the cells of a table, by row and column; only under GPU profiles."""
    if profile not in PAPER_MODELS:
        return {}
    table, model, found = get_table(table_id), PAPER_MODELS[profile], {}
    for label, several in trials.items():
        for row in (f"{model} + {label}", label, *([model] if label == "base" else [])):
            if row not in table.rows:
                continue
            for test in SUITES[profile].values():
                if test.column in table.columns and (test.name, step) in several[0].tables:
                    if any(r["correct"] is None for r in several[0].rows(test.name, step)):
                        continue  # not judged yet
                    value = estimate(several, test.name, step=step)
                    found[row, str(test.column)] = measured(row, value, several)
    return found


def side_by_side(
    table_id: str,
    trials: Mapping[str, Sequence[Trial]],
    profile: str,
    tests: Sequence[str],
    *,
    step: int | None = None,
    paper_model: str = "Qwen2.5-3B",
) -> Table:
    """Tabulate the paper's values and ours, with 95 % intervals, a row per policy.

    Our columns have the names of the problems they were measured on. `step` selects snapshots;
    `paper_model` selects rows of the paper's table.
    """
    suite, paper = SUITES[profile], get_table(table_id)
    rows = []
    for label, several in trials.items():
        names = (label, f"{paper_model} + {label}", *([paper_model] if label == "base" else []))
        theirs = next((paper.rows[name] for name in names if name in paper.rows), None)
        cells = [f"{v:.3f}" if v < 1 else f"{v:.2f}" for v in theirs or ()]
        for test in tests:
            at = 0 if step and several[0].training is None else step
            held = (test, at) in several[0].tables
            cells += [estimate(several, test, step=at).text() if held else "-"]
        blank = [] if theirs else ["-"] * len(paper.columns)
        rows.append([label, *blank, *cells])
    first = next(several[0] for several in trials.values() if several[0].training)
    sizes = ", ".join(
        f"{suite[test].title} n = {len({row['id'] for row in first.rows(test, step)})}"
        for test in tests
    )
    seeds = {label: len(several) for label, several in trials.items() if several[0].training}
    counts = ", ".join(f"{label} {n}" for label, n in seeds.items())
    stand_in = any(suite[test].column for test in tests)
    caption = (
        f"Paper: {paper.title}, {paper_model} (of one run each; AlpacaEval in percent). Ours: "
        f"profile {profile}, {policy_name(first)}, {step or first.recipe.max_steps} steps of "
        f"{first.recipe.completions_per_step} completions; {sizes}; seeds: {counts}; 95 % "
        "intervals over seeds and problems."
        + ("" if stand_in else " Ours are neither the paper's benchmarks nor its models.")
    )
    header = [*(f"paper: {column}" for column in paper.columns)]
    return Table(
        ["policy", *header, *(f"ours: {suite[test].title}" for test in tests)], rows, caption
    )


def load_records(
    profile: str | None = None, runs: str | Path | None = None, *, committed: bool = True
) -> dict[str, dict[str, Any]]:
    """Load every notebook's record from the run store, else from the project.

    Args:
        profile: profile of the records; default the largest that each notebook has.
        runs: the run store.
        committed: whether to read the project's records.
    """
    folders = [RunStore(runs).root / "records"]
    data = data_folder()
    if committed and data is not None:
        folders.append(data / "records")
    found: dict[str, dict[str, Any]] = {}
    for name in (profile,) if profile else reversed([*PROFILES]):
        for folder in folders:
            for path in sorted(folder.glob(f"[0-9]*-{name}.json")):
                notebook = path.stem.removesuffix(f"-{name}")
                found.setdefault(notebook, json.loads(path.read_text(encoding="utf-8")))
    return dict(sorted(found.items()))


def replication_summary(records: Iterable[Mapping[str, Any]]) -> Table:
    """Tabulate the paper's claims: its finding, ours and the verdict, one line per claim."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    reasons: dict[str, str] = {}
    for record in records:
        for id, entry in record["values"].get("claims", {}).items():
            if "reason" in entry:
                reasons[id] = entry["reason"]
            else:
                found.setdefault(id, []).append(entry)
    rows = []
    for known in CLAIMS:
        paper = [known.text, f"{known.where}: {known.found}"]
        for entry in found.get(known.id, []):
            value = Estimate(*(entry[k] for k in ("value", "low", "high", "n", "samples")))
            seeds = len(entry["seeds"])
            note = f" {entry['note']}" if entry["note"] else ""
            rows.append(
                [
                    *paper,
                    f"{entry['what']}: {value.text()}{note}",
                    entry["profile"],
                    f"{entry['n']} / {seeds}",
                    entry["verdict"],
                ]
            )
        if known.id not in found:
            reason = reasons.get(known.id, "no notebook has measured it yet")
            rows.append([*paper, reason, "-", "-", "not tested here"])
    counts = {v: sum(row[-1] == v for row in rows) for v in VERDICTS}
    caption = (
        "; ".join(f"{v}: {n}" for v, n in counts.items())
        + ". Ours with 95 % intervals; n: problems / seeds of training. A verdict needs an "
        "interval that excludes no effect. Profiles smoke and cpu: SmolLM2-135M on procedural "
        "problems, no model and no benchmark of the paper's."
    )
    return Table(["claim", "paper", "ours", "profile", "n / seeds", "verdict"], rows, caption)


def missing(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """List the paper's tables and figures without a record, and faults of the records."""
    answers: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        for id, entry in record["values"].get("paper", {}).items():
            answers.setdefault(id, []).append(entry)
    faults = []
    for id in paper_ids():
        entries = answers.get(id, [])
        if not entries:
            faults.append(f"{id}: no record")
        given = [m for entry in entries for m in entry.get("measured", [])]
        absent = [m for entry in entries for m in entry.get("not tested", [])]
        cells = {(c["row"], c["column"]): c for e in entries for c in e.get("cells", [])}
        if entries and not given and not absent and not cells:
            faults.append(f"{id}: its record is empty")
        for m in [*given, *(c["ours"] for c in cells.values() if "ours" in c)]:
            lacking = [k for k in ("profile", "n", "seeds", "low", "high", "model") if k not in m]
            if lacking:
                faults.append(f"{id}: {m.get('what')} lacks {', '.join(lacking)}")
        for m in absent:
            if not m.get("reason"):
                faults.append(f"{id}: {m.get('what')} is not tested, without a reason")
        if id in TABLES:
            for row, column, _ in TABLES[id].cells():
                cell = cells.get((row, column))
                if entries and not (cell and (cell.get("ours") or cell.get("not tested"))):
                    faults.append(f"{id}: cell {row!r}, {column!r} is not accounted for")
    return faults
