"""Style that all figures share: one colour, line style and marker per method.

Line styles and markers differ too, so that figures read in greyscale.
"""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from .intervals import Estimate

METHODS: Mapping[str, Mapping[str, Any]] = {
    "INTUITOR": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "GRPO": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "GRPO-PV": {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    "random": {"color": "#5A5A5A", "linestyle": ":", "marker": "x"},
    "EM": {"color": "#CC79A7", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "v"},
    "INTUITOR-Code": {"color": "#56B4E9", "linestyle": "-", "marker": "P"},
    "GRPO-Code": {"color": "#999933", "linestyle": "--", "marker": "X"},
    "online": {"color": "#882255", "linestyle": "-", "marker": "*"},
    "offline": {"color": "#E69F00", "linestyle": "--", "marker": "D"},
    "β = 0": {"color": "#BFA8E0", "linestyle": ":", "marker": "<"},
    "β = 0.0001": {"color": "#9A7BD0", "linestyle": "-.", "marker": ">"},
    "β = 0.005": {"color": "#6A3FB0", "linestyle": "-", "marker": "p"},
    "β = 0.01": {"color": "#3B1478", "linestyle": "--", "marker": "h"},
    "mixed": {"color": "#3D5AFE", "linestyle": "-.", "marker": "H"},
    "stated": {"color": "#AA7744", "linestyle": ":", "marker": "+"},
    "too fast": {"color": "#FF6666", "linestyle": "--", "marker": "1"},
    "one late": {"color": "#661100", "linestyle": (0, (5, 1, 1, 1)), "marker": "8"},
    "base": {"color": "#000000", "linestyle": (0, (8, 2)), "marker": "d"},
}
"""Style of each method, in colours for colour-blind readers; a larger β is a darker violet."""

CERTAINTY = "cividis_r"
"""The colour map of a token's self-certainty: dark is certain, legible in greyscale."""

ACCURACY = "share of right answers"
BARS: dict[str, Any] = {"capsize": 3, "elinewidth": 1.2, "linewidth": 1.8, "markersize": 5}

_OTHERS = ("#117733", "#AA4499", "#DDAA33", "#004488", "#BB5566", "#66CCBB")


def styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A style for each label of a figure.

    A method has its own, on any problems. A variant (`INTUITOR, seed 8`) or a second run, by id,
    has a paler shade. Other labels have colours of no method, up to 42 of them.
    """
    methods = {name.casefold(): name for name in METHODS}
    used: dict[str, int] = {}
    found = {}
    for label in labels:
        name = methods.get(re.split(r", | on |-s\d+-", label.casefold())[0], "")
        k = 0 if label in METHODS else used.setdefault(name, int(", " in label))
        used[name] = max(used.get(name, 0), k + 1)
        style = dict(METHODS[name]) if name else {"color": _OTHERS[k % len(_OTHERS)]}
        if k or not name:
            marker = (k + 3, 1, 0) if name else "os^DvxP"[k % 7]  # stars of k + 3 points
            style |= {"linestyle": ("-", "--", "-.", ":")[k % 4], "marker": marker}
        if name and k:
            pale = 0.75 * (1 - 0.5**k)
            red, green, blue = (c + (1 - c) * pale for c in to_rgb(style["color"]))
            style["color"] = to_hex((red, green, blue))
        found[label] = style
    return found


def is_dark(color: Sequence[float]) -> bool:
    """Whether white text reads better than black on a colour: red, green, blue from 0 to 1."""
    red, green, blue = color[:3]
    return 0.3 * red + 0.59 * green + 0.11 * blue < 0.5


def panel_grid(
    count: int, width: float, height: float, *, most: int = 2, below: float = 0.0, **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    """Make panels of a size in inches, `most` of them beside each other, and a free row `below`."""
    rows = -(-count // most)
    columns, heights = -(-count // rows), [height] * rows + [below] * bool(below)
    figure = Figure(figsize=(width * columns, sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights, **kwargs)
    for ax in axes.ravel()[count:]:
        ax.remove()
    return figure, axes.ravel()[:count]


def clean_axes(
    ax: Axes, title: str, *, n: Iterable[int] = (), default: str = "", values: str = "y"
) -> None:
    """Set the title, wrapped, with the number of problems `n`, a light grid and a light frame.

    The axis `values` is labelled with the unit that the title has in parentheses; of an accuracy it
    is a share, of another title without one `default` or the title itself. Panels of one unit share
    their scale, but for nats, which are of different quantities.
    """
    found = re.search(r" \(((nats|tokens|share|seconds)[^()]*)\)$", title)
    unit = found[1] if found else ACCURACY if "accuracy" in title else default or title
    title = title.removesuffix(f" ({unit})") + counted(n, "problem", "\nn = ")
    width = int(ax.bbox.width / ax.figure.dpi / 0.068)  # inches of a character
    lines = [line for text in title.split("\n") for line in textwrap.wrap(text, width)]
    ax.set_title("\n".join(lines), loc="left", fontsize=10)
    ax.set(**{f"{values}label": unit})
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    first = next(a for a in ax.figure.axes if getattr(a, f"get_{values}label")() == unit)
    if first is not ax and not unit.startswith("nats"):
        getattr(ax, f"share{values}")(first)
        ax.autoscale_view()


def counted(numbers: Iterable[int], noun: str, before: str = "") -> str:
    """`before` and `3 seeds`, `1 seed` or `1 to 3 seeds`; nothing without a number above 0."""
    known = sorted({*numbers} - {0})
    ends = " to ".join(map(str, dict.fromkeys(known[:1] + known[-1:])))
    return f"{before}{ends} {noun}{'s' * (known[-1] > 1)}" if known else ""


def named(label: str, estimates: Iterable[Estimate]) -> str:
    """A label with its number of seeds; a base has none."""
    seeds = (0 if label.startswith("base") else e.trainings for e in estimates)
    return label + counted(seeds, "seed", ", ")


def figure_legend(figure: Figure, axes: Iterable[Axes], title: str = "") -> None:
    """One legend for all panels, above them."""
    pairs = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in axes]
    known = {label: handle for pair in pairs for handle, label in pair}
    if known:
        columns = max(1, int(figure.get_figwidth() * 12 // (max(map(len, known)) + 8)))
        figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(known) // columns))
        look: Any = {"loc": "outside upper left", "alignment": "left", "handlelength": 3}
        sizes: Any = {"ncols": columns, "fontsize": 9, "title_fontsize": 9, "frameon": False}
        figure.legend([*known.values()], [*known], title=title, **look, **sizes)


def error_lengths(estimates: Sequence[Estimate]) -> np.ndarray:
    """Lengths of the intervals below and above the values, as matplotlib takes them."""
    lengths = np.array([(e.value - e.low, e.high - e.value) for e in estimates])
    return lengths.T.clip(0)
