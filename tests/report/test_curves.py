"""Figures over training steps, with labelled axes and the numbers they were given."""

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from intuitor_lib.report.curves import estimates_over, first_alarms, seed_curves, training_curves
from intuitor_lib.report.intervals import Estimate, proportion
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
    rows = [{"step": step, "kl": float(step)} for step in range(1, 30)]
    figure = seed_curves({"a": [rows], "b": [rows[18:20]]}, {"kl": "KL (nats)"})
    line, short = (line.get_ydata() for line in figure.axes[0].lines)
    assert line[:4] == pytest.approx([1, 1.5, 2.5, 3.5])  # a tenth of the run is two steps
    assert short == pytest.approx([19, 19.5])


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_curves_show_what_was_recorded():
    figure = training_curves({"INTUITOR": ROWS, "GRPO": ROWS[:3]})
    panels = {ax.get_title(loc="left"): ax for ax in figure.axes}
    assert panels["completion length"].get_ylabel() == "tokens"
    certainty = panels["self-certainty"]
    assert certainty.get_ylabel() == "nats"
    line, other = certainty.lines
    np.testing.assert_array_equal(line.get_ydata(), [10, 11, 12, 13, 14])
    assert len(other.get_xdata()) == 3
    assert not certainty.collections  # no band of one seed
    for drawn, method in ((line, "INTUITOR"), (other, "GRPO")):
        assert to_hex(drawn.get_color()) == METHODS[method]["color"].lower()
        assert drawn.get_marker() == METHODS[method]["marker"]
    assert legend(figure) == ["INTUITOR, 1 seed", "GRPO, 1 seed"]
    assert {ax.get_xlabel() for ax in figure.axes} == {"training step"}
    assert len({ax.get_xlim() for ax in figure.axes}) == 1


def test_a_missing_column_is_said():
    rows = [{k: v for k, v in row.items() if "accuracy" not in k} for row in ROWS]
    figure = training_curves({"GRPO": rows})
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert texts == ["not recorded"]


def test_they_render():
    for figure in (training_curves({"a": ROWS}), training_curves({"a": []})):
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        assert stream.getvalue().startswith(b"\x89PNG")


def alarmed(**steps):
    """Rows of 24 steps whose alarms begin at these steps."""
    return [
        {"step": i, "kl": 0.1, "collapse": [name for name, step in steps.items() if step <= i]}
        for i in range(1, 25)
    ]


def strip(figure):
    """The axes of the alarms, its ticks (row, step) and its texts (row, step, text)."""
    ax = next(ax for ax in figure.axes if "alarms" in ax.get_title(loc="left"))
    ticks = {(line.get_ydata()[0], line.get_xdata()[0]) for line in ax.lines}
    return ax, ticks, [(text.xy[1], text.xy[0], text.get_text()) for text in ax.texts]


def test_a_collapse_is_a_labelled_tick_below_the_curves():
    rows = alarmed(kl=4, entropy=16)
    assert first_alarms(rows) == {"kl": 4, "entropy": 16}
    figure = training_curves({"INTUITOR": rows, "random": alarmed(repetition=9), "GRPO": ROWS})
    ax, ticks, texts = strip(figure)
    assert texts == [(0, 4, "KL divergence"), (0, 16, "low entropy"), (1, 9, "repetition")]
    assert ticks == {(0, 4), (0, 16), (1, 9)}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["INTUITOR", "random"]
    assert ax.get_xlabel() == "training step"
    assert all(len(other.lines) <= 3 for other in figure.axes if other is not ax)
    quiet = training_curves({"GRPO": ROWS})
    assert not any("alarms" in ax.get_title(loc="left") for ax in quiet.axes)


def test_alarms_of_seeds_are_counted_from_the_first():
    seeds = [alarmed(kl=9), alarmed(kl=6, accuracy=20), alarmed()]
    _, _, texts = strip(seed_curves({"GRPO": seeds}, {"kl": "KL (nats)", "x": "x"}))
    assert texts == [
        (0, 6, "KL divergence, 2 of 3 seeds"),
        (0, 20, "falling accuracy, 1 of 3 seeds"),
    ]


