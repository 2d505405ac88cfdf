"""Figures of metrics and estimates over training steps.

Seeds are a band around their mean; 95 % intervals are bars.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import style
from .intervals import Estimate, Rows, wilson

_PANELS = {
    "rewards/self_certainty/mean": "self-certainty (nats)",
    "rewards/accuracy/mean": "accuracy in training (monitored)",
    "completions/mean_length": "completion length (tokens)",
    "kl": "KL divergence from the reference (nats)",
}
_ALARMS = {"kl": "KL divergence", "entropy": "low entropy", "accuracy": "falling accuracy"}


def training_curves(runs: Mapping[str, Rows]) -> Figure:
    """Self-certainty, accuracy, completion length and KL of single runs; see `seed_curves`."""
    return seed_curves({label: [rows] for label, rows in runs.items()}, _PANELS)


def first_alarms(rows: Rows) -> dict[str, int]:
    """The first step of each collapse alarm in metrics rows, by name, in order of step."""
    first: dict[str, int] = {}
    for row in rows:
        for name in row.get("collapse", []):
            first.setdefault(name, row["step"])
    return first


def seed_curves(runs: Mapping[str, Sequence[Rows]], columns: Mapping[str, str]) -> Figure:
    """Metrics over training steps, one panel each: the mean over seeds in a band of all of them.

    A metric that is measured at every step is a moving average of each seed, over a tenth of the
    run. A step that some seeds lack has the mean and the band of the others. Bars at held-out
    accuracies are Wilson's intervals over the problems, for the mean of the seeds. A row of ticks
    below the panels has the first alarms of the monitor for each label.

    Args:
        runs: for each label, the metrics rows of each seed; a label of `METHODS` has its style.
        columns: title of the panel of each metric, with its unit in parentheses.
    """
    steps = [row["step"] for several in runs.values() for rows in several for row in rows]
    last, looks = max(steps, default=1), style.styles(runs)
    widths = {
        label: max(1, max((row["step"] for rows in several for row in rows), default=1) // 10)
        for label, several in runs.items()
    }
    alarms = _alarms(runs, last, 60 * min(len(columns), 2))
    below = 0.75 + 0.17 * (alarms[-1][0] + 1) if alarms else 0.0
    figure, axes = style.panel_grid(len(columns), 4.5, 2.7, below=below)
    for ax, (column, title) in zip(axes, columns.items(), strict=True):
        n = [_curve(ax, runs, label, column, widths[label], looks[label]) for label in runs]
        if not ax.lines:
            ax.text(0.5, 0.5, "not recorded", transform=ax.transAxes, ha="center", color="0.5")
        style.clean_axes(ax, title, n=n)
    if alarms:
        _draw_alarms(figure.add_subplot(axes[0].get_gridspec()[-1, :]), alarms, looks)
    for ax in figure.axes:
        ax.set_xlabel("training step")
        ax.set_xlim(0, last * 1.03)
        ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    wide = sorted({*widths.values()} or {1})
    notes = {
        "line: mean of seeds, band: lowest to highest seed": any(len(s) > 1 for s in runs.values()),
        "bar: 95 % interval over problems": "held_out/accuracy" in columns,
        f"moving average over {' or '.join(map(str, wide))} steps": wide[-1] > 1,
    }
    style.figure_legend(figure, axes, "; ".join(note for note, true in notes.items() if true))
    return figure


def _curve(
    ax: Axes, runs: Mapping[str, Sequence[Rows]], label: str, column: str, window: int, look: Any
) -> int:
    """Draw a metric's mean over seeds and its band; return the problems of held-out accuracies."""
    several = runs[label]
    series = [{r["step"]: r[column] for r in rows if r.get(column) is not None} for rows in several]
    steps = sorted(set().union(*series))
    if not steps:
        return 0
    n = max(row.get("held_out/n", 0) for rows in several for row in rows)
    dense = len(steps) > 1 and steps[1] - steps[0] == 1
    values = np.full((len(series), len(steps)), np.nan)
    for row, points in zip(values, series, strict=True):
        own = pandas.Series([points[step] for step in steps if step in points])
        last = own.rolling(window if dense else 1, min_periods=1)
        row[np.isin(steps, [*points])] = last.mean()
    mean, xs = np.nanmean(values, axis=0), np.array(steps, dtype=float)
    line: dict[str, Any] = style.BARS | dict(look)
    line["label"] = label + style.counted([len(series)], "seed", ", ")
    if column == "held_out/accuracy" and n:  # beside each other, so that no bar covers another
        xs += 0.012 * xs[-1] * ([*runs].index(label) - (len(runs) - 1) / 2)
        line["yerr"] = np.array([np.abs(np.array(wilson(m, n)) - m) for m in mean]).T
    if len(series) > 1:
        band = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        ax.fill_between(xs, *band, color=look["color"], alpha=0.15, linewidth=1)
    ax.errorbar(xs, mean, **line, markevery=max(1, len(steps) // 8) if dense else 1)
    return n if "yerr" in line else 0


def _alarms(runs: Mapping[str, Sequence[Rows]], last: int, room: int) -> list[Any]:
    """First alarms of each label over its seeds: line, label, step, text, whether left of the tick.

    A label has more lines than one where texts would touch in `room` characters.
    """
    marks: list[Any] = []
    ends: list[float] = []  # of the texts of each line
    for label, several in runs.items():
        found: dict[str, list[int]] = {}
        for rows in several:
            for name, step in first_alarms(rows).items():
                found.setdefault(name, []).append(step)
        top = len(ends)
        for name, steps in sorted(found.items(), key=lambda item: min(item[1])):
            text = _ALARMS.get(name, name)
            text += f", {len(steps)} of {len(several)} seeds" * (len(several) > 1)
            start, length = min(steps) / last * room, len(text) + 2
            left = start + length > room
            start -= length * left
            line = next((k for k in range(top, len(ends)) if ends[k] <= start), len(ends))
            ends[line : line + 1] = [start + length]
            marks.append((line, label, min(steps), text, left))
    return sorted(marks)


def _draw_alarms(ax: Axes, marks: Sequence[Any], looks: Mapping[str, Any]) -> None:
    """Draw a tick with its text at each alarm, the labels in rows."""
    names: dict[str, int] = {}
    for line, label, step, text, left in marks:
        names.setdefault(label, line)
        ax.plot(step, line, "|", color=looks[label]["color"], ms=10, mew=2)
        side: Any = {"ha": "right", "xytext": (-4, 0)} if left else {"xytext": (4, 0)}
        ax.annotate(text, (step, line), textcoords="offset points", va="center", fontsize=8, **side)
    ax.set_ylim(marks[-1][0] + 0.6, -0.6)
    ax.set_yticks([*names.values()], [*names] if len(looks) > 1 else [""], fontsize=9)
    style.clean_axes(ax, "first alarms of the monitor", default=" ")


def estimates_over(
    panels: Mapping[str, Mapping[str, Mapping[float, Estimate]]],
    *,
    xlabel: str = "training step",
    log: bool = False,
) -> Figure:
    """Estimates with 95 % intervals over steps or another number, one panel per quantity.

    Args:
        panels: for each panel's title and each label, the estimates by step. A title without a unit
            in parentheses is one of an accuracy.
        xlabel: label of the horizontal axis.
        log: whether it is logarithmic.
    """
    figure, axes = style.panel_grid(len(panels), 4.5, 3.0)
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        ticks = sorted({x for points in lines.values() for x in points})
        gap = 0.0 if len(ticks) < 2 else 0.012 * (ticks[-1] - ticks[0])
        for i, (label, look) in enumerate(style.styles(lines).items()):
            points = lines[label]
            values = [*points.values()]
            place = i - (len(lines) - 1) / 2  # beside the others, so that none covers another
            xs = np.array([*points], float)
            xs = xs * 1.04**place if log else xs + gap * place
            look["label"] = style.named(label, [e for x, e in points.items() if x])  # 0: untrained
            lengths = style.error_lengths(values)
            ax.errorbar(xs, [e.value for e in values], lengths, **style.BARS | look)
        if log:
            ax.set_xscale("log")
            ax.minorticks_off()
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        n = [e.n for points in lines.values() for e in points.values()]
        style.clean_axes(ax, title, n=n, default=style.ACCURACY)
        ax.set_xlabel(xlabel)
    style.figure_legend(figure, axes)
    return figure
