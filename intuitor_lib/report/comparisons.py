"""Figures that set methods, policies or completions side by side."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from . import style
from .intervals import Estimate


def compare_methods(
    panels: Mapping[str, Mapping[str, Estimate]], *, differences: bool = False
) -> Figure:
    """Estimates of methods with 95 % intervals, one panel per quantity, one scale per unit.

    Args:
        panels: for each panel's title, the estimates by label, from top to bottom. The value of the
            first one, the base, continues as a dashed line. A title has its unit in parentheses, or
            is one of an accuracy.
        differences: they are differences of accuracies; the dashed line is at 0.
    """
    unit = "difference in accuracy" if differences else style.ACCURACY
    labels = list(dict.fromkeys(label for estimates in panels.values() for label in estimates))
    names = [style.named(x, [p[x] for p in panels.values() if x in p]) for x in labels]
    looks = style.styles(labels)
    width = 2.6 + 0.08 * max(map(len, names)) / min(len(panels), 3)
    height = 0.3 * len(labels) + 1.1
    figure, axes = style.panel_grid(len(panels), width, height, most=3, sharey=True)
    for ax, (title, estimates) in zip(axes, panels.items(), strict=True):
        for label, e in estimates.items():
            y, look = labels.index(label), looks[label] | {"linestyle": "none"}
            ax.errorbar(e.value, y, xerr=style.error_lengths([e]), **style.BARS | look)
            at: Any = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center"}
            text = f"{e.value:.2f}" if abs(e.value) < 1 else f"{e.value:.3g}"
            ax.annotate(text, (e.value, y), fontsize=8, **at)
        line = 0.0 if differences else next(iter(estimates.values())).value
        ax.axvline(line, color="0.6", linestyle="--", linewidth=1)
        n = [e.n for e in estimates.values()]
        style.clean_axes(ax, title, n=n, default=unit, values="x")
    axes[0].set_yticks(range(len(labels)), names)
    axes[0].set_ylim(len(labels) - 0.5, -0.8)
    return figure


def estimates_against(
    panels: Mapping[str, Mapping[str, tuple[Estimate, Estimate]]], y_label: str
) -> Figure:
    """Pairs of estimates with 95 % intervals in both directions, a panel for each quantity `x`.

    Args:
        panels: for the label of each x axis, the pairs by label; their number stands below it.
        y_label: of the y axis, a difference, whose 0 is a dashed line.
    """
    labels = list(dict.fromkeys(label for pairs in panels.values() for label in pairs))
    looks = style.styles(labels)
    figure, axes = style.panel_grid(len(panels), 4.4, 3.6, most=3, sharey=True)
    for ax, (title, pairs) in zip(axes, panels.items(), strict=True):
        for label, (x, y) in pairs.items():
            errors: Any = {"xerr": style.error_lengths([x]), "yerr": style.error_lengths([y])}
            look = style.BARS | looks[label] | {"linestyle": "none", "elinewidth": 0.8}
            ax.errorbar(x.value, y.value, label=label, **errors, **look)
        ax.axhline(0.0, color="0.6", linestyle="--", linewidth=1)
        ax.set(xlabel=f"{title}\n{len(pairs)} points, 95 % intervals", ylabel=y_label)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    style.figure_legend(figure, axes)
    return figure


def confidence_histograms(
    panels: Mapping[str, tuple[Sequence[float], Sequence[float], str]],
) -> Figure:
    """Histograms of the self-certainty of right and wrong completions (Figure 8), on one scale.

    A panel has the values of right completions, those of wrong ones, and a line under its title.
    """
    figure, axes = style.panel_grid(len(panels), 4.4, 3.0, sharex=True, sharey=True)
    known = [v for right, wrong, _ in panels.values() for v in (*right, *wrong)]
    bins = np.histogram_bin_edges(known or [0.0], bins=24).tolist()
    looks = style.styles(("wrong", "right"))
    for ax, (title, (right, wrong, text)) in zip(axes, panels.items(), strict=True):
        for values, label, hatch in ((wrong, "wrong", "//"), (right, "right", "")):
            if len(values):
                look: Any = {"color": looks[label]["color"], "hatch": hatch, "edgecolor": "white"}
                look["label"] = label + style.counted([len(values)], "completion", ", ")
                weights = np.full(len(values), 1 / len(values))
                ax.hist(values, bins, weights=weights, alpha=0.5, **look)
        style.clean_axes(ax, f"{title}\n{text}", default="share of right or of wrong")
        ax.tick_params(labelbottom=True, labelleft=True)
        ax.set_xlabel("self-certainty (nats)")
        ax.legend(frameon=False, fontsize=8)
    return figure


def token_text(
    examples: Sequence[tuple[str, Sequence[str], Sequence[float]]], *, width: int = 88
) -> Figure:
    """Completions as text, each token on a background of its self-certainty; dark is certain.

    An example has a heading, tokens and their values (nats); `width` is in characters.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = [v for _, _, own in examples for v in own]
    norm = Normalize(min(values, default=0.0), max(values, default=1.0) + 1e-9)
    colors = colormaps[style.CERTAINTY]
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
            color = colors(norm(value))
            ink = "white" if style.is_dark(color) else "black"
            ax.fill_between([x, x + len(text)], y - 0.45, y + 0.45, color=color, lw=0)
            for i, character in enumerate(text):
                ax.text(x + i + 0.5, y, character, color=ink, **centred)
            x += len(text)
    bar = figure.add_axes((0.9, 0.15, 0.015, 0.7))
    figure.colorbar(ScalarMappable(norm, colors), cax=bar, label="self-certainty (nats)")
    return figure


def _wrapped(
    heading: str, tokens: Sequence[str], values: Sequence[float], width: int
) -> list[list[tuple[str, float | None]]]:
    """Lines of tokens with their values: the heading, wrapped, the completion, an empty line."""
    lines: list[list[Any]] = [*([(line, None)] for line in textwrap.wrap(heading, width)), []]
    used = 0
    for token, value in zip(tokens, values, strict=True):
        shown = token.replace("\n", "↵") or "∅"
        if used + len(shown) > width:
            lines.append([])
            used = 0
        lines[-1].append((shown, value))
        used += len(shown)
    return [*lines, []]