@pytest.mark.parametrize("steps", [(5, 6, 13), (1, 2, 3), (22, 23, 24), (24, 24, 24)])
def test_texts_of_alarms_do_not_cover_each_other(steps):
    names = ("same completions", "short completions", "repetition")
    rows = alarmed(**dict(zip(names, steps, strict=True)))
    runs = dict.fromkeys(("GRPO", "INTUITOR", "random", "GRPO-PV"), [rows] * 3)
    figure = seed_curves(runs, {"kl": "KL (nats)", "x": "x"})
    figure.draw_without_rendering()
    ax, _, texts = strip(figure)
    assert len(texts) == 12
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    frame = ax.bbox
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_seeds_are_a_band_around_their_mean():
    others = [[{**row, "kl": factor * row["kl"]} for row in ROWS] for factor in (3, 8)]
    figure = seed_curves({"INTUITOR": [ROWS, *others], "GRPO": [ROWS]}, {"kl": "KL (nats)"})
    ax = figure.axes[0]
    mean, single = ax.lines
    np.testing.assert_allclose(mean.get_ydata(), [0.04, 0.08, 0.12, 0.16, 0.20])
    np.testing.assert_allclose(single.get_ydata(), [0.01, 0.02, 0.03, 0.04, 0.05])
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    for step in range(1, 6):
        heights = corners[corners[:, 0] == step][:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((0.01 * step, 0.08 * step))
    assert legend(figure) == ["INTUITOR, 3 seeds", "GRPO, 1 seed"]
    assert "band: lowest to highest seed" in figure.legends[0].get_title().get_text()


def test_steps_that_a_seed_lacks_have_the_mean_of_the_others():
    other = [{**row, "kl": 3 * row["kl"]} for row in ROWS[:3]]
    ax = seed_curves({"GRPO": [ROWS, other]}, {"kl": "KL (nats)"}).axes[0]
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 3, 4, 5])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.02, 0.04, 0.06, 0.04, 0.05])
    corners = ax.collections[0].get_paths()[0].vertices
    assert set(corners[corners[:, 0] == 5][:, 1]) == {0.05}


def test_what_is_averaged_is_said():
    rows = [{"step": i, "kl": float(i)} for i in range(1, 41)]
    figure = seed_curves({"GRPO": [rows]}, {"kl": "KL (nats)"})
    assert figure.axes[0].lines[0].get_ydata()[-1] == pytest.approx(38.5)
    assert figure.legends[0].get_title().get_text() == "moving average over 4 steps"
    figure = seed_curves({"GRPO": [rows], "INTUITOR": [rows[:16]]}, {"kl": "KL (nats)"})
    assert figure.axes[0].lines[1].get_ydata()[-1] == 16  # a tenth of its own length: one step
    assert figure.legends[0].get_title().get_text() == "moving average over 1 or 4 steps"


def test_held_out_accuracies_have_intervals_over_problems():
    rows = [
        r | ({"held_out/accuracy": 0.0, "held_out/n": 30} if r["step"] % 2 else {}) for r in ROWS
    ]
    figure = seed_curves(
        {"GRPO": [rows], "EM": [rows]}, {"held_out/accuracy": "accuracy, held out"}
    )
    ax = figure.axes[0]
    assert ax.get_title(loc="left").split("\n") == ["accuracy, held out", "n = 30 problems"]
    assert ax.get_ylabel() == "share of right answers"
    bars = [np.array(c.get_segments()) for c in ax.collections]
    assert len(bars) == 2
    assert bars[0][:, 1, 1] == pytest.approx([proportion(0, 30).high] * 3)
    assert not set(bars[0][:, 0, 0]) & set(bars[1][:, 0, 0])  # beside each other
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0, 0, 0])  # not averaged


ESTIMATE = Estimate(0.5, 0.4, 0.7, 10, 10, trainings=3)


def test_estimates_over_steps():
    base = replace(ESTIMATE, trainings=1)  # not trained yet: no seeds
    lines = {"GRPO": {0: base, 8: ESTIMATE}, "INTUITOR": {0: base, 8: ESTIMATE}}
    figure = estimates_over({"accuracy, sums": lines, "accuracy, products": lines})
    ax = figure.axes[0]
    assert ax.get_title(loc="left").split("\n") == ["accuracy, sums", "n = 10 problems"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("training step", "share of right answers")
    assert ax.get_ylim() == figure.axes[1].get_ylim()
    assert legend(figure) == ["GRPO, 3 seeds", "INTUITOR, 3 seeds"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "8"]
    xs = [container.lines[0].get_xdata()[0] for container in ax.containers]
    assert xs[0] < 0 < xs[1]  # beside each other
    lines = {label: {8: ESTIMATE} for label in lines}
    ax = estimates_over({"a": lines}, log=True).axes[0]
    assert ax.get_xscale() == "log"
    xs = [container.lines[0].get_xdata()[0] for container in ax.containers]
    assert xs[0] < 8 < xs[1]
