"""Figures that set methods, policies or completions side by side."""

import io

import pytest

from intuitor_lib.report.comparisons import (
    before_after,
    compare_methods,
    confidence_histograms,
    shares,
    token_text,
)
from intuitor_lib.report.intervals import Estimate


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


ESTIMATE = Estimate(0.5, 0.4, 0.7, 10, 10)


def test_methods_are_compared_with_the_first():
    figure = compare_methods({"accuracy": {"base": ESTIMATE, "INTUITOR": ESTIMATE}})
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["base", "INTUITOR"]
    assert ax.lines[-1].get_linestyle() == "--"


def test_histograms_say_how_many():
    figure = confidence_histograms({"a → b": ([1.0, 2.0], [0.5], "r = 1"), "c": ([], [1.0], "")})
    legend = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert legend == ["wrong (1)", "right (2)"]
    assert figure.axes[0].get_title(loc="left") == "a → b\nr = 1"


def test_shares_are_stacked_to_one():
    bars = {"0": {"no": 0.75, "yes": 0.25}, "8": {"yes": 1.0}}
    ax = shares({"policy": bars}).axes[0]
    tops = {}
    for patch in ax.patches:
        tops[round(patch.get_x(), 2)] = patch.get_y() + patch.get_height()
    assert set(tops.values()) == {1.0}


def test_tokens_become_text_with_a_scale():
    examples = [("right: $x$", ["The", " an$wer", "\n", "7"], [1.0, 2.0, 3.0, 4.0])]
    figure = token_text(examples, width=8)
    text = "".join(t.get_text() for t in figure.axes[0].texts)
    assert text == "right: $x$The an$wer↵7"
    assert figure.axes[1].get_ylabel() == "self-certainty (nats)"
    figure.savefig(io.BytesIO(), format="png")
