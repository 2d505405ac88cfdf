"""The page of all executed notebooks."""

import base64
import io
import json

from intuitor_lib.paper.gallery import build_gallery
from intuitor_lib.report.records import save_record
from intuitor_lib.report.tables import Table


def png():
    from matplotlib.figure import Figure

    stream = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(stream, format="png")
    return base64.b64encode(stream.getvalue()).decode()


def test_the_page_shows_figures_tables_and_links(tmp_path):
    folder = tmp_path / "notebooks" / "smoke"
    folder.mkdir(parents=True)
    output = {"output_type": "display_data", "data": {"image/png": png()}}
    cells = [
        {"cell_type": "markdown", "source": ["<span>papermill's own</span>"]},
        {"cell_type": "markdown", "source": ["# 02 · Results <b>\n", "text"]},
        {"cell_type": "code", "outputs": [output, output]},
    ]
    (folder / "02_main_results.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    table = Table(["policy", "accuracy"], [["GRPO & co", "0.5"]], "n = 4")
    save_record("02_main_results", "smoke", table=table, values={}, runs=tmp_path)
    page = build_gallery("smoke", tmp_path)
    text = page.read_text(encoding="utf-8")
    assert 'href="../notebooks/smoke/02_main_results.html"' in text
    assert text.count("02 · Results &lt;b&gt;") >= 2
    assert "Results <b>" not in text
    assert "GRPO &amp; co" in text
    assert "not tested here" in text  # the claims, unanswered
    assert text.count(f'src="data:image/png;base64,{png()}"') == 2
    assert str(tmp_path) not in text
    assert "viewport" in text
    assert "(failed)" not in text
    cells[-1]["outputs"][1:] = [{"output_type": "error"}]
    (folder / "02_main_results.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert "Results &lt;b&gt; (failed)" in build_gallery("smoke", tmp_path).read_text("utf-8")
    (folder / "03_early_learning.ipynb").write_text('{"cells": [', encoding="utf-8")  # killed
    text = build_gallery("smoke", tmp_path).read_text("utf-8")
    assert "03_early_learning (cannot be read: execute it again)" in text
