"""Trainings survive SIGKILL, signals, damaged files, full disks and each other."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_tiny_recipe
from damage import DAMAGE

from intuitor_lib import Run, RunStore
from intuitor_lib.policy.loading import load_run
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.store.checkpoints import checkpoint_faults, newest_checkpoint
from intuitor_lib.store.stored import DamagedError
from intuitor_lib.training.recorder import Recorder
from intuitor_lib.training.savepoints import Interrupted
from intuitor_lib.training.trainer import IntuitorTrainer
from intuitor_lib.training.training import train

pytestmark = pytest.mark.slow
SURVIVAL = [sys.executable, str(Path(__file__).parents[1] / "survival.py")]


def run_survival(*arguments):
    done = subprocess.run(
        [*SURVIVAL, *arguments], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout


def test_killed_trainings_end_as_if_never_killed():
    told = run_survival("kill", "--kills", "3", "--seed", "1")
    assert "3 of 3 ended identical" in told


def test_killed_between_updates_of_one_rollout():
    """A rollout that serves two updates is in no checkpoint."""
    settings = ["--set", "num_iterations=2", "--set", "save_steps=1", "--set", "max_steps=14"]
    told = run_survival("kill", "--kills", "2", "--seed", "2", *settings)
    assert "2 of 2 ended identical" in told


def test_processes_that_ask_for_one_run_train_it_once():
    told = run_survival("together", "--processes", "5")
    assert "5 processes were answered; 1 trained" in told


@pytest.fixture(scope="module")
def recipe(tiny_model, sums_file):
    """Of six steps, a checkpoint after each."""
    return make_tiny_recipe(tiny_model, sums_file, max_steps=6)


@pytest.fixture(scope="module")
def finished_run(recipe, tmp_path_factory):
    """The run, never interrupted."""
    return train(recipe, runs=tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def stopped_run(recipe, tmp_path_factory):
    """The run, asked to stop in its fourth step."""
    folder = tmp_path_factory.mktemp("stopped")
    original = IntuitorTrainer.training_step
    seen = []

    def step(self, *args, **kwargs):
        seen.append(1)
        if len(seen) == 4:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IntuitorTrainer, "training_step", step)
        with pytest.raises(Interrupted, match="after step 4 of 6, and saved"):
            train(recipe, runs=folder)
    (run,) = RunStore(folder)
    return run


def copy(run, folder):
    return Run(shutil.copytree(run.path, folder / run.id))


@pytest.fixture
def stopped(stopped_run, tmp_path):
    """A copy of the stopped run, alone in the store `tmp_path`."""
    return copy(stopped_run, tmp_path)


@pytest.fixture
def finished(finished_run, tmp_path):
    """A copy of the finished run, alone in the store `tmp_path`."""
    return copy(finished_run, tmp_path)


def same(run, other):
    def lasting(rows):
        return [{k: v for k, v in row.items() if "time" not in k} for row in rows]

    assert lasting(run.metrics) == lasting(other.metrics)
    assert run.completions == other.completions
    name = "adapter_model.safetensors"
    assert (run.adapter / name).read_bytes() == (other.adapter / name).read_bytes()


def test_a_request_to_stop_ends_after_the_step_and_saves(stopped, recipe, finished_run, tmp_path):
    assert stopped.status["state"] == "interrupted"
    assert newest_checkpoint(stopped.path, pytest.fail).name == "checkpoint-4"
    again = train(recipe, runs=tmp_path)
    same(again, finished_run)
    assert again.verify() == {}
    assert not (again.path / "checkpoints").exists()


def test_a_second_request_stops_at_once(tiny_recipe, tmp_path, monkeypatch):
    original = IntuitorTrainer.training_step

    def step(self, *args, **kwargs):
        if self.state.global_step == 1:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(IntuitorTrainer, "training_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe, runs=tmp_path)
    (run,) = RunStore(tmp_path)
    assert (run.status["state"], run.steps) == ("interrupted", 1)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "name",
    ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth",
     "trainer_state.json", "records/metrics.jsonl", "SHA256SUMS"],
)  # fmt: skip
def test_a_damaged_checkpoint_is_named_and_passed_over(stopped, damage, name):
    checkpoint = stopped.path / "checkpoints" / "checkpoint-4"
    DAMAGE[damage](checkpoint / name)
    assert checkpoint_faults(checkpoint)
    told = []
    assert newest_checkpoint(stopped.path, told.append).name == "checkpoint-3"
    assert "checkpoint-4 is passed over" in told[0]
    assert any(key.startswith("checkpoints/checkpoint-4/") for key in stopped.verify())


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    stopped, recipe, finished_run, tmp_path
):
    DAMAGE["changed"](stopped.path / "checkpoints" / "checkpoint-4" / "optimizer.pt")
    same(train(recipe, runs=tmp_path), finished_run)


@pytest.mark.parametrize("damage", ["empty", "changed"])
@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "completions.jsonl", "status.json", "recipe.json", "problems.json",
             "environment.json"],
)  # fmt: skip
def test_a_damaged_record_of_an_unfinished_run_costs_nothing(
    stopped, recipe, damage, name, tmp_path
):
    DAMAGE[damage](stopped.path / name)
    again = train(recipe, runs=tmp_path)
    assert again.path == stopped.path
    assert [row["step"] for row in again.metrics] == [1, 2, 3, 4, 5, 6]
    assert again.verify() == {}


FINISHED = [
    *("recipe.json", "problems.json", "environment.json", "status.json"),
    *("metrics.jsonl", "completions.jsonl", "SHA256SUMS"),
    *("adapter/adapter_model.safetensors", "adapter/adapter_config.json"),
]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FINISHED)
def test_every_damage_of_a_finished_run_is_found_and_named(finished, name, damage):
    assert finished.verify() == {}
    DAMAGE[damage](finished.path / name)
    found = finished.verify()
    # A damaged line of the checksums is told by the file it stands for.
    assert name in found or (name == "SHA256SUMS" and found)
    assert name == "SHA256SUMS" or list(found) == [name]


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "completions.jsonl", "adapter/adapter_model.safetensors"]
)
def test_damaged_results_are_not_used(finished, name):
    DAMAGE["changed"](finished.path / name)
    with pytest.raises(DamagedError, match=f"{name}: changed"):
        load_run(finished)
    if name.endswith("jsonl"):
        with pytest.raises(DamagedError, match=name):
            getattr(finished, Path(name).stem)


def test_a_finished_run_with_a_damaged_status_stays_finished(finished):
    DAMAGE["cut"](finished.path / "status.json")
    assert finished.finished
    assert list(finished.verify()) == ["status.json"]


def in_a_small_disk(folder, size, code, *arguments):
    """Run Python where `folder` is a disk of its own of `size`; skips where that is refused."""
    mount = f"mount -t tmpfs -o size={size} tmpfs {folder}"
    alone = ["unshare", "--user", "--map-root-user", "--mount"] if os.geteuid() else [
        "unshare", "--mount"
    ]  # fmt: skip
    probe = subprocess.run([*alone, "sh", "-c", mount], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no disk can be mounted here: {probe.stderr.strip()}")
    command = f'{mount} && exec "$@"'
    return subprocess.run(
        [*alone, "sh", "-c", command, "sh", sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_full_disk_is_told_and_what_was_saved_is_whole(tiny_recipe, tmp_path):
    code = (
        "import json, sys; from pathlib import Path\n"
        "from intuitor_lib import Recipe, RunStore, train\n"
        "from intuitor_lib.store.checkpoints import newest_checkpoint\n"
        "recipe = Recipe.from_json(Path(sys.argv[1]).read_text())\n"
        "try:\n"
        "    train(recipe, runs=sys.argv[2])\n"
        "except OSError as error:\n"
        "    print('told:', error)\n"
        "(run,) = RunStore(sys.argv[2])\n"
        "print('whole:', newest_checkpoint(run.path, lambda text: None))\n"
        "Path(sys.argv[2], 'ballast').unlink()\n"
        "run = train(recipe, runs=sys.argv[2])\n"
        "print('finished:', run.finished, run.steps, run.verify())\n"
    )
    recipe = tiny_recipe.replace(max_steps=8, lora_r=64, preflight_problems=0)
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    disk = tmp_path / "disk"
    disk.mkdir()
    # Room for two checkpoints, not for the ones after them.
    code = code.replace(
        "try:", "Path(sys.argv[2], 'ballast').write_bytes(bytes(int(sys.argv[3])))\ntry:", 1
    )
    done = in_a_small_disk(disk, "24m", code, tmp_path / "recipe.json", disk, 20 * 2**20)
    assert "told: " in done.stdout, done.stdout + done.stderr[-3000:]
    assert "the disk is full" in done.stdout
    assert "finished: True 8 {}" in done.stdout, done.stdout + done.stderr[-3000:]


def test_a_read_only_folder_is_told_at_once(tiny_recipe, tmp_path):
    code = (
        "import sys; from pathlib import Path; from intuitor_lib.cli.script import main\n"
        "sys.exit(main(['train', sys.argv[1], '--runs', sys.argv[2]]))"
    )
    (tmp_path / "recipe.json").write_text(tiny_recipe.to_json())
    disk = tmp_path / "disk"
    disk.mkdir()
    done = in_a_small_disk(disk, "1m,ro", code, tmp_path / "recipe.json", disk)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "INTUITOR_RUNS" in done.stderr


def test_one_who_waits_gets_the_other_s_run(tiny_recipe, tmp_path):
    recipe = tiny_recipe.replace(max_steps=40, preflight_problems=0)
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    code = (
        "import sys; from pathlib import Path; from intuitor_lib import Recipe, train\n"
        "print(train(Recipe.from_json(Path(sys.argv[1]).read_text()), runs=sys.argv[2]).id)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "recipe.json"), str(tmp_path / "runs")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "runs").glob("*/.owner.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = train(recipe, runs=tmp_path / "runs")
    out, _ = first.communicate(timeout=120)
    assert out.strip() == second.id
    assert second.finished


def test_what_is_not_finite_in_a_step_reaches_the_record(tiny_recipe, tmp_path, monkeypatch):
    original = IntuitorTrainer.log

    def log(self, logs, *args, **kwargs):
        if self.state.global_step == 2:
            logs["loss"] = float("nan")
        return original(self, logs, *args, **kwargs)

    monkeypatch.setattr(IntuitorTrainer, "log", log)
    run = train(tiny_recipe.replace(max_steps=4, on_collapse="stop"), runs=tmp_path)
    assert run.metrics[-1]["collapse"] == ["not finite"]
    assert run.steps == 2
    assert run.status["collapse"] == ["step 2, not finite: loss is NaN or infinite"]


@pytest.mark.parametrize("column", ["loss", "kl"])
def test_a_training_without_numbers_goes_back_to_the_checkpoint_before(
    column, tiny_recipe, tmp_path, monkeypatch
):
    original = IntuitorTrainer._compute_loss

    def loss(self, *args):
        value = original(self, *args)
        if self.state.global_step < 5:
            return value
        if column == "kl":
            self._metrics["train"]["kl"][-1] = math.nan
        return value * math.nan

    monkeypatch.setattr(IntuitorTrainer, "_compute_loss", loss)
    recipe = tiny_recipe.replace(max_steps=8, save_steps=1, on_collapse="restore", beta=0.01)
    run = train(recipe, runs=tmp_path)
    assert (run.steps, run.status["restored"]) == (6, 3)
    assert column in run.metrics[-1]["not_finite"]
    assert column not in run.metrics[-1]


def test_weights_that_are_no_numbers_are_never_saved(tiny_recipe, tmp_path, monkeypatch):
    original = IntuitorTrainer._compute_loss

    def loss(self, *args):
        return original(self, *args) * (math.nan if self.state.global_step == 2 else 1)

    recipe = tiny_recipe.replace(max_steps=5, save_steps=1, snapshot_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(IntuitorTrainer, "_compute_loss", loss)
        with pytest.raises(InputError, match=r"step 3 made the weights NaN.* learning_rate=0\.001"):
            train(recipe, runs=tmp_path)
    (run,) = RunStore(tmp_path)
    assert run.status["state"] == "failed"
    assert [*run.snapshots] == [1, 2]
    assert newest_checkpoint(run.path, pytest.fail).name == "checkpoint-2"
    assert train(recipe, runs=tmp_path).steps == 5  # the cause is gone


def break_kl(monkeypatch, at):
    """Make the monitor see a collapse from a step on."""
    original = Recorder.on_log

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.global_step >= at and logs and "reward" in logs:
            logs = {**logs, "kl": 5.0}
        return original(self, args, state, control, logs=logs, **kwargs)

    monkeypatch.setattr(Recorder, "on_log", on_log)


def test_a_collapse_is_told_and_the_training_goes_on(tiny_recipe, tmp_path, monkeypatch, caplog):
    break_kl(monkeypatch, at=5)
    run = train(tiny_recipe.replace(max_steps=8), runs=tmp_path)
    assert run.steps == 8
    assert [row["step"] for row in run.metrics if "collapse" in row] == [5, 6, 7, 8]
    assert caplog.text.count("seems to collapse") == 1


def test_a_collapse_goes_back_to_the_checkpoint_before_it(tiny_recipe, tmp_path, monkeypatch):
    recipe = tiny_recipe.replace(max_steps=8, save_steps=2)
    whole = train(recipe.replace(max_steps=8), runs=tmp_path / "whole")
    assert "collapse" not in whole.status
    break_kl(monkeypatch, at=6)
    run = train(recipe.replace(on_collapse="restore"), runs=tmp_path)
    assert (run.finished, run.steps, run.status["restored"]) == (True, 6, 2)
    monkeypatch.undo()
    two = train(recipe.replace(on_collapse="stop"), runs=tmp_path / "other")
    assert two.steps == 8


def test_going_back_without_a_checkpoint_is_refused(tiny_recipe, tmp_path, monkeypatch):
    break_kl(monkeypatch, at=4)
    recipe = tiny_recipe.replace(max_steps=8, save_steps=8, on_collapse="restore")
    with pytest.raises(InputError, match="before its first checkpoint"):
        train(recipe, runs=tmp_path)


def test_held_out_prompts_that_are_too_long_are_not_measured(tiny_recipe, tmp_path, caplog):
    data = tmp_path / "sums.jsonl"
    rows = [{"problem": f"{a}+1=", "answer": str(a + 1)} for a in range(8)]
    rows += [{"problem": "1+" * 400 + f"{a}=", "answer": "7"} for a in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = tiny_recipe.replace(dataset=str(data), eval_problems=8, eval_steps=2)
    run = train(recipe, runs=tmp_path)
    short = run.metrics[-1]["held_out/n"]
    assert 0 < short < 8
    assert f"{8 - short} of 8 held-out prompts are longer than max_prompt_length=64" in caplog.text


def test_held_out_accuracy_is_measured_on_the_way_and_changes_nothing(tiny_recipe, tmp_path):
    recipe = tiny_recipe.replace(max_steps=4, eval_problems=6)
    with_it = train(recipe.replace(eval_steps=2), runs=tmp_path / "with")
    without = train(recipe, runs=tmp_path / "without")
    assert [row["step"] for row in with_it.metrics if "held_out/accuracy" in row] == [2, 4]
    assert {row["held_out/n"] for row in with_it.metrics[1::2]} == {6}
    for row in with_it.metrics:
        row.pop("held_out/accuracy", None), row.pop("held_out/n", None)
    name = "adapter_model.safetensors"
    assert (with_it.adapter / name).read_bytes() == (without.adapter / name).read_bytes()
    assert json.dumps(with_it.completions) == json.dumps(without.completions)
