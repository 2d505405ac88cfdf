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

__all__ = [
    "METHODS",
    "before_after",
    "compare_methods",
    "confidence_histograms",
    "estimates_over",
    "moving_average",
    "seed_curves",
    "shares",
    "token_text",
    "training_curves",
]

METHODS: Mapping[str, Mapping[str, Any]] = {
    "INTUITOR": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "GRPO": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "GRPO-PV": {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    "random": {"color": "#7F7F7F", "linestyle": ":", "marker": "x"},
    "EM": {"color": "#CC79A7", "linestyle": "--", "marker": "v"},
    "INTUITOR-Code": {"color": "#56B4E9", "linestyle": "-", "marker": "P"},
    "GRPO-Code": {"color": "#E69F00", "linestyle": "--", "marker": "X"},
    "online": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "offline": {"color": "#E69F00", "linestyle": "--", "marker": "D"},
    "INTUITOR, not quantized": {"color": "#56B4E9", "linestyle": "--", "marker": "P"},
    "β = 0": {"color": "#D55E00", "linestyle": ":", "marker": "s"},
    "β = 0.0001": {"color": "#E69F00", "linestyle": "-.", "marker": "^"},
    "β = 0.005": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "β = 0.01": {"color": "#009E73", "linestyle": "--", "marker": "v"},
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
    """Self-certainty, accuracy, completion length and KL over the training steps of single runs.

    Args:
        runs: the metrics rows of each run by its label; a label of `METHODS` has its style.
        window: as in `seed_curves`.
    """
    return seed_curves(
        {label: [rows] for label, rows in runs.items()}, dict(_PANELS), window=window
    )


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
    color = _style(label, index)["color"]
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
            _interval(ax, x, estimate, style)
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
        _clean(ax, title, axis="y")
    return figure


def _clean(ax: Axes, title: str, *, axis: Any = "both") -> None:
    ax.set_title(title, loc="left", fontsize=10)
    ax.grid(alpha=0.25, axis=axis)
    ax.spines[["top", "right"]].set_visible(False)


def _interval(ax: Axes, x: float, estimate: Estimate, style: Mapping[str, Any]) -> None:
    """A value with its 95 % interval, as one marker."""
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


def _style(label: str, index: int = 0) -> dict[str, Any]:
    other = {
        "color": f"C{index}",
        "linestyle": ("-", "--", "-.", ":")[index % 4],
        "marker": "osv^Dx"[index % 6],
    }
    return dict(METHODS.get(label, other))


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
        _clean(ax, title)
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
    style = _style(label, index)
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
            style, xs = _style(label, i), np.array([*points], dtype=float)
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
        _clean(ax, title)
        ax.set_xlabel(xlabel)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def compare_methods(panels: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Estimates of methods side by side with 95 % intervals, one panel per quantity.

    The first label's value, that of the base, runs through its panel as a dashed line.
    """
    figure = Figure(figsize=(max(3.0 * len(panels), 4.0), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, estimates) in zip(axes, panels.items(), strict=True):
        for x, (label, e) in enumerate(estimates.items()):
            _interval(ax, x, e, _style(label, x))
        ax.axhline(next(iter(estimates.values())).value, color="0.6", linestyle="--", linewidth=1)
        ax.set_xticks(range(len(estimates)), [*estimates], rotation=35, ha="right", fontsize=8)
        ax.set_xlim(-0.5, len(estimates) - 0.5)
        _clean(ax, title, axis="y")
    return figure


def confidence_histograms(
    panels: Mapping[str, tuple[Sequence[float], Sequence[float], str]],
    *,
    xlabel: str = "self-certainty (nats)",
) -> Figure:
    """Histograms of right and wrong completions, a panel for each (Figure 8).

    Args:
        panels: for each title the values of right ones, of wrong ones, and a line under the title.
        xlabel: what the values are.
    """
    columns = min(len(panels), 2)
    figure = Figure(figsize=(4.4 * columns, 3.0 * -(-len(panels) // columns)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
    for ax, (title, (right, wrong, text)) in zip(axes, panels.items(), strict=False):
        bins = np.histogram_bin_edges([*right, *wrong] or [0.0], bins=24)
        for values, label, color, hatch in (
            (wrong, "wrong", METHODS["GRPO"]["color"], "//"),
            (right, "right", METHODS["INTUITOR"]["color"], None),
        ):
            if len(values):
                ax.hist(
                    values,
                    bins=bins.tolist(),
                    density=True,
                    alpha=0.5,
                    color=color,
                    hatch=hatch,
                    edgecolor="white",
                    label=f"{label} ({len(values)})",
                )
        _clean(ax, f"{title}\n{text}")
        ax.set_yticks([])
        ax.set_xlabel(xlabel)
        ax.legend(frameon=False, fontsize=8)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    return figure


def shares(panels: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Shares of kinds of answers as stacked bars, a panel for each policy.

    Args:
        panels: for each title and each bar, the shares by kind.
    """
    figure = Figure(figsize=(max(3.2 * len(panels), 4.0), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    kinds = list(dict.fromkeys(k for bars in panels.values() for bar in bars.values() for k in bar))
    grey = [str(round(level, 2)) for level in np.linspace(0.85, 0.25, max(len(kinds), 1))]
    hatches = ("", "//", "..", "xx", "--")
    for ax, (title, bars) in zip(axes, panels.items(), strict=True):
        bottom = np.zeros(len(bars))
        for i, kind in enumerate(kinds):
            heights = np.array([bar.get(kind, 0.0) for bar in bars.values()])
            ax.bar(
                [*bars],
                heights,
                bottom=bottom,
                label=kind,
                color=grey[i],
                hatch=hatches[i % len(hatches)],
                edgecolor="white",
                width=0.7,
            )
            bottom += heights
        _clean(ax, title, axis="y")
        ax.tick_params(axis="x", labelsize=8)
        ax.set_ylim(0, 1)
    axes[0].set_ylabel("share of completions")
    axes[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def token_text(
    examples: Sequence[tuple[str, Sequence[str], Sequence[float]]],
    *,
    label: str = "self-certainty (nats)",
    width: int = 88,
) -> Figure:
    """Completions as text, each token on a background of its value; dark is certain.

    Args:
        examples: heading, tokens and values of each completion.
        label: what the values are.
        width: characters in a line.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = [v for _, _, own in examples for v in own]
    norm = Normalize(min(values, default=0.0), max(values, default=1.0) + 1e-9)
    colors = colormaps["cividis_r"]
    lines: list[list[tuple[str, float | None]]] = []
    for heading, tokens, own in examples:
        lines.append([(heading, None)])
        line: list[tuple[str, float | None]] = []
        used = 0
        for token, value in zip(tokens, own, strict=True):
            shown = token.replace("\n", "↵") or "∅"
            if used + len(shown) > width:
                lines.append(line)
                line, used = [], 0
            line.append((shown, value))
            used += len(shown)
        lines += [line, []]
    figure = Figure(figsize=(9, 0.27 * len(lines) + 0.8))
    ax = figure.add_axes((0.02, 0.0, 0.86, 1.0))
    ax.set_xlim(0, width)
    ax.set_ylim(len(lines) + 0.5, -0.5)
    ax.set_axis_off()
    for y, line in enumerate(lines):
        x = 0
        for text, known in line:
            if known is None:
                ax.text(0, y, text, fontsize=9, fontweight="bold", va="center", parse_math=False)
                continue
            red, green, blue, _ = colors(norm(known))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            ax.fill_between([x, x + len(text)], y - 0.45, y + 0.45, color=(red, green, blue), lw=0)
            for i, character in enumerate(text):
                ax.text(
                    x + i + 0.5,
                    y,
                    character,
                    fontsize=8.5,
                    family="monospace",
                    ha="center",
                    va="center",
                    color="white" if dark else "black",
                    parse_math=False,
                )
            x += len(text)
    bar = figure.add_axes((0.9, 0.15, 0.015, 0.7))
    figure.colorbar(ScalarMappable(norm, colors), cax=bar, label=label)
    return figure
