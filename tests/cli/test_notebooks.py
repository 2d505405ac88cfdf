"""Notebooks: their form, their execution under `smoke`, their failures."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

import intuitor_lib
from intuitor_lib.cli import notebooks
from intuitor_lib.cli.notebooks import execute, find_notebooks, reproduce
from intuitor_lib.cli.script import main
from intuitor_lib.cli.stopping import PROMISE
from intuitor_lib.paper.comparison import load_records
from intuitor_lib.policy.embedded import is_cached
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.report.records import load_record
from intuitor_lib.store.run_store import RunStore

NOTEBOOKS = find_notebooks()
TEMPLATE = NOTEBOOKS[0].with_name("template.ipynb")
every_notebook = pytest.mark.parametrize("path", [*NOTEBOOKS, TEMPLATE], ids=lambda path: path.stem)


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
    if path.stem != "08_model_families":  # tables only
        assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < 1_000_000


@every_notebook
def test_the_notebook_has_the_form_of_all(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].cell_type == "markdown"
    number = "NN" if path == TEMPLATE else path.stem[:2]
    assert notebook.cells[0].source.startswith(f"# {number} · ")
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


def default_profile(path):
    (cell,) = (
        c for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", [])
    )
    values = {}
    exec(cell.source, values)  # it assigns, and nothing else
    return values["profile"], values.get("retrain")


def redraws(path):
    """Whether the notebook reads results that come with the project."""
    profile, retrain = default_profile(path)
    stored = load_records(profile, "nowhere")
    return retrain is False and profile != "smoke" and path.stem in stored


@pytest.mark.slow
@pytest.mark.parametrize("path", filter(redraws, NOTEBOOKS), ids=lambda path: path.stem)
def test_it_redraws_from_the_committed_results_alone(path, tmp_path):
    profile, _ = default_profile(path)
    done = execute(path, profile, runs=tmp_path)
    assert done.error == ""
    assert not list(tmp_path.rglob("recipe.json"))  # nothing was trained
    assert not (tmp_path / "evaluations").exists()
    ours = load_record(path.stem, profile, tmp_path)
    theirs = load_records(profile, "nowhere")[path.stem]
    assert ours["values"] == theirs["values"]
    assert ours["table"] == theirs["table"]


@pytest.mark.slow
def test_the_template_runs_and_trains_nothing(tmp_path):
    done = execute(TEMPLATE, "cpu", runs=tmp_path)
    assert done.error == ""
    assert not list(tmp_path.rglob("recipe.json"))
    assert not (tmp_path / "evaluations").exists()
    answers = load_record("template", "cpu", tmp_path)["values"]["answers"]
    assert {answer["question"] for answer in answers} == {"gain", "coin"}


@pytest.mark.slow
@pytest.mark.skipif(not is_cached(), reason="the embedded model is not fetched yet")
def test_quickstart_trains_under_smoke_and_finds_its_run_again(tmp_path):
    (path,) = find_notebooks(["00"])
    before = path.read_bytes()
    parameters = {"seed": 11, "num_problems": 2}
    done = execute(path, "smoke", parameters, runs=tmp_path)
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
    stamp = (run.path / "status.json").stat().st_mtime_ns

    again = execute(path, "smoke", parameters, runs=tmp_path)
    assert again.error == ""
    assert (run.path / "status.json").stat().st_mtime_ns == stamp
    assert load_record("00_quickstart", "smoke", tmp_path)["values"] == values


@pytest.mark.slow
@pytest.mark.parametrize("way", [{}, {"use_lora": False, "quantization": "none"}])
def test_quickstart_measures_policies_with_and_without_adapters(
    tiny_recipe, tmp_path, monkeypatch, way
):
    """`paper` trains all weights. A tiny model stands in for the profile's."""
    monkeypatch.setenv("INTUITOR_RUNS", str(tmp_path))
    recipe = tiny_recipe.replace(eval_problems=6, **way)
    monkeypatch.setattr(intuitor_lib, "get_recipe", lambda *_, **__: recipe)
    (path,) = find_notebooks(["00"])
    values = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source.replace("%matplotlib inline", ""), values)
    assert values["values"]["after"]["sampled"]["accuracy"]["n"] == 6
    assert values["run"].finished


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


