"""Widgets with a static form: what GitHub, HTML and a batch show in their place."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from IPython.core.formatters import DisplayFormatter
from matplotlib import colormaps
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure

from ..recipe import REWARDS
from ..report.style import CERTAINTY, is_dark
from ..report.tables import html_table

_TITLES = {"self_certainty": "self-certainty (nats)", "accuracy": "right"}


def person_there() -> bool:
    """Whether a person sits at the notebook: a front end that can be asked for input runs the cell.

    papermill, nbconvert and scripts cannot be asked.
    """
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    request: Mapping[str, Any] = kernel.get_parent("shell") if kernel else {}
    return bool(request.get("content", {}).get("allow_stdin", False))


def show(parts: Sequence[str | Figure], widget: Any = None) -> Any:
    """Display HTML and figures one below the other; the display handle of the last.

    With a widget, it is displayed, and the parts are what readers without widgets see.
    """
    from IPython.display import display

    if widget is not None:
        return display(bundle(join(parts), widget), raw=True, display_id=True)
    handles = [display(bundle(part), raw=True, display_id=True) for part in parts]
    return handles[-1]


def bundle(part: str | Figure, widget: Any = None) -> dict[str, Any]:
    """The forms of an output by MIME type, of which a reader takes the richest that it knows."""
    view = {} if widget is None else DisplayFormatter().format(widget)[0]
    if isinstance(part, Figure):
        return {"image/png": base64.b64encode(image(part)).decode(), "text/plain": "(a figure)"}
    return {**view, "text/html": part, "text/plain": "(HTML)"}


def join(parts: Sequence[str | Figure]) -> str:
    """HTML and figures as one text of HTML."""
    return "".join(part if isinstance(part, str) else _image_html(part) for part in parts)


def image(figure: Figure) -> bytes:
    """A figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90)
    return file.getvalue()


def _image_html(figure: Figure) -> str:
    data = base64.b64encode(image(figure)).decode()
    return f'<img alt="figure" style="max-width:100%" src="data:image/png;base64,{data}">'


def tokens_html(tokens: Sequence[str], values: Sequence[float], limits: tuple[float, float]) -> str:
    """A completion as HTML, each token on a background of its self-certainty (nats); dark is sure.

    `limits` are the values of the palest and the darkest colour.
    """
    scale, colors = Normalize(*limits, clip=True), colormaps[CERTAINTY]
    parts = []
    for token, value in zip(tokens, values, strict=True):
        color = colors(scale(value))
        ink = "white" if is_dark(color) else "black"
        style = f"background:{to_hex(color)};color:{ink}"
        text = html.escape(token).replace("\n", "⏎\n")
        parts.append(f'<span title="{value:.2f} nats" style="{style}">{text}</span>')
    return f'<span style="white-space:pre-wrap;font-family:monospace">{"".join(parts)}</span>'


def scale_html(limits: tuple[float, float]) -> str:
    """The colour scale of `tokens_html` as a bar with its ends."""
    colors = colormaps[CERTAINTY]
    stops = ", ".join(to_hex(colors(i / 4)) for i in range(5))
    bar = f"display:inline-block;width:9em;height:1ex;background:linear-gradient(90deg, {stops})"
    low, high = (f"{limit:.1f}" for limit in limits)
    return (
        f'<small>self-certainty of a token: {low} <span style="{bar}"></span> {high} nats</small>'
    )


def completions_html(rows: Sequence[Mapping[str, Any]], texts: Sequence[str] | None = None) -> str:
    """A group's completions as HTML, the most rewarded first.

    Args:
        rows: completions as a run records them.
        texts: their texts as HTML, if it is not their plain text.
    """
    texts = texts or [text_html(row["completion"]) for row in rows]
    rewards = [name for name in rows[0] if name in REWARDS]
    header = [*(_TITLES.get(name, name) for name in rewards), "advantage", "tokens", "completion"]
    order = sorted(range(len(rows)), key=lambda i: -_rank(rows[i]))
    cells = []
    for row, text in ((rows[i], texts[i]) for i in order):
        numbers = [_number(name, row.get(name)) for name in rewards]
        cells.append([*numbers, _signed(row.get("advantage")), str(row["tokens"]), text])
    return html_table(header, cells)


def _rank(row: Mapping[str, Any]) -> float:
    value = row.get("advantage")
    return row.get("self_certainty") or 0.0 if value is None else value


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return ("✗ wrong", "✓ right")[value == 1] if name == "accuracy" else f"{value:.3g}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def text_html(text: str) -> str:
    """Text as HTML with its lines and spaces; a long one scrolls."""
    style = "white-space:pre-wrap;font-family:monospace;max-height:14em;overflow-y:auto"
    return f'<div style="{style}">{html.escape(text)}</div>'
