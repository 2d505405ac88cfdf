"""Figures that set methods, policies or completions side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .intervals import Estimate
from .style import METHODS, clean_axes, interval_bar, panel_grid, style_of

__all__ = ["before_after", "compare_methods", "confidence_histograms", "shares", "token_text"]


def before_after(panels: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Estimates with 95 % intervals before and after a training, one panel per quantity.

    Args:
        panels: for each panel's title, the estimates by label, from left to right. The value of
            the label "before" continues as a dashed line.
    """
    widths = [max(len(estimates), 2) for estimates in panels.values()]
    figure = Figure(figsize=(1.15 * sum(widths) + 1.0, 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for ax, (title, estimates) in zip(axes, panels.items(), strict=True):
        for x, (label, estimate) in enumerate(estimates.items()):
            style = METHODS["INTUITOR" if label == "after" else "base"]
            interval_bar(ax, x, estimate, style)
            ax.annotate(
                f"{estimate.value:.3g}",
                (x, estimate.value),
                xytext=(8, 3),  # beside the marker, above the dashed line
                textcoords="offset points",
                fontsize=9,
            )
        if "before" in estimates:
            ax.axhline(estimates["before"].value, color="0.6", linestyle="--", linewidth=1)
        ax.set_xticks(range(len(estimates)), [label.replace(", ", "\n") for label in estimates])
        ax.set_xlim(-0.5, max(len(estimates), 2) - 0.3)
        clean_axes(ax, title, axis="y")
    return figure


def compare_methods(panels: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Estimates of methods with 95 % intervals, one panel per quantity.

    The value of the first label, the base, continues as a dashed line.
    """
    figure = Figure(figsize=(max(3.0 * len(panels), 4.0), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, estimates) in zip(axes, panels.items(), strict=True):
        for x, (label, e) in enumerate(estimates.items()):
            interval_bar(ax, x, e, style_of(label, x))
        ax.axhline(next(iter(estimates.values())).value, color="0.6", linestyle="--", linewidth=1)
        ax.set_xticks(range(len(estimates)), [*estimates], rotation=35, ha="right", fontsize=8)
        ax.set_xlim(-0.5, len(estimates) - 0.5)
        clean_axes(ax, title, axis="y")
    return figure


def confidence_histograms(
    panels: Mapping[str, tuple[Sequence[float], Sequence[float], str]],
    *,
    xlabel: str = "self-certainty (nats)",
) -> Figure:
    """Histograms of the values of right and wrong completions (Figure 8).

    Args:
        panels: for each title, the values of right completions, those of wrong ones, and a line
            under the title.
        xlabel: label of the values.
    """
    figure, axes = panel_grid(len(panels), 4.4, 3.0)
    for ax, (title, (right, wrong, text)) in zip(axes, panels.items(), strict=True):
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
        clean_axes(ax, f"{title}\n{text}")
        ax.set_yticks([])
        ax.set_xlabel(xlabel)
        ax.legend(frameon=False, fontsize=8)
    return figure


def shares(panels: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Shares of kinds of answers as stacked bars, one panel per policy.

    Args:
        panels: for each title and each bar, the share of each kind.
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
        clean_axes(ax, title, axis="y")
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
        label: label of the values.
        width: characters in a line.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = [v for _, _, own in examples for v in own]
    norm = Normalize(min(values, default=0.0), max(values, default=1.0) + 1e-9)
    colors = colormaps["cividis_r"]
    lines = [line for example in examples for line in _wrapped(*example, width)]
    figure = Figure(figsize=(9, 0.27 * len(lines) + 0.8))
    ax = figure.add_axes((0.02, 0.0, 0.86, 1.0))
    ax.set_xlim(0, width)
    ax.set_ylim(len(lines) + 0.5, -0.5)
    ax.set_axis_off()
    plain: dict[str, Any] = {"va": "center", "parse_math": False}
    centred = plain | {"family": "monospace", "ha": "center", "fontsize": 8.5}
    for y, line in enumerate(lines):
        x = 0
        for text, value in line:
            if value is None:
                ax.text(0, y, text, fontsize=9, fontweight="bold", **plain)
                continue
            red, green, blue, _ = colors(norm(value))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            ax.fill_between([x, x + len(text)], y - 0.45, y + 0.45, color=(red, green, blue), lw=0)
            for i, character in enumerate(text):
                ax.text(x + i + 0.5, y, character, color="white" if dark else "black", **centred)
            x += len(text)
    bar = figure.add_axes((0.9, 0.15, 0.015, 0.7))
    figure.colorbar(ScalarMappable(norm, colors), cax=bar, label=label)
    return figure


def _wrapped(
    heading: str, tokens: Sequence[str], values: Sequence[float], width: int
) -> list[list[tuple[str, float | None]]]:
    """Lines of tokens with their values: the heading, the completion, an empty line."""
    lines: list[list[tuple[str, float | None]]] = [[(heading, None)], []]
    used = 0
    for token, value in zip(tokens, values, strict=True):
        shown = token.replace("\n", "↵") or "∅"
        if used + len(shown) > width:
            lines.append([])
            used = 0
        lines[-1].append((shown, value))
        used += len(shown)
    return [*lines, []]