ENDS = {  # the cells behind the parameters; what is told of them
    "exit": (
        ["import sys; sys.exit(0)", "1"],
        "cell [3] of {} ended the notebook; cells not run: 1",
    ),
    "raise": (
        ["raise SystemExit", "1", "", "2"],
        "cell [3] of {} ended the notebook; cells not run: 2",
    ),
    "last": (
        ["1", "print(2)\nquit = __import__('sys').exit()\nprint(3)"],
        "cell [4] of {} ended the",
    ),
    "status": (["import sys; sys.exit(1)", "1"], "cell [3] of {} failed: SystemExit: 1"),
    "dead": (
        ["import os; os._exit(1)", "1"],
        "cell [3] of {} died with its kernel (out of memory?)",
    ),
    "killed": (["1", "import os; os.kill(os.getpid(), 9)"], "cell [4] of {} died with its kernel"),
}


def test_a_notebook_that_ends_itself_fails_and_ends_nothing_else(tmp_path, capsys):
    for name, (cells, _) in ENDS.items():
        write(tmp_path / f"{name}.ipynb", "profile = 'cpu'", *cells)
    write(tmp_path / "good.ipynb", "profile = 'cpu'", "", "print(1)")
    batch, runs = [*ENDS, "good"], ["--profile", "smoke", "--runs", str(tmp_path / "runs")]
    assert main(["reproduce", *(str(tmp_path / f"{name}.ipynb") for name in batch), *runs]) == 1
    told = capsys.readouterr()
    assert "1 of 7 notebooks passed" in told.out
    for name, (_, says) in ENDS.items():
        assert says.format(name) in told.err
    some = [tmp_path / f"{name}.ipynb" for name in ("exit", "good")]
    again = reproduce(some, "smoke", runs=tmp_path / "runs")
    assert [(done.kept, bool(done.error)) for done in again] == [(False, True), (True, False)]


def test_a_killed_worker_fails_its_notebooks(tmp_path):
    kill = "import os\nos.kill(os.getppid(), 9)"
    paths = [write(tmp_path / f"{i}.ipynb", "profile = 'cpu'", kill) for i in range(3)]
    for done in reproduce(paths, "smoke", runs=tmp_path, jobs=2):
        assert f"{done.notebook.stem} failed: a process that executes notebooks was killed" in (
            done.error
        )
        assert not done.html.exists()


def as_file(path, metadata, **changes):
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "outputs": []}
    cell |= {"execution_count": None, "source": ["profile = 'cpu'\n", "print('it is', profile)"]}
    notebook = {"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook | changes), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"kernelspec": {"name": "python3", "display_name": "x"}},
        {"kernelspec": {"name": "my-env", "display_name": "x", "language": "python"}},
        {"language_info": {"name": "python"}, "colab": {"provenance": []}},
    ],
)
def test_notebooks_of_other_tools_are_executed(tmp_path, metadata):
    path = as_file(tmp_path / "x.ipynb", metadata)
    if not metadata:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    done = execute(path, "smoke", runs=tmp_path / "runs")
    assert done.error == ""
    assert "it is cpu" in done.notebook.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<<<<<<< HEAD\n{}\n=======\n",
        "version https://git-lfs.github.com/spec/v1\n",
        "[]",
        "{}",
        json.dumps({"metadata": {}, "nbformat": 4, "nbformat_minor": 5}),
    ],
)
def test_what_is_no_notebook_is_told(tmp_path, capsys, content):
    (tmp_path / "x.ipynb").write_text(content, encoding="utf-8")
    assert main(["reproduce", str(tmp_path / "x.ipynb"), "--runs", str(tmp_path / "runs")]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / 'x.ipynb'} is no notebook" in told
    assert told.count("\n") == 1


def test_notebooks_are_found_by_name_number_and_path(tmp_path):
    assert find_notebooks(["00"]) == find_notebooks(["00_quickstart"])
    path = write(tmp_path / "mine.ipynb", "profile = 'cpu'")
    assert find_notebooks([str(path)]) == [path]
    with pytest.raises(InputError, match="no notebook 'nothing'"):
        find_notebooks(["nothing"])


