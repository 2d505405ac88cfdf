"""Style that all figures share: one colour, line style and marker per method.

Line styles and markers differ too, so that figures read in greyscale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .intervals import Estimate

__all__ = ["METHODS", "clean_axes", "error_lengths", "interval_bar", "panel_grid", "style_of"]

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
"""Style of each method, in the colours of Okabe and Ito for colour-blind readers."""


def panel_grid(count: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure with `count` panels of a size in inches, at most two beside each other."""
    columns, rows = min(count, 2), -(-count // 2)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, axes[:count]


def clean_axes(ax: Axes, title: str, *, axis: Any = "both") -> None:
    """Set the title, a light grid along `axis` and no frame above and on the right."""
    ax.set_title(title, loc="left", fontsize=10)
    ax.grid(alpha=0.25, axis=axis)
    ax.spines[["top", "right"]].set_visible(False)


def error_lengths(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Lengths of the intervals below and above the values, as matplotlib takes them."""
    return [
        [max(e.value - e.low, 0.0) for e in estimates],
        [max(e.high - e.value, 0.0) for e in estimates],
    ]


def interval_bar(ax: Axes, x: float, estimate: Estimate, style: Mapping[str, Any]) -> None:
    """Draw a value with its 95 % interval as one marker."""
    ax.errorbar(
        [x],
        [estimate.value],
        yerr=error_lengths([estimate]),
        fmt=style["marker"],
        color=style["color"],
        capsize=4,
        markersize=7,
        linewidth=2,
    )


def style_of(label: str, index: int = 0) -> dict[str, Any]:
    """The style of a method, or for another label one by its index in the figure."""
    other = {
        "color": f"C{index}",
        "linestyle": ("-", "--", "-.", ":")[index % 4],
        "marker": "osv^Dx"[index % 6],
    }
    return dict(METHODS.get(label, other))
