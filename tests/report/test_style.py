"""One style per method; titles, units and counts in words."""

import colorsys
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from intuitor_lib.paper import ARMS
from intuitor_lib.report import METHODS
from intuitor_lib.report.intervals import Estimate
from intuitor_lib.report.style import ACCURACY, clean_axes, counted, figure_legend, named, styles


def light(color):
    red, green, blue = to_rgb(color)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def lab(color):
    """L*, a*, b* of an sRGB colour under D65, where 2.3 apart is just seen (CIE 1976)."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ np.array(
        [[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]]
    )
    x, y, z = np.cbrt(xyz / (0.9505, 1, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_no_two_methods_share_a_colour_or_a_marker():
    for part in ("color", "marker"):
        assert len({look[part] for look in METHODS.values()}) == len(METHODS)
    colors = {look["color"].casefold() for look in METHODS.values()}
    for label in ARMS.values():
        assert ", " in label or styles([label])[label]["color"].casefold() in colors
    assert styles(["GRPO on Reasoning"])["GRPO on Reasoning"] == METHODS["GRPO"]


def test_colours_of_two_methods_are_told_apart():
    near = {
        frozenset(pair)
        for pair in combinations(METHODS, 2)
        if np.linalg.norm(lab(METHODS[pair[0]]["color"]) - lab(METHODS[pair[1]]["color"])) < 25
    }
    assert not {pair for pair in near if not all(name.startswith("β") for name in pair)}


def test_a_larger_beta_is_a_darker_shade_of_one_hue():
    shades = [METHODS[f"β = {beta}"]["color"] for beta in ("0", "0.0001", "0.005", "0.01")]
    assert [light(c) for c in shades] == sorted(map(light, shades), reverse=True)
    hues = [colorsys.rgb_to_hsv(*to_rgb(color))[0] for color in shades]
    assert max(hues) - min(hues) < 0.03


@pytest.mark.parametrize(
    "labels",
    [
        ["INTUITOR, seed 7", "INTUITOR", "INTUITOR, seed 8", "GRPO"],
        ["intuitor-s7-3a57a8e876", "intuitor-s8-3a57a8e876", "intuitor-s7-90d5bb926c"],
    ],
)
def test_runs_of_a_method_are_shades_of_its_colour(labels):
    found = styles(labels)
    if "INTUITOR" in labels:
        assert found["INTUITOR"] == METHODS["INTUITOR"]
    blue = [found[label]["color"] for label in labels if label.casefold().startswith("intuitor")]
    assert len(set(blue)) == 3
    hues = [colorsys.rgb_to_hsv(*to_rgb(color))[0] for color in blue]
    assert max(hues) - min(hues) < 0.01
    assert len({found[label]["marker"] for label in labels}) == len(labels)


def test_other_labels_have_colours_of_no_method():
    found = styles(["majority", "one sample", "Borda vote"])
    colors = {look["color"] for look in found.values()}
    assert len(colors) == 3
    assert not colors & {look["color"] for look in METHODS.values()}


def test_counts_are_in_words():
    assert counted([3, 3], "seed") == "3 seeds"
    assert counted([1, 0], "seed", ", ") == ", 1 seed"
    assert counted([1, 3], "seed") == "1 to 3 seeds"
    assert counted([0], "seed", "n = ") == ""
    one = Estimate(0.5, 0.4, 0.6, 10, 30, trainings=3)
    assert (named("GRPO", [one]), named("base", [one])) == ("GRPO, 3 seeds", "base")


def test_a_long_title_is_wrapped_and_kept():
    ax = Figure(figsize=(3, 2)).subplots()
    title = "sums of two three-digit numbers, sampled at 0.9 with two completions of each (tokens)"
    clean_axes(ax, title, n=[50])
    shown = ax.get_title(loc="left")
    assert max(map(len, shown.split("\n"))) < 40
    assert " ".join(shown.split("\n")) == title.removesuffix(" (tokens)") + " n = 50 problems"
    assert ax.get_ylabel() == "tokens"


def test_the_unit_is_on_the_axis():
    one, two, three = Figure().subplots(1, 3)
    for ax, title in ((one, "accuracy, held out"), (two, "accuracy in training (monitored)")):
        ax.plot([0, 1], [0, 1 if ax is one else 5])
        clean_axes(ax, title)
        assert ax.get_ylabel() == ACCURACY
    clean_axes(three, "KL to the start (nats a token)")
    assert (three.get_title(loc="left"), three.get_ylabel()) == ("KL to the start", "nats a token")
    four = Figure().subplots()
    clean_axes(four, "loss")
    assert four.get_ylabel() == "loss"
    assert one.get_ylim() == two.get_ylim() != three.get_ylim()
    assert one.get_ylim()[1] > 5


def test_panels_have_one_legend():
    figure = Figure()
    for ax, label in zip(figure.subplots(1, 3), "aab", strict=True):
        ax.plot([1], label=label)
    figure_legend(figure, figure.axes, "note")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
