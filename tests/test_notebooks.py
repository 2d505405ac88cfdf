"""Notebooks: their form, their execution under `smoke`, their failures."""

import json

import nbformat
import pytest

from intuitor_lib import RunStore
from intuitor_lib.embedded import is_cached
from intuitor_lib.notebooks import execute, find_notebooks
from intuitor_lib.recipe import InputError
from intuitor_lib.report import load_record

NOTEBOOKS = find_notebooks()
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def write(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec}), path)
    return path


@every_notebook
def test_the_committed_notebook_ran_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < 1_000_000


@every_notebook
def test_the_notebook_has_the_form_of_all(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith(f"# {path.stem[:2]} · ")
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    for line in tagged[0].source.splitlines():
        name, _, rest = line.partition(" = ")
        assert name.isidentifier(), line
        assert "  # " in rest, f"{line!r} does not say what it means"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            lines = cell.source.splitlines()
            assert len(lines) <= 25, cell.source[:200]
            unwanted = ("!", "%pip", "def ", "class ")
            assert not any(line.lstrip().startswith(unwanted) for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(not is_cached(), reason="the embedded model is not fetched yet")
def test_quickstart_trains_under_smoke_and_finds_its_run_again(tmp_path):
    (path,) = find_notebooks(["00"])
    before = path.read_bytes()
    done = execute(path, "smoke", {"seed": 11}, runs=tmp_path)
    assert done.error == ""
    assert path.read_bytes() == before
    assert done.html.read_text(encoding="utf-8").count("<img") >= 2
    values = load_record("00_quickstart", "smoke", tmp_path)["values"]
    (run,) = RunStore(tmp_path)
    assert values["run"] == run.id
    assert (run.recipe.profile, run.recipe.seed, run.steps) == ("smoke", 11, 2)
    for when in ("before", "after"):
        sampled = values[when]["sampled"]
        assert 0 < sampled["self_certainty"]["value"] < 60
        assert 0 <= sampled["accuracy"]["low"] <= sampled["accuracy"]["high"] <= 1
        assert 0 < sampled["tokens"]["value"] <= run.recipe.max_completion_length
    assert values["after"]["sampled"]["kl"]["value"] >= 0
    stamp = (run.path / "status.json").stat().st_mtime_ns

    again = execute(path, "smoke", {"seed": 11}, runs=tmp_path)
    assert again.error == ""
    assert (run.path / "status.json").stat().st_mtime_ns == stamp
    assert load_record("00_quickstart", "smoke", tmp_path)["values"] == values


def test_a_failing_cell_is_named_with_its_cause(tmp_path):
    path = write(tmp_path / "bad.ipynb", "profile = 'cpu'", "x = 1", "x / 0")
    done = execute(path, "smoke", runs=tmp_path / "runs")
    assert done.error.startswith("cell [4] of bad failed: ZeroDivisionError: division by zero")
    assert done.notebook.is_file()


def test_parameters_reach_the_notebook_and_unknown_ones_are_refused(tmp_path):
    path = write(tmp_path / "ok.ipynb", "profile = 'cpu'\nseed = 7", "print(profile, seed)")
    done = execute(path, "smoke", {"seed": 9}, runs=tmp_path / "runs")
    outputs = json.dumps(nbformat.read(done.notebook, as_version=4))
    assert "smoke 9" in outputs
    with pytest.raises(InputError, match="no parameter 'sead': its parameters are profile, seed"):
        execute(path, "smoke", {"sead": 9}, runs=tmp_path / "runs")


def test_notebooks_are_found_by_name_number_and_path(tmp_path):
    assert find_notebooks(["00"]) == find_notebooks(["00_quickstart"])
    path = write(tmp_path / "mine.ipynb", "profile = 'cpu'")
    assert find_notebooks([str(path)]) == [path]
    with pytest.raises(InputError, match="no notebook 'nothing'"):
        find_notebooks(["nothing"])


def test_a_training_draws_itself_and_leaves_one_line(tmp_path):
    setup = (
        "from intuitor_lib.progress import LiveTraining\n"
        "row = {'step': 1, 'rewards/self_certainty/mean': 9.5}\n"
    )
    path = write(
        tmp_path / "live.ipynb",
        "profile = 'cpu'",
        setup + "live = LiveTraining('train x', 2)\nlive.update([row])",
        "other = LiveTraining('train y', 2)\nother.update([row])\nother.close('`y` is trained')",
    )
    done = execute(path, "smoke", runs=tmp_path / "runs")
    assert done.error == ""
    cells = nbformat.read(done.notebook, as_version=4).cells
    (drawn,), (line,) = cells[-2].outputs, cells[-1].outputs
    assert drawn.data["image/png"]
    assert line.data["text/markdown"] == "`y` is trained"
