"""The run store: same question, same folder; nothing half written."""

import json
import os
import subprocess
import sys
import threading

import pytest

from intuitor_lib import RunStore, get_recipe
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.store import FORMAT
from intuitor_lib.store.checkpoints import newest_checkpoint
from intuitor_lib.store.stored import DamagedError

PROBLEMS = {"fingerprint": "abc", "train": 3}


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


def test_the_same_recipe_and_problems_open_the_same_run(store):
    recipe = get_recipe("quickstart", "cpu")
    run = store.open(recipe, PROBLEMS)
    assert store.open(recipe.replace(name="another", save_steps=3), PROBLEMS).path == run.path
    assert run.recipe == recipe
    assert run.problems == PROBLEMS
    assert [r.id for r in store] == [run.id]


@pytest.mark.parametrize("name", ["exp/1", "../x", "a b", "long" * 70, "\u957f" * 90])
def test_a_name_makes_no_folder_of_its_own(store, name):
    run = store.open(get_recipe("quickstart", "cpu").replace(name=name), PROBLEMS)
    assert [r.id for r in store] == [run.id]
    assert run.path.parent == store.root
    assert run.recipe.name == name


@pytest.mark.parametrize(
    ("changes", "fingerprint"), [({"seed": 8}, "abc"), ({"beta": 0.1}, "abc"), ({}, "abd")]
)
def test_another_question_is_another_run(store, changes, fingerprint):
    recipe = get_recipe("quickstart", "cpu")
    first = store.open(recipe, PROBLEMS)
    second = store.open(recipe.replace(**changes), {"fingerprint": fingerprint})
    assert first.path != second.path


@pytest.fixture
def local(tmp_path):
    """A recipe that trains the model of a folder, and a file of it."""
    file = tmp_path / "model" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"one")
    return get_recipe("quickstart", "smoke").replace(model=str(file.parent)), file


def test_other_weights_in_the_same_folder_are_another_run(store, local):
    recipe, file = local
    run = store.open(recipe, PROBLEMS)
    run.require_same_base()
    assert store.open(recipe, PROBLEMS).path == run.path
    file.write_bytes(b"two")
    assert store.open(recipe, PROBLEMS).path != run.path
    # The first one is whole, but its adapter belongs to other weights.
    assert run.verify() == {}
    with pytest.raises(InputError, match="have been changed since"):
        run.require_same_base()


def test_a_damaged_recipe_is_named(store):
    run = store.open(get_recipe("quickstart", "cpu"), PROBLEMS)
    (run.path / "recipe.json").write_text("{")
    with pytest.raises(DamagedError, match=rf"{run.id} is damaged \(recipe.json: not readable"):
        _ = run.recipe
    assert store.open(get_recipe("quickstart", "cpu"), PROBLEMS).recipe.name == "quickstart"


def test_copies_of_checkpoints_and_snapshots_are_passed_over(store):
    run = store.open(get_recipe("quickstart", "cpu"), PROBLEMS)
    for name in ("snapshots/step-00010", "snapshots/step-00010 copy", "checkpoints/checkpoint-4"):
        (run.path / name).mkdir(parents=True)
    (run.path / "checkpoints" / "checkpoint-10.bak").mkdir()
    assert [*run.snapshots] == [10]
    passed = []
    assert newest_checkpoint(run.path, passed.append) is None
    assert len(passed) == 1
    assert "checkpoint-4 is passed over" in passed[0]


def test_status_keeps_what_it_had(store):
    run = store.open(get_recipe("quickstart", "smoke"), PROBLEMS)
    assert run.status["state"] == "new"
    run.set_status("failed", error="boom")
    with run.lock():
        run.set_status("running")
        assert (run.status["state"], run.status["error"]) == ("running", "boom")
    assert (run.status["state"], run.finished) == ("interrupted", False)  # nobody works on it


@pytest.mark.parametrize(("details", "result"), [({}, 10), ({"restored": 4}, 4)])
def test_a_step_that_a_run_did_not_reach_has_no_weights(details, result, store):
    run = store.open(get_recipe("quickstart", "cpu").replace(max_steps=20), PROBLEMS)
    run.append("metrics.jsonl", [{"step": step} for step in (4, 10)])
    (run.path / run.snapshot_name(8)).mkdir(parents=True)
    assert run.result_step is None
    run.finish(**details)
    assert run.result_step == result
    assert run.weights() == run.weights(result) == run.adapter
    assert run.weights(8) == run.snapshots[8]
    with pytest.raises(InputError, match="kept no snapshot of step 20; it kept: 8"):
        run.weights(20)


def test_metrics_are_appended(store):
    run = store.open(get_recipe("quickstart", "smoke"), PROBLEMS)
    for step in (1, 2, 3):
        run.append("metrics.jsonl", [{"step": step, "step_time": 1.5}])
    assert (run.steps, run.seconds) == (3, 4.5)


def test_a_run_of_a_later_format_is_refused_and_one_without_a_number_is_read(store):
    run = store.open(get_recipe("quickstart", "cpu"), PROBLEMS)
    run.append("metrics.jsonl", [{"step": 1}])
    assert run.steps == 1
    run.set_environment({})
    assert run.environment["format"] == FORMAT
    assert run.steps == 1
    run.set_environment({"format": FORMAT + 1})
    with pytest.raises(InputError, match=rf"{run.id} has format {FORMAT + 1}.*reads formats up to"):
        _ = run.metrics


def test_a_folder_that_fails_to_save_leaves_nothing(store):
    run = store.open(get_recipe("quickstart", "smoke"), PROBLEMS)
    run.save_folder("adapter", lambda folder: (folder / "w").write_text("1"))

    def fail(folder):
        (folder / "w").write_text("2")
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run.save_folder("adapter", fail)
    assert (run.adapter / "w").read_text() == "1"


def test_a_second_process_waits_for_the_lock(store, capsys):
    run = store.open(get_recipe("quickstart", "smoke"), PROBLEMS)
    held, release = threading.Event(), threading.Event()

    def hold():
        with run.lock():
            held.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    threading.Timer(0.3, release.set).start()
    with run.lock():
        assert release.is_set()
    thread.join()
    assert f"is training {run.id}; waiting for it" in capsys.readouterr().err


def test_an_unwritable_store_names_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="INTUITOR_RUNS"):
        RunStore(tmp_path / "file").open(get_recipe("quickstart", "smoke"), PROBLEMS)


def test_an_unknown_run_lists_the_known_ones(store):
    run = store.open(get_recipe("quickstart", "smoke"), PROBLEMS)
    with pytest.raises(KeyError, match=run.id):
        store["nothing"]


def test_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INTUITOR_RUNS", str(tmp_path / "elsewhere"))
    assert RunStore().root == tmp_path / "elsewhere"
    monkeypatch.delenv("INTUITOR_RUNS")
    for folder in ("intuitor_lib", "notebooks"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert RunStore().root == tmp_path / "runs"


def test_the_id_is_the_same_in_another_process(store):
    run = store.open(get_recipe("quickstart", "cpu"), PROBLEMS)
    code = (
        "import json, sys; from intuitor_lib import RunStore, get_recipe;"
        "print(RunStore(sys.argv[1]).open(get_recipe('quickstart', 'cpu'), "
        "json.loads(sys.argv[2])).id)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(store.root), json.dumps(PROBLEMS)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )
    assert result.stdout.strip() == run.id
