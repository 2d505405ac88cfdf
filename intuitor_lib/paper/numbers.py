"""The paper's numbers (arXiv 2505.19590v2), each with its table or figure, and its claims.

Accuracies are shares; AlpacaEval is a length-controlled win rate in percent. A figure has its
finding, and only the numbers that the paper prints in it. They are kept in `numbers.yaml`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..recipe.constants import read_yaml


@dataclass(frozen=True)
class PaperTable:
    """A table: its rows by label, one value per column."""

    id: str
    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]

    def value(self, row: str, column: str) -> float:
        """One cell."""
        if row not in self.rows or column not in self.columns:
            raise KeyError(
                f"{self.id} has no cell {row!r}, {column!r}: its rows are {', '.join(self.rows)}, "
                f"its columns {', '.join(self.columns)}"
            )
        return self.rows[row][self.columns.index(column)]

    def cells(self) -> Iterator[tuple[str, str, float]]:
        """Row, column and value of every cell."""
        for row, values in self.rows.items():
            for column, value in zip(self.columns, values, strict=True):
                yield row, column, value


@dataclass(frozen=True)
class Claim:
    """A claim of the paper that can be checked: its place and the finding there."""

    id: str
    text: str
    where: str
    found: str


def _id(title: str) -> str:
    """`Table 1: main results` is `table-1`."""
    return title.partition(":")[0].lower().replace(" ", "-")


def _table(entry: Mapping[str, Any]) -> PaperTable:
    title, columns = entry["title"], tuple(entry["columns"])
    rows = {label: tuple(map(float, values)) for label, values in entry["rows"].items()}
    return PaperTable(_id(title), title, columns, rows)


_NUMBERS = read_yaml(__file__, "numbers.yaml")

TABLES: Mapping[str, PaperTable] = {table.id: table for table in map(_table, _NUMBERS["tables"])}
"""Tables 1 to 6 by id. Table 7, the training settings, is `TRAINING`."""

FIGURES: Mapping[str, Mapping[str, Any]] = {
    _id(figure["title"]): figure for figure in _NUMBERS["figures"]
}
"""Figures 3 to 12 by id, with `title`, `finding` and what is `printed`; 1 and 2 draw the method."""

TRAINING: Mapping[str, Mapping[str, Any]] = _NUMBERS["training"]
"""Table 7, by column, under the names of `Recipe`'s settings."""

CHECKPOINTS: Mapping[str, Mapping[str, str]] = _NUMBERS["checkpoints"]
"""Models on the Hugging Face hub by row of the tables: the authors' and their bases.

Each has its `model` and the `system_prompt` of its mathematics, a name of `SYSTEM_PROMPTS`.
"""

CLAIMS: tuple[Claim, ...] = tuple(Claim(**claim) for claim in _NUMBERS["claims"])
"""The claims that can be checked; the replication summary has a verdict on each."""
