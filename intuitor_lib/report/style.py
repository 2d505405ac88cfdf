"""Figures as pure functions of stored tables; each returns a matplotlib `Figure`.

One colour and line style per method everywhere, so figures read in greyscale too. Raw values are
faint under their moving average, 95 % intervals are bars or bands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from .intervals import Estimate

__all__ = ["METHODS"]

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


def clean_axes(ax: Axes, title: str, *, axis: Any = "both") -> None:
    ax.set_title(title, loc="left", fontsize=10)
    ax.grid(alpha=0.25, axis=axis)
    ax.spines[["top", "right"]].set_visible(False)


def interval_bar(ax: Axes, x: float, estimate: Estimate, style: Mapping[str, Any]) -> None:
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


def style_of(label: str, index: int = 0) -> dict[str, Any]:
    other = {
        "color": f"C{index}",
        "linestyle": ("-", "--", "-.", ":")[index % 4],
        "marker": "osv^Dx"[index % 6],
    }
    return dict(METHODS.get(label, other))
