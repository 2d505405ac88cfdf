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

__all__ = ["METHODS", "before_after", "moving_average", "training_curves"]

METHODS: Mapping[str, Mapping[str, Any]] = {
    "INTUITOR": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "GRPO": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "GRPO-PV": {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    "random": {"color": "#7F7F7F", "linestyle": ":", "marker": "x"},
    "base": {"color": "#000000", "linestyle": "-", "marker": "d"},
}
"""Style of each method (colours of Okabe and Ito, safe for colour-blind readers)."""

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
    """Self-certainty, accuracy, completion length and KL over training steps.

    A dotted line stands where an alarm of a collapse rang first (`monitor`).

    Args:
        runs: the metrics rows of each run by its label; a label of `METHODS` has its style.
        window: steps of the moving average; by default a tenth of the run, at least 3.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True).ravel()
    for ax, (column, title) in zip(axes, _PANELS, strict=True):
        for i, (label, rows) in enumerate(runs.items()):
            points = [(row["step"], row[column]) for row in rows if row.get(column) is not None]
            if points:
                _curve(ax, label, points, window or max(3, len(points) // 10), i)
        for i, (label, rows) in enumerate(runs.items()):
            _collapse_marks(ax, label, rows, i, named=ax is axes[0])
        if not ax.lines:
            ax.text(0.5, 0.5, "not recorded", transform=ax.transAxes, ha="center", color="0.5")
        ax.set_title(title, loc="left", fontsize=10)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[2:]:
        ax.set_xlabel("training step")
        ax.xaxis.get_major_locator().set_params(integer=True)
    if len(runs) > 1 and axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(frameon=False, fontsize=9)
    return figure


def _curve(
    ax: Axes, label: str, points: Sequence[tuple[float, float]], window: int, index: int
) -> None:
    default: dict[str, Any] = {"color": f"C{index}", "linestyle": "-"}
    style = {k: v for k, v in METHODS.get(label, default).items() if k != "marker"}
    steps, values = zip(*points, strict=True)
    ax.plot(steps, values, color=style["color"], alpha=0.3, linewidth=1, marker=".", markersize=4)
    ax.plot(steps, moving_average(values, window), label=label, linewidth=2, **style)


def _collapse_marks(
    ax: Axes, label: str, rows: Sequence[Mapping[str, Any]], index: int, *, named: bool
) -> None:
    """A line at the step where each alarm of a collapse rang first, named in one panel."""
    first: dict[int, list[str]] = {}
    seen: set[str] = set()
    for row in rows:
        new = [name for name in row.get("collapse", []) if name not in seen]
        if new:
            first[row["step"]] = new
            seen |= set(new)
    color = METHODS.get(label, {"color": f"C{index}"})["color"]
    for step, names in first.items():
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


def before_after(
    panels: Mapping[str, Mapping[str, Estimate]], *, reference_label: str = "before"
) -> Figure:
    """Estimates side by side, one panel per quantity, with their 95 % intervals.

    Args:
        panels: for each panel's title, the estimates by label, drawn left to right.
        reference_label: the label whose value runs through the panel as a dashed line.
    """
    widths = [max(len(estimates), 2) for estimates in panels.values()]
    figure = Figure(figsize=(1.15 * sum(widths) + 1.0, 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for ax, (title, estimates) in zip(axes, panels.items(), strict=True):
        for x, (label, estimate) in enumerate(estimates.items()):
            style = METHODS["INTUITOR" if label == "after" else "base"]
            below, above = estimate.value - estimate.low, estimate.high - estimate.value
            ax.errorbar(
                [x],
                [estimate.value],
                yerr=[[max(below, 0.0)], [max(above, 0.0)]],
                fmt=style["marker"],
                color=style["color"],
                capsize=4,
                markersize=7,
                linewidth=2,
            )
            ax.annotate(
                f"{estimate.value:.3g}",
                (x, estimate.value),
                xytext=(8, 3),  # beside the marker, above the dashed line
                textcoords="offset points",
                fontsize=9,
            )
        if reference_label in estimates:
            ax.axhline(estimates[reference_label].value, color="0.6", linestyle="--", linewidth=1)
        ax.set_xticks(range(len(estimates)), [label.replace(", ", "\n") for label in estimates])
        ax.set_xlim(-0.5, max(len(estimates), 2) - 0.3)
        ax.set_title(title, loc="left", fontsize=10)
        ax.grid(alpha=0.25, axis="y")
        ax.spines[["top", "right"]].set_visible(False)
    return figure
