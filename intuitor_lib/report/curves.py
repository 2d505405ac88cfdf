"""Figures of metrics and estimates over training steps.

Raw values are faint under their moving average; 95 % intervals are bars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .intervals import Estimate, Rows
from .style import clean_axes, error_lengths, panel_grid, style_of

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


def training_curves(runs: Mapping[str, Rows], *, window: int | None = None) -> Figure:
    """Self-certainty, accuracy, completion length and KL of single runs; see `seed_curves`."""
    return seed_curves(
        {label: [rows] for label, rows in runs.items()}, dict(_PANELS), window=window
    )


def first_alarms(rows: Rows) -> dict[str, int]:
    """The first step of each collapse alarm in metrics rows, by name, in order of step."""
    first: dict[str, int] = {}
    for row in rows:
        for name in row.get("collapse", []):
            first.setdefault(name, row["step"])
    return first


def _collapse_marks(ax: Axes, label: str, rows: Rows, index: int, *, named: bool) -> None:
    """Draw a line at the first step of each sign of collapse, with its name if `named`."""
    first = first_alarms(rows)
    color = style_of(label, index)["color"]
    for step in dict.fromkeys(first.values()):
        ax.axvline(step, color=color, linestyle=":", linewidth=1.2)
        if named:
            ax.text(
                step,
                0.03,  # away from the legend
                ", ".join(name for name, begun in first.items() if begun == step),
                transform=ax.get_xaxis_transform(),
                rotation=90,
                va="bottom",
                ha="right",
                fontsize=8,
                color=color,
            )


def seed_curves(
    runs: Mapping[str, Sequence[Rows]],
    columns: Mapping[str, str],
    *,
    window: int | None = None,
) -> Figure:
    """Metrics over training steps, one panel each: every seed faint, their mean bold.

    A dotted line is at the first step of each sign of collapse (`monitor`).

    Args:
        runs: for each label, the metrics rows of each seed; a label of `METHODS` has its style.
        columns: title of the panel of each metric.
        window: steps of the moving average of the mean; by default a tenth of the run, at least 3.
            A metric that is not measured at every step is not averaged.
    """
    figure, axes = panel_grid(len(columns), 4.5, 2.9)
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
    if len(runs) > 1 and axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(frameon=False, fontsize=8)
    return figure


def _curve(
    ax: Axes,
    label: str,
    several: Sequence[Rows],
    column: str,
    window: int | None,
    index: int,
) -> None:
    """Draw a metric of each seed, faint, and the moving average of their mean."""
    series = [
        {row["step"]: row[column] for row in rows if row.get(column) is not None}
        for rows in several
    ]
    style = style_of(label, index)
    steps = sorted(set.intersection(*map(set, series)))
    dense = len(steps) > 1 and steps[1] - steps[0] == 1
    for points in filter(None, series):
        ax.plot(
            [*points],
            [*points.values()],
            color=style["color"],
            alpha=0.3,
            lw=1,
            marker="." if dense and len(series) == 1 else None,
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
    """Estimates with 95 % intervals over steps or another number, one panel per quantity.

    Args:
        panels: for each panel's title and each label, the estimates by step.
        xlabel: label of the horizontal axis.
        log: whether it is logarithmic.
    """
    figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        ticks = sorted({x for points in lines.values() for x in points})
        gap = 0.0 if log or len(ticks) < 2 else 0.012 * (ticks[-1] - ticks[0])
        for i, (label, points) in enumerate(lines.items()):
            style, xs = style_of(label, i), np.array([*points], dtype=float)
            values = [*points.values()]
            shift = gap * (i - (len(lines) - 1) / 2)  # so that bars do not cover each other
            ax.errorbar(
                xs + shift,
                [e.value for e in values],
                yerr=error_lengths(values),
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
