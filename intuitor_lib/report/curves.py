"""Figures as pure functions of stored tables; each returns a matplotlib `Figure`.

One colour and line style per method everywhere, so figures read in greyscale too. Raw values are
faint under their moving average, 95 % intervals are bars or bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .intervals import Estimate
from .style import clean_axes, style_of

__all__ = ["estimates_over", "first_alarms", "moving_average", "seed_curves", "training_curves"]

_PANELS = (
    ("rewards/self_certainty/mean", "self-certainty (nats)"),
    ("rewards/accuracy/mean", "accuracy (monitored)"),
    ("completions/mean_length", "completion length (tokens)"),
    ("kl", "KL to the reference (nats)"),
)


def moving_average(values: Sequence[float], window: int) -> np.ndarray:
    """Mean over the last `window` values at each step; over fewer at the start."""
    sums = np.cumsum(np.insert(np.asarray(values, dtype=float), 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def training_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], *, window: int | None = None
) -> Figure:
    """Self-certainty, accuracy, completion length and KL over the training steps of single runs.

    Args:
        runs: the metrics rows of each run by its label; a label of `METHODS` has its style.
        window: as in `seed_curves`.
    """
    return seed_curves(
        {label: [rows] for label, rows in runs.items()}, dict(_PANELS), window=window
    )


def first_alarms(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The first step of each collapse alarm (`monitor`) in metrics rows, in order of step."""
    first: dict[str, int] = {}
    for row in rows:
        for name in row.get("collapse", []):
            first.setdefault(name, row["step"])
    return first


def _collapse_marks(
    ax: Axes, label: str, rows: Sequence[Mapping[str, Any]], index: int, *, named: bool
) -> None:
    """Mark the first step of each collapse alarm with a line, named in one panel."""
    names_at: dict[int, list[str]] = {}
    for name, step in first_alarms(rows).items():
        names_at.setdefault(step, []).append(name)
    color = style_of(label, index)["color"]
    for step, names in names_at.items():
        ax.axvline(step, color=color, linestyle=":", linewidth=1.2)
        if named:
            ax.text(
                step,
                0.03,  # away from the legend
                ", ".join(names),
                transform=ax.get_xaxis_transform(),
                rotation=90,
                va="bottom",
                ha="right",
                fontsize=8,
                color=color,
            )


def seed_curves(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    columns: Mapping[str, str],
    *,
    window: int | None = None,
) -> Figure:
    """Metrics over training steps, a panel for each: each seed faint, their mean bold.

    A dotted line stands where an alarm of a collapse rang first (`monitor`).

    Args:
        runs: for each label, the metrics rows of each seed; a label of `METHODS` has its style.
        columns: titles of the panels by metric.
        window: steps of the moving average of the mean; by default a tenth of the run, at least 3.
            What is not measured at every step is not averaged.
    """
    figure = Figure(figsize=(4.5 * min(len(columns), 2), 2.9 * -(-len(columns) // 2)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(-(-len(columns) // 2), min(len(columns), 2), squeeze=False).ravel()
    for ax, (column, title) in zip(axes, columns.items(), strict=False):
        for i, (label, several) in enumerate(runs.items()):
            _curve(ax, label, several, column, window, i)
        if not ax.lines:
            ax.text(0.5, 0.5, "not recorded", transform=ax.transAxes, ha="center", color="0.5")
        for i, (label, several) in enumerate(runs.items()):
            for rows in several:
                _collapse_marks(ax, label, rows, i, named=len(several) == 1 and ax is axes[0])
        clean_axes(ax, title)
        ax.set_xlabel("training step")
        ax.xaxis.get_major_locator().set_params(integer=True)
    for ax in axes[len(columns) :]:
        ax.set_axis_off()
    if len(runs) > 1 and axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(frameon=False, fontsize=8)
    return figure


def _curve(
    ax: Axes,
    label: str,
    several: Sequence[Sequence[Mapping[str, Any]]],
    column: str,
    window: int | None,
    index: int,
) -> None:
    """A metric of each seed, faint, and the moving average of their mean."""
    series = [
        {row["step"]: row[column] for row in rows if row.get(column) is not None}
        for rows in several
    ]
    style = style_of(label, index)
    steps = sorted(set.intersection(*map(set, series)))
    dense = len(steps) > 1 and steps[1] - steps[0] == 1
    for points in filter(None, series):
        dots = "." if dense and len(series) == 1 else None
        ax.plot(
            [*points],
            [*points.values()],
            color=style["color"],
            alpha=0.3,
            lw=1,
            marker=dots,
            markersize=4,
        )
    if steps:
        mean = [float(np.mean([points[step] for points in series])) for step in steps]
        width = window or max(3, len(steps) // 10)
        ax.plot(
            steps,
            moving_average(mean, width if dense else 1),
            label=f"{label} ({len(series)})" if len(series) > 1 else label,
            color=style["color"],
            linestyle=style["linestyle"],
            marker=None if dense else style["marker"],
            lw=2,
        )


def estimates_over(
    panels: Mapping[str, Mapping[str, Mapping[float, Estimate]]],
    *,
    xlabel: str = "training step",
    log: bool = False,
) -> Figure:
    """Estimates with 95 % intervals over steps (or another number), a panel for each quantity.

    Args:
        panels: for each panel's title and each label, the estimates by step.
        xlabel: what the numbers are.
        log: whether their axis is logarithmic, with a tick for each.
    """
    figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        ticks = sorted({x for points in lines.values() for x in points})
        gap = 0.0 if log or len(ticks) < 2 else 0.012 * (ticks[-1] - ticks[0])
        for i, (label, points) in enumerate(lines.items()):
            style, xs = style_of(label, i), np.array([*points], dtype=float)
            values = [*points.values()]
            error = [
                [max(e.value - e.low, 0.0) for e in values],
                [max(e.high - e.value, 0.0) for e in values],
            ]
            shift = gap * (i - (len(lines) - 1) / 2)  # so that bars do not cover each other
            ax.errorbar(
                xs + shift,
                [e.value for e in values],
                yerr=error,
                label=label,
                capsize=2,
                markersize=5,
                linewidth=1.8,
                elinewidth=1,
                **style,
            )
        if log:
            ax.set_xscale("log")
            ax.minorticks_off()
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        clean_axes(ax, title)
        ax.set_xlabel(xlabel)
    axes[0].legend(frameon=False, fontsize=8)
    return figure
