"""One page with the figures and tables of all executed notebooks, linked to the notebooks.

The page lies in the run store and loads nothing from elsewhere; `gallery.html.j2` is its template.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from ..store import RunStore
from ..store.files import write_text
from .comparison import answers_of, claims_table, load_records
from .verdicts import answers_table


def build_gallery(profile: str, runs: str | Path | None = None) -> Path:
    """Write `report/index.html` of the run store from the notebooks executed under a profile.

    Returns:
        Path of the page.
    """
    root = RunStore(runs).root.resolve()
    records = load_records(profile, root, committed=False)
    notebooks: list[dict[str, Any]] = []
    for path in sorted((root / "notebooks" / profile).glob("*.ipynb")):
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        except ValueError:  # it was killed while it was written
            title = f"{path.stem} (cannot be read: execute it again)"
            notebooks.append({"name": path.stem, "title": title, "images": [], "table": None})
            continue
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        failed = any(output["output_type"] == "error" for output in outputs)
        images = [output.get("data", {}).get("image/png") for output in outputs]
        notebooks.append(
            {
                "name": path.stem,
                "title": _title(cells) + " (failed)" * failed,
                "images": ["".join(image) for image in images if image],
                "table": None if failed else records.get(path.stem, {}).get("table"),
            }
        )
    text = Path(__file__).with_name("gallery.html.j2").read_text(encoding="utf-8")
    page = jinja2.Template(text, autoescape=True, undefined=jinja2.StrictUndefined).render(
        profile=profile,
        notebooks=notebooks,
        answers=answers_table(answers_of(records.values())),
        claims=claims_table(records.values()),
    )
    write_text(root / "report" / "index.html", page + "\n")
    return root / "report" / "index.html"


def _title(cells: Sequence[Mapping[str, Any]]) -> str:
    """The first heading."""
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    heading = re.search(r"^# (.*)", "\n".join(texts), re.MULTILINE)
    return heading[1] if heading else "untitled"
