"""Figures: pure functions of tables, with labelled axes and the numbers they were given."""

import io

import numpy as np
import pytest

from intuitor_lib.figures import METHODS, before_after, moving_average, training_curves
from intuitor_lib.intervals import Estimate

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


def test_before_after_draws_values_and_intervals():
    estimates = {
        "before": Estimate(0.2, 0.1, 0.3, 10, 10),
        "after": Estimate(0.5, 0.4, 0.7, 10, 10),
    }
    figure = before_after({"accuracy": estimates, "length": estimates})
    assert len(figure.axes) == 2
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.2", "0.5"]
    segments = [c.get_segments() for c in figure.axes[0].collections]
    assert segments[1][0][:, 1] == pytest.approx([0.4, 0.7])


def test_they_render():
    for figure in (training_curves({"a": ROWS}), training_curves({"a": []})):
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        assert stream.getvalue().startswith(b"\x89PNG")


def test_a_collapse_is_marked_where_it_rang_first():
    rows = [{"step": i, "kl": 0.1 * i, "entropy": 1.0} for i in range(1, 7)]
    for row in rows[3:]:
        row["collapse"] = ["kl"] if row["step"] < 6 else ["kl", "entropy"]
    figure = training_curves({"INTUITOR": rows, "random": rows[:3]})
    for ax in figure.axes:
        marks = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
        assert [x for x in marks if x in (4, 6)] == [4, 6]
    texts = [text.get_text().strip() for text in figure.axes[0].texts]
    assert [text for text in texts if text != "not recorded"] == ["kl", "entropy"]
