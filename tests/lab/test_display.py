"""HTML and figures that stand in for widgets, and whether a person is there."""

import base64
import re
from types import SimpleNamespace

import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from intuitor_lib.lab import display
from intuitor_lib.report.style import is_dark

ROWS = [
    {"step": 1, "problem": "a", "prompt": "p", "completion": "<b>1</b>", "tokens": 2},
    {"step": 1, "problem": "a", "prompt": "p", "completion": "two", "tokens": 3},
]


def rows(**columns):
    return [
        {**row, **{name: values[i] for name, values in columns.items()}}
        for i, row in enumerate(ROWS)
    ]


@pytest.mark.parametrize(
    ("kernel", "there"),
    [
        (None, False),
        (SimpleNamespace(get_parent=lambda channel: {}), False),
        (SimpleNamespace(get_parent=lambda _: {"content": {"allow_stdin": False}}), False),
        (SimpleNamespace(get_parent=lambda _: {"content": {"allow_stdin": True}}), True),
    ],
)
def test_a_person_is_there_if_the_front_end_can_be_asked(kernel, there, monkeypatch):
    shell = SimpleNamespace(kernel=kernel) if kernel else None
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    assert display.person_there() is there


def test_a_reader_without_widgets_gets_the_html():
    class Widget:
        def _repr_mimebundle_(self, **kwargs):
            return {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}

    assert display.bundle("<p>static</p>")["text/html"] == "<p>static</p>"
    both = display.bundle("<p>static</p>", Widget())
    assert both["application/vnd.jupyter.widget-view+json"] == {"model_id": "x"}
    assert both["text/html"] == "<p>static</p>"


def test_without_widgets_a_figure_is_an_output_of_its_own(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    figure = Figure(figsize=(1, 1))
    display.show(["<p>a</p>", figure])
    assert [set(data) - {"text/plain"} for data in shown] == [{"text/html"}, {"image/png"}]
    assert base64.b64decode(shown[1]["image/png"]).startswith(b"\x89PNG")
    assert display.join(["<p>a</p>", figure]).startswith('<p>a</p><img alt="figure"')


def test_tokens_are_darker_where_they_are_surer_and_their_text_is_no_markup():
    text = display.tokens_html(["<b>", "\n", "x"], [0.0, 5.0, 10.0], (0.0, 10.0))
    colors = re.findall(r"background:(#\w+);color:(\w+)", text)
    brightness = [sum(to_rgb(color)) for color, _ in colors]
    assert brightness == sorted(brightness, reverse=True)
    assert (colors[0][1], colors[-1][1]) == ("black", "white")
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert 'title="5.00 nats"' in text


def test_white_is_not_dark():
    assert is_dark((0.0, 0.2, 0.4))
    assert not is_dark((1.0, 1.0, 1.0, 1.0))


def test_the_most_rewarded_completion_stands_first():
    made = rows(self_certainty=[9.0, 12.0], accuracy=[1.0, 0.0], advantage=[0.7, -0.7])
    text = display.completions_html(made)
    assert text.index("&lt;b&gt;1") < text.index("two")
    assert "+0.70" in text
    assert "✓ right" in text
    assert re.findall(r"<th[^>]*>([^<]+)<", text) == [
        *("self-certainty (nats)", "right", "advantage", "tokens", "completion")
    ]


def test_runs_from_before_advantages_were_recorded_are_shown_by_certainty():
    text = display.completions_html(rows(self_certainty=[9.0, 12.0]))
    assert text.index("two") < text.index("&lt;b&gt;1")
    assert ">-<" in text
