"""Several processes on one training: the same update as one, and one of them writes."""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import two_processes
from accelerate import PartialState
from accelerate.state import AcceleratorState
from conftest import make_tiny_recipe
from two_processes import compare_processes

from intuitor_lib.recipe.constants import InputError
from intuitor_lib.recipe.recipe import Recipe
from intuitor_lib.store import processes
from intuitor_lib.store.processes import (
    all_or_none,
    from_main,
    refuse_sharding,
    share_batch,
    warn_if_alone,
)
from intuitor_lib.store.run_store import RunStore
from intuitor_lib.store.runs import Run
from intuitor_lib.training.training import train


def batches(size, accumulation):
    """A recipe with a group in each batch."""
    return Recipe(
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        num_generations=size,
    )


@pytest.mark.parametrize(
    ("batch", "accumulation", "number", "shared"),
    [
        (4, 3, 1, (4, 3)),
        (7, 128, 2, (7, 64)),
        (7, 128, 128, (7, 1)),
        (16, 1, 2, (8, 1)),  # nothing is accumulated: the batch itself is shared
        (4, 3, 2, (3, 2)),
        (4, 7, 2, (2, 7)),
    ],
)
def test_processes_share_the_completions_of_an_update(batch, accumulation, number, shared):
    size, passes = share_batch(batches(batch, accumulation), number).values()
    assert (size, passes) == shared
    assert size * passes * number == batch * accumulation
    assert size <= batch


def test_completions_that_cannot_be_shared_are_refused():
    with pytest.raises(InputError, match="3 processes cannot share the 8 completions") as refusal:
        share_batch(batches(4, 2), 3)
    assert "start 2 or 4 processes" in str(refusal.value)
    assert "multiple of 3" in str(refusal.value)


def test_one_process_agrees_with_itself():
    assert from_main("run") == "run"
    with pytest.raises(KeyError), all_or_none():
        raise KeyError("its own error, not another's")


@pytest.mark.parametrize("made_before", [False, True])
def test_apple_s_gpu_is_left_alone(made_before, monkeypatch):
    for name in (*processes._STARTED, "LOCAL_RANK", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        if made_before:
            assert PartialState().device.type == "mps"
        assert processes.join().device == torch.device("cpu")
        assert processes.join().num_processes == 1
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_a_launcher_that_starts_one_process_of_several_is_told_of(monkeypatch, caplog):
    for name in processes._STARTED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    with caplog.at_level(logging.WARNING, logger="intuitor_lib.processes"):
        warn_if_alone()
        assert not caplog.records
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # as `accelerate launch` does for several
        warn_if_alone()
    assert "torchrun" in caplog.text


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "ZeRO-3"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, None),
        ({}, None),
    ],
)
def test_sharded_weights_are_refused_before_anything_is_made(
    asked, what, tiny_recipe, tmp_path, monkeypatch
):
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    if what is None:
        refuse_sharding()
        return
    with pytest.raises(InputError, match=f"{what} shards the weights"):
        train(tiny_recipe, runs=tmp_path)
    assert not any(tmp_path.iterdir())


def test_who_waits_for_a_run_keeps_the_others_informed(tmp_path, monkeypatch):
    monkeypatch.setattr("intuitor_lib.store.locks._POLL", 0.02)
    run, held, release, calls = Run(tmp_path), threading.Event(), threading.Event(), []

    def hold():
        with run.lock():
            held.set()
            release.wait(10)

    def waiting():
        calls.append(1)
        if len(calls) == 3:
            release.set()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    with run.lock(while_waiting=waiting):
        assert len(calls) >= 3
    holder.join()
    with run.lock(while_waiting=calls.clear):
        assert calls, "called although nothing was waited for"


@pytest.mark.slow
def test_two_processes_make_the_update_of_one(tiny_recipe, monkeypatch):
    """12 completions in groups of 4: a process has 6, so it shares a group with the other."""
    start = two_processes._start

    def start_unless_here(launcher, folder, label, *, threads, cpu=True):
        if launcher or torch.cuda.is_available():
            start(launcher, folder, label, threads=threads, cpu=cpu)
        else:
            two_processes._compute(folder, label)  # the one process; saves its start

    monkeypatch.setattr(two_processes, "_start", start_unless_here)
    recipe = tiny_recipe.replace(
        num_generations=4,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=3,
        beta=0.05,
        dtype="float32",
    )
    rows = compare_processes(
        recipe,  # NF4
        recipe.replace(quantization="none", update="plain", rollout="generate"),
    )
    assert len(rows) == 2
    for row in rows:
        assert (row["processes"], row["completions"]) == (2, 12)
        assert row["rewards"] < 1e-5  # nats, of about 1
        # A reward's rounding over a group's standard deviation, about 0.1 here.
        assert row["advantages"] < 1e-4
        assert row["gradients"] < 1e-4
        assert row["gradient_norm"] > 0.1


@pytest.fixture(scope="module")
def on_two(tiny_model, sums_file, tmp_path_factory):
    """What `process_worker` saw on each of two processes, and the folder it worked in."""
    folder = tmp_path_factory.mktemp("processes")
    halves = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    recipe = make_tiny_recipe(tiny_model, sums_file, max_steps=4, preflight_problems=2, **halves)
    (folder / "recipe.json").write_text(recipe.to_json())
    worker = Path(__file__).parents[1] / "process_worker.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node=2", worker, folder / "recipe.json", folder],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        cwd=worker.parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_one_run_is_written_and_returned_by_both(on_two):
    folder, (main, other) = on_two
    (run,) = RunStore(folder / "whole")
    assert main["processes"] == other["processes"] == 2
    assert run.environment["processes"] == 2
    assert run.finished
    assert [row["step"] for row in run.metrics] == [1, 2, 3, 4]
    assert (run.adapter / "adapter_model.safetensors").is_file()
    assert not (run.path / "checkpoints").exists()
    # Two groups of two in a step, one on each process; 8 rows a step are kept at most.
    for step in range(1, 5):
        problems = [row["problem"] for row in run.completions if row["step"] == step]
        assert len(problems) == 4
        assert len(set(problems)) == 2
    for call in ("first", "second"):  # the second loads nothing
        assert main[call] == {"status": 0, "printed": [str(run.path.resolve())]}
        assert other[call] == {"status": 0, "printed": []}


@pytest.mark.slow
def test_two_processes_resume_where_they_were(on_two):
    folder, seen = on_two
    (whole,) = RunStore(folder / "whole")
    (run,) = RunStore(folder / "broken")
    for each in seen:
        assert each["interrupted"] == ["interrupted", 2]
        # One micro-batch of two each, for the steps that were left.
        assert each["resumed"] == [True, str(run.path), [2, 3]]
    assert [row["step"] for row in run.metrics] == [1, 2, 3, 4]
    for a, b in zip(run.metrics, whole.metrics, strict=True):
        assert a["reward"] == pytest.approx(b["reward"], rel=1e-5)
    kept = [[row["completion"] for row in r.completions] for r in (run, whole)]
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_where_one_process_fails_none_waits_for_it(on_two):
    folder, (main, other) = on_two
    assert other["failure"] == ["InputError", "no such model here"]
    assert main["failure"][0] == "RuntimeError"
    assert "process 1 of 2 failed: InputError: no such model here" in main["failure"][1]
    (run,) = RunStore(folder / "failed")
    assert run.status["state"] == "failed"
