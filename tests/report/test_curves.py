"""Figures over training steps, with labelled axes and the numbers they were given."""

import io

import numpy as np
import pytest

from intuitor_lib.report.curves import (
    estimates_over,
    first_alarms,
    moving_average,
    seed_curves,
    training_curves,
)
from intuitor_lib.report.intervals import Estimate
from intuitor_lib.report.style import METHODS

ROWS = [
    {
        "step": step,
        "rewards/self_certainty/mean": 9 + step,
        "rewards/accuracy/mean": 0.1 * step,
        "completions/mean_length": 20 - step,
        "kl": 0.01 * step,
    }
    for step in range(1, 6)
]


def test_moving_average_by_hand():
    assert moving_average([1, 2, 3, 4], 2) == pytest.approx([1, 1.5, 2.5, 3.5])
    assert moving_average([5.0], 10) == pytest.approx([5.0])


def test_curves_show_what_was_recorded():
    figure = training_curves({"INTUITOR": ROWS, "GRPO": ROWS[:3]}, window=1)
    panels = {ax.get_title(loc="left"): ax for ax in figure.axes}
    assert any("nats" in title for title in panels)
    assert any("tokens" in title for title in panels)
    certainty = panels["self-certainty (nats)"]
    raw, mean = certainty.lines[:2]
    np.testing.assert_array_equal(raw.get_ydata(), [10, 11, 12, 13, 14])
    assert raw.get_alpha() < 1
    assert mean.get_color() == METHODS["INTUITOR"]["color"]
    assert {line.get_linestyle() for line in certainty.lines[1::2]} == {"-", "--"}
    assert figure.axes[-1].get_xlabel() == "training step"


def test_a_missing_column_is_said():
    rows = [{k: v for k, v in row.items() if "accuracy" not in k} for row in ROWS]
    figure = training_curves({"run": rows})
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert texts == ["not recorded"]


def test_they_render():
    for figure in (training_curves({"a": ROWS}), training_curves({"a": []})):
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        assert stream.getvalue().startswith(b"\x89PNG")


def test_a_collapse_is_marked_where_it_rang_first():
    rows = [{"step": i, "kl": 0.1 * i, "entropy": 1.0} for i in range(1, 7)]
    for row in rows[3:]:
        row["collapse"] = ["kl"] if row["step"] < 6 else ["kl", "entropy"]
    assert first_alarms(rows) == {"kl": 4, "entropy": 6}
    figure = training_curves({"INTUITOR": rows, "random": rows[:3]})
    for ax in figure.axes:
        marks = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
        assert [x for x in marks if x in (4, 6)] == [4, 6]
    texts = [text.get_text().strip() for text in figure.axes[0].texts]
    assert [text for text in texts if text != "not recorded"] == ["kl", "entropy"]


def test_seed_curves_show_each_seed_and_their_mean():
    other = [{**row, "kl": 3 * row["kl"]} for row in ROWS]
    figure = seed_curves({"INTUITOR": [ROWS, other], "GRPO": [ROWS]}, {"kl": "KL"}, window=1)
    (ax,) = (ax for ax in figure.axes if ax.axison)
    first, second, mean = ax.lines[:3]
    np.testing.assert_allclose(first.get_ydata(), [0.01, 0.02, 0.03, 0.04, 0.05])
    np.testing.assert_allclose(mean.get_ydata(), [0.02, 0.04, 0.06, 0.08, 0.10])
    assert second.get_alpha() < 1
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["INTUITOR (2)", "GRPO"]


def test_seed_curves_of_what_is_measured_now_and_then():
    sparse = [row | ({"held": row["step"] / 10} if row["step"] % 2 == 0 else {}) for row in ROWS]
    figure = seed_curves({"GRPO": [sparse]}, {"held": "held out"})
    np.testing.assert_array_equal(figure.axes[0].lines[-1].get_xdata(), [2, 4])
    np.testing.assert_allclose(figure.axes[0].lines[-1].get_ydata(), [0.2, 0.4])  # no average
    assert figure.axes[0].lines[-1].get_marker() == METHODS["GRPO"]["marker"]


def test_the_mean_ends_where_a_seed_ends():
    figure = seed_curves({"GRPO": [ROWS, ROWS[:3]]}, {"kl": "KL"})
    np.testing.assert_array_equal(figure.axes[0].lines[-1].get_xdata(), [1, 2, 3])


ESTIMATE = Estimate(0.5, 0.4, 0.7, 10, 10)


def test_estimates_over_steps():
    lines = {"GRPO": {0: ESTIMATE, 8: ESTIMATE}, "INTUITOR": {0: ESTIMATE, 8: ESTIMATE}}
    figure = estimates_over({"accuracy": lines})
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "8"]
    xs = [container.lines[0].get_xdata()[0] for container in ax.containers]
    assert xs[0] < 0 < xs[1]  # beside each other
    assert estimates_over({"a": lines}, log=True).axes[0].get_xscale() == "log"
