"""What a notebook leaves behind: a small record of its numbers, and tables to read.

A record names profile, model, data and sample sizes beside every number, so no figure of a small
model or a stand-in can be read as a figure of the paper.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .files import write_text
from .intervals import summarize
from .runs import Run, RunStore, environment

__all__ = [
    "Table",
    "load_record",
    "record_path",
    "save_record",
    "token_html",
    "training_summary",
]


class Table:
    """Rows of text under a header; shows itself as HTML in a notebook, as text elsewhere."""

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
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([self.header, *self.rows])
        return stream.getvalue()

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
        def cells(row: Sequence[str], tag: str) -> str:
            style = "text-align:left;padding:2px 12px 2px 0"
            return "".join(f'<{tag} style="{style}">{html.escape(c)}</{tag}>' for c in row)

        body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in self.rows)
        return (
            f"<table><caption style='caption-side:bottom;text-align:left'>"
            f"{html.escape(self.caption)}</caption>"
            f"<thead><tr>{cells(self.header, 'th')}</tr></thead><tbody>{body}</tbody></table>"
        )


def token_html(
    examples: Sequence[tuple[str, Sequence[str], Sequence[float]]], unit: str = "nats"
) -> str:
    """Completions as HTML, each token shaded by its value, which a pointer over it shows.

    Args:
        examples: heading, tokens and values of each completion.
        unit: of the values.
    """
    values = [v for _, _, own in examples for v in own]
    low, high = min(values, default=0.0), max(values, default=1.0)
    parts = []
    for heading, tokens, own in examples:
        spans = []
        for token, value in zip(tokens, own, strict=True):
            depth = (value - low) / (high - low) if high > low else 0.5
            style = f"background:rgba(0,114,178,{0.05 + 0.6 * depth:.2f})"
            text = html.escape(token.replace("\n", "↵")) or "∅"
            spans.append(f'<span style="{style}" title="{value:.2f} {unit}">{text}</span>')
        parts.append(f"<p><b>{html.escape(heading)}</b><br>{''.join(spans)}</p>")
    return (
        '<div style="font-family:monospace;white-space:pre-wrap;line-height:1.6">'
        + "".join(parts)
        + "</div>"
    )


def record_path(notebook: str, profile: str, runs: str | Path | None = None) -> Path:
    """Where the record of a notebook under a profile lies in the run store."""
    return RunStore(runs).root / "records" / f"{notebook}-{profile}.json"


def save_record(
    notebook: str,
    profile: str,
    *,
    table: Table,
    values: Mapping[str, Any],
    runs: str | Path | None = None,
) -> Path:
    """Store the numbers of an executed notebook: its table, and `values` for programs.

    Raises:
        ValueError: a value that is not finite JSON.
    """
    content = {
        "notebook": notebook,
        "profile": profile,
        "environment": environment(),
        "table": table.to_dict(),
        "values": dict(values),
    }
    path = record_path(notebook, profile, runs)
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path


def load_record(notebook: str, profile: str, runs: str | Path | None = None) -> dict[str, Any]:
    """The stored record.

    Raises:
        KeyError: the notebook has not been executed under this profile.
    """
    path = record_path(notebook, profile, runs)
    if not path.is_file():
        raise KeyError(
            f"no record of {notebook} under {profile}: run `intuitor reproduce {notebook} "
            f"--profile {profile}`"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def training_summary(runs: Sequence[Run]) -> Table:
    """What training did, a row per run: the mean of the first three and of the last three steps.

    Held-out accuracy stands beside it where a notebook has measured it on the run. The caption
    sets the rise of self-certainty against its spread over the runs.
    """
    rows, rises = [], []
    for run in runs:
        recipe, metrics = run.recipe, run.metrics
        rewards = "+".join(recipe.rewards)
        cells = [
            recipe.name,
            rewards,
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
            first, last = np.mean(values[:3]), np.mean(values[-3:])
            cells.append(f"{first:.{digits}f} -> {last:.{digits}f}")
            if column == "rewards/self_certainty/mean":
                rises.append(last - first)
        rows.append([*cells, *_held_out(run)])
    caption = "Training metrics: mean of the first three -> last three steps."
    if len(rises) > 1:
        caption += (
            f" Rise of self-certainty: mean {np.mean(rises):.2f} nats, standard deviation over "
            f"{len(rises)} runs {np.std(rises, ddof=1):.2f}."
        )
    header = [
        "recipe",
        "reward",
        "seed",
        "steps",
        "s",
        "self-certainty",
        "accuracy",
        "length",
        "KL",
    ]
    return Table([*header, "held out, sampled", "held out, greedy"], rows, caption)


def _held_out(run: Run) -> list[str]:
    """Accuracy before -> after of the tables that `00_quickstart` leaves in a run."""
    cells = []
    for way in ("sampled", "greedy"):
        values = []
        for when in ("base", "after"):
            files = sorted((run.path / "tables").glob(f"{when}-{way}-*.jsonl"))
            if files:
                accuracy = summarize(run.table(files[-1].stem)).get("accuracy")
                values.append(accuracy.text() if accuracy else "-")
        cells.append(" -> ".join(values) or "-")
    return cells