def test_a_training_leaves_one_line(tmp_path):
    setup = (
        "from intuitor_lib.report.progress import LiveTraining\n"
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
    (first,), (line,) = cells[-2].outputs, cells[-1].outputs
    assert first.data["text/markdown"] == "`train x`: loading the policy"
    assert line.data["text/markdown"] == "`y` is trained"


def counting(path, log, *cells):
    """A notebook whose execution adds a line to `log`."""
    return write(path, "profile = 'cpu'", f"print('x', file=open({str(log)!r}, 'a'))", *cells)


def test_a_batch_goes_on_after_a_failure_and_a_rerun_does_what_is_missing(tmp_path):
    logs = {name: tmp_path / f"{name}.txt" for name in ("good", "bad")}
    good = counting(tmp_path / "good.ipynb", logs["good"])
    bad = counting(tmp_path / "bad.ipynb", logs["bad"], "1 / 0")
    batch = [bad, good]

    def run(**kwargs):
        done = list(reproduce(batch, "smoke", runs=tmp_path / "runs", **kwargs))
        return [(d.notebook.stem, bool(d.error), d.kept) for d in done]

    assert run() == [("bad", True, False), ("good", False, False)]
    assert run() == [("bad", True, False), ("good", False, True)]
    counting(tmp_path / "bad.ipynb", logs["bad"], "1 / 1")
    assert run() == [("bad", False, False), ("good", False, True)]
    assert run() == [("bad", False, True), ("good", False, True)]
    (tmp_path / "runs" / "notebooks" / "smoke" / "good.html").unlink()
    assert run() == [("bad", False, True), ("good", False, False)]
    assert run(force=True) == [("bad", False, False), ("good", False, False)]
    counts = {name: len(log.read_text().splitlines()) for name, log in logs.items()}
    assert counts == {"bad": 4, "good": 3}


def test_code_and_data_of_the_package_count_in_what_was_executed(tmp_path, monkeypatch):
    package = tmp_path / "intuitor_lib"
    (package / "cli").mkdir(parents=True)
    source = notebooks.read_notebook(write(tmp_path / "x.ipynb", "profile = 'cpu'"))
    monkeypatch.setattr(notebooks, "__file__", str(package / "cli" / "notebooks.py"))
    asked = [notebooks._question(source, {}, tmp_path)]
    for name in ("cli/code.py", "recipe.yaml"):
        (package / name).write_text("1")
        asked.append(notebooks._question(source, {}, tmp_path))
    assert len(set(asked)) == 3


def test_several_at_a_time_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    meet = (  # with the other one, or time out
        "import os, pathlib, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "(folder / f'{name}.here').touch()\n"
        "end = time.monotonic() + 120\n"
        "while not (folder / f'{other}.here').exists():\n"
        "    assert time.monotonic() < end\n"
        "    time.sleep(0.1)\n"
        "print('threads', os.environ['OMP_NUM_THREADS'])"
    )
    batch = [
        write(tmp_path / f"{a}.ipynb", f"profile = 'cpu'\nname, other = {a!r}, {b!r}", meet)
        for a, b in ("ab", "ba")
    ]
    batch.append(write(tmp_path / "bad.ipynb", "profile = 'cpu'", "1 / 0"))
    done = list(reproduce(batch, "smoke", runs=tmp_path / "runs", jobs=2))
    assert {d.notebook.stem: bool(d.error) for d in done} == {"a": False, "b": False, "bad": True}
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    written = next(d.notebook for d in done if d.notebook.stem == "a").read_text(encoding="utf-8")
    assert f"threads {threads}" in written
    again = reproduce(batch[:2], "smoke", runs=tmp_path / "runs", jobs=2)
    assert [d.kept for d in again] == [True] * 2


def test_a_batch_that_is_stopped_begins_no_other(tmp_path):
    log = tmp_path / "log.txt"
    paths = [counting(tmp_path / f"{i}.ipynb", log) for i in range(9)]
    batch = reproduce(paths, "smoke", runs=tmp_path / "runs", jobs=2)
    next(batch)
    batch.close()
    assert len(log.read_text().splitlines()) <= 2


def stopped(folder, jobs, signals):
    """The process of a batch of four at whose notebooks signals were sent; it is ending.

    Each notebook does what a training does: asked to stop it takes 6 s, then saves and ends.
    """
    cell = (
        "import os, signal, time\nfrom pathlib import Path\n"
        "asked = []\n"
        "for number in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(number, lambda *_: asked.append(True))\n"
        f"Path({str(folder)!r}, name + '.begun').write_text(str(os.getpid()))\n"
        "while not asked:\n    time.sleep(0.1)\n"
        "end = time.monotonic() + 6\n"
        "while time.monotonic() < end:\n    time.sleep(0.1)\n"
        f"Path({str(folder)!r}, name + '.saved').touch()\n"
        "raise KeyboardInterrupt"
    )
    paths = [
        str(write(folder / f"{name}.ipynb", f"profile = 'cpu'\nname = {name!r}", cell))
        for name in "abcd"
    ]
    command = ["reproduce", *paths, "--jobs", str(jobs), "--runs", str(folder / "runs")]
    batch = subprocess.Popen(
        [sys.executable, "-m", "intuitor_lib", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.begun"))) < jobs:
        assert time.monotonic() < deadline
        assert batch.poll() is None, batch.communicate()[0]
        time.sleep(0.1)
    for number in signals:
        os.killpg(batch.pid, number)
        time.sleep(2)
    return batch


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "number"), [(1, signal.SIGTERM), (2, signal.SIGINT)])
def test_a_batch_that_is_stopped_lets_its_trainings_save(tmp_path, jobs, number):
    batch = stopped(tmp_path, jobs, [number])
    told = batch.communicate(timeout=60)[0]
    assert batch.returncode == 130, told
    assert len(list(tmp_path.glob("*.begun"))) == len(list(tmp_path.glob("*.saved"))) == jobs
    assert told.count(PROMISE) == 1
    assert "the same command resumes" in told.splitlines()[-1]
    assert "intuitor_lib/" not in told  # no traceback but of a kernel's own end, now and then


@pytest.mark.slow
def test_a_second_ctrl_c_ends_a_batch_at_once(tmp_path):
    batch = stopped(tmp_path, 2, [signal.SIGINT, signal.SIGINT])
    told = batch.communicate(timeout=30)[0]
    assert batch.returncode == 130, told
    time.sleep(2)
    kernels = [int(file.read_text()) for file in tmp_path.glob("*.begun")]
    assert not any(map(psutil.pid_exists, kernels))
    assert not list(tmp_path.glob("*.saved"))


def test_one_name_is_one_notebook(tmp_path):
    paths = []
    for name in "ab":
        (tmp_path / name).mkdir()
        paths.append(str(write(tmp_path / name / "x.ipynb", "profile = 'cpu'")))
    with pytest.raises(InputError, match=r"2 notebooks are named x\.ipynb"):
        find_notebooks(paths)
    assert len(find_notebooks([paths[0], paths[0]])) == 1
    copy = tmp_path / "runs" / "notebooks" / "smoke"
    copy.mkdir(parents=True)
    with pytest.raises(InputError, match="name its original"):
        execute(write(copy / "x.ipynb", "profile = 'cpu'"), "smoke", runs=tmp_path / "runs")


def test_each_stage_of_a_notebook_is_a_line(tmp_path, capfd):
    code = (
        "from intuitor_lib.report.progress import LiveTraining, track\n"
        "list(track(range(3), total=3, label='base, greedy'))\n"
        "live = LiveTraining('train x', 14)\n"
        "for step in (9, 10):\n"
        "    live.update([{'step': step, 'step_time': 3000.0, 'kl': 0.25}])"
    )
    done = execute(write(tmp_path / "x.ipynb", "profile = 'cpu'", code), "smoke", runs=tmp_path)
    assert done.error == ""
    shown = capfd.readouterr().err
    lines = [line.strip() for line in shown.replace("\r", "\n").splitlines() if line.strip()]
    assert any(re.match(r"base, greedy +3 of 3 in 00:\d\d", line) for line in lines), shown
    # Two of 14 steps were made here, in 50 minutes: four are left, at 25 minutes each.
    last = [line for line in lines if line.startswith("train x")][-1]
    assert re.match(r"train x +10 of 14 in 50:\d\d, 1:4\d:\d\d left, kl 0.25", last), shown
    assert "WARNING" not in shown
    assert "KeyboardInterrupt" not in shown  # of the kernel's end


def test_other_parameters_are_another_execution(tmp_path):
    path = write(tmp_path / "ok.ipynb", "profile = 'cpu'\nseed = 7", "print(seed)")
    kept = []
    for seed in (8, 8, 9):
        (done,) = reproduce([path], "smoke", {path.stem: {"seed": seed}}, runs=tmp_path / "runs")
        kept.append(done.kept)
    assert kept == [False, True, False]


def test_a_killed_batch_goes_on_and_trains_nothing_twice(tmp_path, tiny_recipe):
    """SIGKILL of the batch while a training runs in the kernel; then the same command again."""
    recipe = tiny_recipe.replace(max_steps=60, save_steps=5, preflight_problems=0)
    code = (
        "from intuitor_lib import Recipe, train\n"
        f"run = train(Recipe.from_json({recipe.to_json()!r}))\n"
        "print(run.steps, run.status['state'])"
    )
    path = write(tmp_path / "long.ipynb", "profile = 'cpu'", code)
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "intuitor_lib", "reproduce", str(path), "--runs", str(runs)]
    first = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(runs.glob("*/checkpoints/*/SHA256SUMS")):
        assert time.monotonic() < deadline, "no training began"
        assert first.poll() is None
        time.sleep(0.02)
    first.kill()
    first.wait()
    (run,) = RunStore(runs)
    assert not run.finished
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "1 of 1 notebooks passed" in done.stdout
    (run,) = RunStore(runs)
    assert run.finished
    assert [row["step"] for row in run.metrics] == list(range(1, 61))
    executed = nbformat.read(runs / "notebooks" / "cpu" / "long.ipynb", as_version=4)
    assert "60 finished" in json.dumps(executed)


