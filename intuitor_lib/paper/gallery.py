"""One page with the figures and tables of all executed notebooks, linked to the notebooks.

The page lies in the run store and loads nothing from elsewhere.
"""

import base64
import html
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..report import Table
from ..store import RunStore
from ..store.files import write_text
from .comparison import claims_table, load_records, questions_table

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 75rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 0 0 .5rem; }
a { color: inherit; }
section { border-top: 1px solid var(--line); padding: 1.25rem 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: 1rem; align-items: start; }
.figures img { width: 100%; height: auto; background: #fff; border: 1px solid var(--line); }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .85rem; }
caption { caption-side: bottom; text-align: left; padding-top: .4rem; max-width: 60rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid var(--line); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
#claims td:last-child { font-weight: 600; }
@media (max-width: 40rem) {  /* a claim below the other instead of a table wider than a phone */
  #claims thead { display: none; }
  #claims table, #claims caption, #claims tbody, #claims tr, #claims td { display: block; }
  #claims tr { border-bottom: 1px solid var(--line); padding: .6rem 0; }
  #claims td { border: 0; padding: .1rem 0; }
  #claims td:first-child { font-weight: 600; }
}
"""


def build_gallery(profile: str, runs: str | Path | None = None) -> Path:
    """Write `report/index.html` of the run store from the notebooks executed under a profile.

    Returns:
        Path of the page.
    """
    root = RunStore(runs).root.resolve()
    folder = root / "report"
    notebooks = sorted((root / "notebooks" / profile).glob("*.ipynb"))
    records = load_records(profile, root)
    sections, links = [], []
    for path in notebooks:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        title = _title(cells)
        links.append(f'<a href="#{path.stem}">{html.escape(title)}</a>')
        images = list(_images(cells, folder / "figures", path.stem))
        table = records.get(path.stem, {}).get("table")
        sections.append(_section(path, profile, title, images, table))
    answers = _as_html(questions_table(records.values()).to_dict())
    claims = _as_html(claims_table(records.values()).to_dict())
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>INTUITOR: results of the notebooks</title><style>{_STYLE}</style></head><body>
<h1>INTUITOR: results of the notebooks</h1>
<p>Learning to Reason without External Rewards (arXiv 2505.19590), profile
<b>{html.escape(profile)}</b>. Every number stands in its notebook with n, seeds and interval.</p>
<nav>{"".join(links)}</nav>
<section id="answers"><h2>The questions at this size</h2>{answers}</section>
<section id="claims"><h2>The paper's claims on its own models</h2>{claims}</section>
{"".join(sections)}
</body></html>
"""
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _title(cells: list[Mapping[str, Any]]) -> str:
    """The first heading, with a note if a cell failed."""
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    heading = re.search(r"^# (.*)", "\n".join(texts), re.MULTILINE)
    failed = any(o["output_type"] == "error" for c in cells for o in c.get("outputs", []))
    return (heading[1] if heading else "untitled") + " (failed)" * failed


def _images(cells: list[Mapping[str, Any]], folder: Path, name: str) -> Iterator[str]:
    """Write the figures of a notebook as files and yield their paths, relative to the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*.png"):
        old.unlink()
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    images = [output.get("data", {}).get("image/png") for output in outputs]
    for number, image in enumerate(filter(None, images), 1):
        file = folder / f"{name}-{number}.png"
        file.write_bytes(base64.b64decode("".join(image)))
        yield f"figures/{file.name}"


def _section(
    path: Path, profile: str, title: str, images: list[str], table: Mapping[str, Any] | None
) -> str:
    target = f"../notebooks/{profile}/{path.stem}.html"
    shown = "".join(
        f'<a href="{image}"><img src="{image}" loading="lazy" '
        f'alt="{html.escape(title)}, figure {i}"></a>'
        for i, image in enumerate(images, 1)
    )
    return (
        f'<section id="{path.stem}"><h2><a href="{target}">{html.escape(title)}</a></h2>'
        f'<div class="figures">{shown}</div>{_as_html(table) if table else ""}</section>'
    )


def _as_html(table: Mapping[str, Any]) -> str:
    shown = Table(table["header"], table["rows"], table["caption"])._repr_html_()
    plain = re.sub(r' style=("[^"]*"|\'[^\']*\')', "", shown)
    return f'<div class="wide">{plain}</div>'
