"""Tables to read in a notebook or a terminal."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..store import Run


class Table:
    """Rows of text under a header, displayed as HTML in a notebook and as text elsewhere."""

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[Any]], caption: str) -> None:
        for row in rows:
            if len(row) != len(header):
                raise ValueError(f"row {row!r} has {len(row)} cells under {len(header)} headings")
        self.header = [str(cell) for cell in header]
        self.rows = [[str(cell) for cell in row] for row in rows]
        self.caption = caption

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {"header": self.header, "rows": self.rows, "caption": self.caption}

    def to_csv(self) -> str:
        """As comma-separated values, the caption left out."""
        import pandas

        return str(pandas.DataFrame(self.rows, columns=self.header).to_csv(index=False))

    def to_markdown(self) -> str:
        """As a Markdown table, the caption below."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        shown = ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines]
        return "\n".join([*shown, "", self.caption])

    def __str__(self) -> str:
        grid = [self.header, *self.rows]
        widths = [max(len(row[i]) for row in grid) for i in range(len(self.header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in grid
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([*lines, "", self.caption])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [[html.escape(cell) for cell in row] for row in self.rows]
        return html_table(self.header, rows, self.caption)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table of cells that are HTML already, as wide as there is room."""
    style = 'style="text-align:left;vertical-align:top;padding:2px 10px 2px 0"'
    head = "".join(f"<th {style}>{html.escape(text)}</th>" for text in header)
    lines = ("".join(f"<td {style}>{cell}</td>" for cell in row) for row in rows)
    return (
        '<div style="overflow-x:auto"><table>'
        f'<caption style="caption-side:bottom;text-align:left">{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}"
        "</tbody></table></div>"
    )


def training_summary(runs: Sequence[Run]) -> Table:
    """Metrics of each run at the start and the end: means of the first and last three steps.

    The caption compares the rise of self-certainty with its spread over the runs.
    """
    rows, rises = [], []
    for run in runs:
        recipe, metrics = run.recipe, run.metrics
        cells = [
            recipe.name,
            "+".join(recipe.rewards),
            recipe.seed,
            f"{run.steps}/{recipe.max_steps}",
            f"{run.seconds:.0f}",
        ]
        for column, digits in (
            ("rewards/self_certainty/mean", 2),
            ("rewards/accuracy/mean", 2),
            ("completions/mean_length", 1),
            ("kl", 3),
        ):
            values = [row[column] for row in metrics if row.get(column) is not None]
            if not values:
                cells.append("-")
                continue
            most = min(3, len(values) // 2) or 1
            first, last = np.mean(values[:most]), np.mean(values[-most:])
            cells.append(f"{first:.{digits}f} -> {last:.{digits}f}")
            if column == "rewards/self_certainty/mean":
                rises.append(last - first)
        rows.append(cells)
    caption = (
        "Training metrics: mean of the first three -> last three steps, of few steps of halves."
    )
    if len(rises) > 1:
        caption += (
            f" Rise of self-certainty: mean {np.mean(rises):.2f} nats, standard deviation over "
            f"{len(rises)} runs {np.std(rises, ddof=1):.2f}."
        )
    header = ["recipe", "reward", "seed", "steps", "s"]
    return Table([*header, "self-certainty", "accuracy", "length", "KL"], rows, caption)
