"""Write the tables of the committed records, and a figure, into README.md and docs/.

    python tests/write_tables.py

A block stands between `<!-- NAME -->` and `<!-- /NAME -->`; `tests/test_docs.py` holds it to the
records. The figure is the one in the committed notebook 02.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from intuitor_lib.paper import claims_table, questions_table, verdicts_table
from intuitor_lib.paper.beyond import in_words
from intuitor_lib.paper.comparison import answers_of, every_record, in_short, is_on_cpu
from intuitor_lib.paper.verdicts import VERDICTS, question_text
from intuitor_lib.report import Table
from intuitor_lib.report.style import counted
from intuitor_lib.store import project_root

FIGURE = "docs/contrasts.png"
FRONT = (
    *("gain", "online", "close", "answers", "coin", "vote-gain", "harder", "sums", "solvable"),
    *("reasoning", "em", "unquantized"),
)
"""The questions that README answers."""

NOT_YET = "No run at `cpu` is on record yet."

FOUND = {
    "holds": {"gain", "yes"},  # what is higher than the base alone has no control
    "undecided": {"undecided"},
    "mixed": {*VERDICTS} - {"not tested here"},
}
"""Blocks of docs/findings.md: a question is in the first one that has all of its verdicts."""


Records = Sequence[Mapping[str, Any]]


def findings(records: Records, verdicts: set[str]) -> str:
    """A line for each question whose answers have these verdicts, with a link to its notebook."""
    where = {
        id(entry): record["notebook"]
        for record in records
        for entry in record["values"].get("answers", ())
    }
    asked: dict[str, list[Mapping[str, Any]]] = {}
    for entry in answers_of(records, is_on_cpu):
        asked.setdefault(entry["question"], []).append(entry)
    lines = []
    for entries in asked.values():
        said = {entry["verdict"] for entry in entries}
        if next((own for own in FOUND.values() if said <= own), None) is verdicts:
            names = sorted({where[id(entry)] for entry in entries})
            links = ", ".join(f"[{name[:2]}](../notebooks/{name}.ipynb)" for name in names)
            count = counted({len(entry["seeds"]) for entry in entries}, "seed")
            told = "; ".join(map(in_short, entries))
            lines.append(f"- {question_text(entries[0])} {told} ({count}; {links}).")
    return "\n".join(lines) or "Nothing so far."


def at_cpu(records: Records, name: str) -> Mapping[str, Any] | None:
    """The record of a notebook at the profile `cpu`."""
    asked = (name, "cpu")
    return next((r for r in records if (r["notebook"], r["profile"]) == asked), None)


def families(records: Records) -> str:
    """What notebook 12 found, and whether the base foretells it."""
    record = at_cpu(records, "12_when_does_it_work")
    if record is None:
        return NOT_YET
    rule = record["values"]["rule"]
    told = "\n\n" + in_words(rule) if rule else ""
    return Table(**record["table"]).to_markdown() + told


def stopping(records: Records) -> str:
    """How close each rule of notebook 11 stops to the best snapshot, on each ground."""
    record = at_cpu(records, "11_mixed_rewards")
    if record is None:
        return NOT_YET
    grounds = record["values"]["stopping"].items()
    return "\n\n".join(f"On {name}:\n\n{Table(**rules).to_markdown()}" for name, rules in grounds)


def blocks(records: Records) -> dict[str, dict[str, str]]:
    """The text of every block by page and name."""
    quickstart, text = at_cpu(records, "00_quickstart"), NOT_YET
    if quickstart is not None:
        seconds = round(quickstart["values"]["seconds"])
        text = f"```\n{Table(**quickstart['table'])}\n```\n\n{seconds} s of it were training."
    return {
        "README.md": {
            "quickstart": text,
            "answers": verdicts_table(records, FRONT).to_markdown(),
            "claims": claims_table(records, short=True).to_markdown(),
        },
        "docs/findings.md": {
            **{name: findings(records, verdicts) for name, verdicts in FOUND.items()},
            "families": families(records),
            "stopping": stopping(records),
        },
        "docs/replication.md": {
            "questions": questions_table(records).to_markdown(),
            "claims": claims_table(records).to_markdown(),
        },
    }


def with_blocks(page: str, texts: Mapping[str, str]) -> str:
    """A page with its blocks written anew."""
    for name, text in texts.items():
        pattern = re.compile(rf"<!-- {name} -->\n.*?<!-- /{name} -->", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"the page has no block {name!r}")
        whole = f"<!-- {name} -->\n{text}\n<!-- /{name} -->"
        page = pattern.sub(lambda _, whole=whole: whole, page)
    return page


def figure(root: Path) -> bytes:
    """The figure of the contrasts in the committed notebook 02, as PNG."""
    notebook = nbformat.read(root / "notebooks" / "02_main_results.ipynb", as_version=4)
    cell = next(c for c in notebook.cells if "paper.contrasts" in c.source)
    images = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
    return base64.b64decode(images[0])


def main() -> None:
    """Write every page, and the figure."""
    root = project_root() or Path()
    (root / FIGURE).write_bytes(figure(root))
    for name, texts in blocks(every_record("nowhere")).items():
        page = root / name
        page.write_text(with_blocks(page.read_text(encoding="utf-8"), texts), encoding="utf-8")
        print(f"wrote {', '.join(texts)} into {name}")


if __name__ == "__main__":
    main()