def test_a_file_that_a_parameter_names_counts_by_its_contents(tmp_path):
    path = write(tmp_path / "ok.ipynb", "profile = 'cpu'\nfile = 'b.jsonl'", "print(file)")
    (tmp_path / "model").mkdir()
    files = {"a.jsonl": "a.jsonl", "model": "model/config.json", None: "b.jsonl"}
    for name, file in files.items():
        kept = []
        for content in "112":
            (tmp_path / file).write_text(content)
            own = {path.stem: {"file": name} if name else {}}
            (done,) = reproduce([path], "smoke", own, runs=tmp_path / "runs")
            kept.append(done.kept)
        assert kept == [False, True, False]


def test_progress_is_of_the_same_store_whatever_the_folder(tmp_path, monkeypatch):
    path = write(tmp_path / "ok.ipynb", "profile = 'cpu'")
    seen = []
    monkeypatch.setattr("intuitor_lib.paper.batch.Progress", lambda *args: seen.append(args[2]))
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", str(path), "--runs", "runs"]) == 0
    assert seen == [tmp_path.resolve() / "runs"]


def test_two_batches_at_once_execute_a_notebook_once(tmp_path):
    log = tmp_path / "log.txt"
    path = counting(tmp_path / "slow.ipynb", log, "import time; time.sleep(2)")
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "intuitor_lib", "reproduce", str(path), "--runs", str(runs)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert log.read_text() == "x\n"
    assert sorted("kept" in text for text in told) == [False, True]


def test_no_secret_lands_in_a_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    path = write(
        tmp_path / "leaky.ipynb",
        "profile = 'cpu'",
        "import os\nprint('my token:', os.environ['HF_TOKEN'])",
        "raise RuntimeError(os.environ['HF_TOKEN'])",
    )
    done = execute(path, "smoke", runs=tmp_path / "runs")
    texts = [done.error, *(p.read_text() for p in (done.notebook, done.html))]
    assert all("hf_abc" not in text and "HF_TOKEN" in text for text in texts)


def test_no_secret_stays_in_an_interrupted_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    target = tmp_path / "runs" / "notebooks" / "smoke" / "leaky.ipynb"

    def interrupted(*_):
        target.write_bytes(b"my token: hf_abcdefghijklmnop \xe2\x82")  # torn in a character
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks, "_run", interrupted)
    path = write(tmp_path / "leaky.ipynb", "profile = 'cpu'")
    with pytest.raises(KeyboardInterrupt):
        execute(path, "smoke", runs=tmp_path / "runs")
    assert "hf_abc" not in target.read_text(encoding="utf-8")
