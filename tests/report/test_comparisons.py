"""Figures that set methods, policies or completions side by side."""

import io

import pytest

from intuitor_lib.report.comparisons import compare_methods, confidence_histograms, token_text
from intuitor_lib.report.intervals import Estimate, mean_over_seeds
from intuitor_lib.report.style import METHODS

ESTIMATE = Estimate(0.5, 0.4, 0.7, 10, 30, trainings=3)
BASE = Estimate(0.2, 0.1, 0.3, 10, 10, trainings=1)


def bars(ax):
    """Ends of the intervals, in order."""
    return [tuple(c.get_segments()[0][:, 0]) for c in ax.collections]


def rows(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_values_and_intervals_are_drawn():
    estimates = {"base": BASE, "base, T = 0.3": BASE, "GRPO": ESTIMATE}
    figure = compare_methods({"accuracy": estimates, "length (tokens)": estimates})
    ax, other = figure.axes
    assert [text.get_text() for text in ax.texts] == ["0.20", "0.20", "0.50"]
    assert bars(ax) == [pytest.approx(e) for e in ((0.1, 0.3), (0.1, 0.3), (0.4, 0.7))]
    assert rows(ax) == ["base", "base, T = 0.3", "GRPO, 3 seeds"]
    assert (ax.get_xlabel(), other.get_xlabel()) == ("share of right answers", "tokens")
    assert ax.get_title(loc="left").split("\n") == ["accuracy", "n = 10 problems"]


def test_methods_are_compared_with_the_first_on_one_scale():
    high = Estimate(0.9, 0.85, 0.95, 12, 12, trainings=1)
    figure = compare_methods(
        {
            "products, held out": {"base": BASE, "INTUITOR": ESTIMATE},
            "sums": {"base": BASE, "INTUITOR": ESTIMATE, "EM": high},
        }
    )
    first, second = figure.axes
    assert rows(first) == ["base", "INTUITOR, 3 seeds", "EM, 1 seed"]
    assert first.get_xlim() == second.get_xlim()
    assert first.get_xlim()[1] > 0.95
    assert first.lines[-1].get_linestyle() == "--"
    assert set(first.lines[-1].get_xdata()) == {BASE.value}
    assert second.get_title(loc="left").split("\n") == ["sums", "n = 10 to 12 problems"]
    colors = [line.get_color().upper() for line in second.lines if line.get_marker() in "dov"]
    assert colors == [METHODS[name]["color"] for name in ("base", "INTUITOR", "EM")]


def test_differences_stand_beside_zero():
    (ax,) = compare_methods({"sums, less base": {"INTUITOR": ESTIMATE}}, differences=True).axes
    assert set(ax.lines[-1].get_xdata()) == {0.0}
    assert ax.get_xlabel() == "difference in accuracy"


def test_all_wrong_is_drawn_with_an_interval():
    none = mean_over_seeds([[{"id": i, "correct": False} for i in range(20)]], "correct")
    ((low, high),) = bars(compare_methods({"sums": {"base": none}}).axes[0])
    assert low == 0
    assert high == pytest.approx(0.161, abs=0.001)


def test_histograms_say_how_many():
    figure = confidence_histograms({"a → b": ([1.0, 2.0], [0.5], "r = 1"), "c": ([], [9.0], "")})
    one, two = figure.axes
    legend = [t.get_text() for t in one.get_legend().get_texts()]
    assert legend == ["wrong, 1 completion", "right, 2 completions"]
    assert one.get_title(loc="left") == "a → b\nr = 1"
    assert (one.get_xlim(), one.get_ylim()) == (two.get_xlim(), two.get_ylim())
    heights = [patch.get_height() for patch in one.patches]
    assert sum(heights) == pytest.approx(2)  # each kind to 1


def test_a_long_prompt_is_wrapped_and_kept():
    prompt = "A farmer has 31 baskets with 4 eggs each, and sells 17 eggs. " * 4
    figure = token_text([(prompt, ["95"], [1.0])], width=40)
    heading = [t.get_text() for t in figure.axes[0].texts if t.get_fontweight() == "bold"]
    assert len(heading) > 4
    assert max(map(len, heading)) <= 40
    assert " ".join(heading) == prompt.strip()


def test_tokens_become_text_with_a_scale():
    examples = [("right: $x$", ["The", " an$wer", "\n", "7"], [1.0, 2.0, 3.0, 4.0])]
    figure = token_text(examples, width=12)
    text = "".join(t.get_text() for t in figure.axes[0].texts)
    assert text == "right: $x$The an$wer↵7"
    assert figure.axes[1].get_ylabel() == "self-certainty (nats)"
    figure.savefig(io.BytesIO(), format="png")
