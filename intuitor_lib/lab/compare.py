"""Runs side by side: settings that differ, curves overlaid, paired differences of evaluations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from ..evaluation.scoreboard import comparison_table, find_evaluations
from ..recipe import InputError
from ..recipe.constants import SETTINGS
from ..report.curves import training_curves
from ..report.tables import Table, training_summary
from ..store import Run, RunStore
from . import display


def compare_runs(*wanted: Run | str, runs: str | Path | None = None) -> None:
    """Show runs side by side: settings that differ, training curves, differences of evaluations.

    Differences are those of evaluations of the same items that two runs have in the store, each
    later run less the first, paired by item, with 95 % intervals. Runs are picked from a list of
    the store; in batch those that are given are shown.

    Args:
        wanted: runs, or ids, that are shown first; by default the two newest of the store.
        runs: folder of the run store; by default as in `RunStore`.

    Raises:
        InputError: the store has no run with a finished step.
        KeyError: no run of an id.
    """
    store = RunStore(runs)
    chosen = [one if isinstance(one, Run) else store[one] for one in wanted]
    begun = [run for run in store if (run.path / "metrics.jsonl").is_file()]
    listed = {run.id: run for run in [*begun, *chosen]}
    if not listed:
        raise InputError(f"no run in {store.root} has finished a step: there is nothing to compare")
    newest = sorted(listed.values(), key=lambda run: run.status.get("changed", ""))[-2:]
    chosen = chosen or newest
    parts = comparison(store, chosen)
    widget = _picker(store, listed, chosen, parts) if display.person_there() else None
    display.show(parts, widget)


def _picker(
    store: RunStore, listed: dict[str, Run], chosen: Sequence[Run], parts: Sequence[str | Figure]
) -> ipywidgets.Widget:
    """A list of runs above the comparison of those that are picked; `parts` is that of `chosen`."""
    names = sorted(listed)
    rows = min(len(names), 12)
    layout = {"width": "100%", "max_width": "40em"}
    picked = ipywidgets.SelectMultiple(
        options=names, value=[run.id for run in chosen], rows=rows, layout=layout
    )
    shown = ipywidgets.HTML(display.join(parts))

    def draw(_: Any) -> None:
        # The first of those that were given stays the one that others are compared with.
        names = sorted(picked.value, key=lambda name: name != chosen[0].id)
        try:
            shown.value = display.join(comparison(store, [listed[name] for name in names]))
        except (OSError, ValueError, KeyError) as error:  # a run that is damaged
            shown.value = display.text_html(f"{type(error).__name__}: {error}")

    picked.observe(draw, "value")
    hint = ipywidgets.HTML(
        f"<small>Ctrl or Shift selects several; the others are compared with {chosen[0].id}, or "
        "with the first where that is not selected</small>"
    )
    return ipywidgets.VBox([picked, hint, shown])


def comparison(store: RunStore, runs: Sequence[Run]) -> list[str | Figure]:
    """Runs side by side: their curves, and tables as HTML."""
    if not runs:
        return ["no run is selected"]
    tables = [settings_table(runs), training_summary(runs), *differences(store, runs)]
    curves = training_curves({run.id: run.metrics for run in runs})
    return [curves, "".join(table._repr_html_() for table in tables)]


def settings_table(runs: Sequence[Run]) -> Table:
    """Tabulate settings, problems, base and machine as far as they are not the same in all runs."""
    columns = [_about(run) for run in runs]
    rows = []
    for key in dict.fromkeys(key for column in columns for key in column):
        values = [column.get(key) for column in columns]
        if any(value != values[0] for value in values):
            rows.append([key, *values])
    caption = "What differs." if rows else "Settings, problems, base and machine are the same."
    return Table(["setting", *(run.id for run in runs)], rows, caption)


def _about(run: Run) -> dict[str, Any]:
    """A run's settings, and what else its result depends on."""
    recipe, problems, where = run.recipe, run.problems, run.environment
    found = {key: getattr(recipe, key) for key in SETTINGS if key != "name"}
    found |= {f"problems: {key}": problems.get(key) for key in ("train", "held_out", "fingerprint")}
    found |= {f"files of {key}": value for key, value in run.local_weights.items()}
    found |= {key: where.get(key) for key in ("device", "device_name", "compute_dtype", "commit")}
    return found | {f"version of {key}": x for key, x in where.get("packages", {}).items()}


def differences(store: RunStore, runs: Sequence[Run]) -> list[Table]:
    """A table for each later run: its evaluations less those of the first, on the same items."""
    tables = []
    for run in runs[1:]:
        try:
            both = [find_evaluations(store, one.id) for one in (runs[0], run)]
            tables.append(comparison_table(*both))
        except InputError as error:
            title = f"{runs[0].id} and {run.id}"
            tables.append(Table([title], [], f"No differences (intuitor.evaluate): {error}"))
    return tables
