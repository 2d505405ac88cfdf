"""Trainings in processes of their own."""

import asyncio
import json
import os
import shutil
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from intuitor_lib.lab import LiveRun, live, panel, start, watch
from intuitor_lib.lab.panel import Panel, duration, headline
from intuitor_lib.problems import load_problems
from intuitor_lib.recipe import InputError, Recipe
from intuitor_lib.store import Run, RunStore
from intuitor_lib.store.locks import LOCK, OWNER, hold


@pytest.fixture
def new(tiny_recipe, tmp_path):
    """A run that has not begun."""
    return LiveRun(RunStore(tmp_path).open(tiny_recipe, load_problems(tiny_recipe).describe()))


def until(condition, seconds=120):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.05)


async def awaited(training):
    return await training


def test_a_run_that_nobody_trains(new):
    assert new.state == "new"
    assert new.error is None
    assert "step 0 of 2" in repr(new)
    new.stop()  # nothing to stop
    for wait in (new.wait, lambda: asyncio.run(awaited(new))):
        with pytest.raises(InputError, match="is new after step 0 of 2: press Resume"):
            wait()


def test_a_run_that_another_process_holds(new):
    new.run.set_status("running")
    with hold(new.run.path, "training"):
        assert new.state == "running"
        with pytest.raises(TimeoutError, match="running"):
            new.wait(0.01)
    assert new.state == "interrupted"


def test_another_machine_is_told_and_nothing_is_killed(new, monkeypatch):
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("killed"))
    with hold(new.run.path, "training"):
        note = {"pid": 1, "host": "elsewhere", "since": "now"}
        (new.run.path / OWNER).write_text(json.dumps(note))
        with pytest.raises(InputError, match="elsewhere: stop it there"):
            new.stop()
        (new.run.path / OWNER).write_text("{")
        with pytest.raises(InputError, match="does not name"):
            new.stop()
    assert (new.run.path / LOCK).exists()


def test_the_time_left_is_by_the_last_steps(new):
    new.run.set_status("running")
    new.run.append("metrics.jsonl", [{"step": 1, "step_time": 100.0, "collapse": ["kl"]}])
    with hold(new.run.path, "training"):
        assert "step 1 of 2, 2 min left (100 s a step); alarms: kl" in headline(new)
    assert "Resume goes on" in headline(new)


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (89.9, "90 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_second_process_is_not_started_beside_one_that_loads(new, monkeypatch):
    monkeypatch.setattr(live.subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    folder = new.run.path.parent / "logs" / new.run.id
    folder.mkdir(parents=True)
    with hold(folder, "loading"):
        assert new.state == "starting"
        new.resume()
    assert new.state == "new"


def test_other_problems_are_not_trained_under_the_run(new, tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(live.subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    other = tmp_path / "other.jsonl"
    other.write_text('{"problem": "1+1=", "answer": "2"}\n')
    with pytest.raises(InputError, match="begun on other problems"):
        LiveRun(new.run, tiny_recipe.replace(dataset=str(other))).resume()


def test_the_recipe_that_is_asked_for_is_trained_with_its_labels(new, tiny_recipe, monkeypatch):
    trained = []

    class Process:
        pid = 1

        def __init__(self, command, **settings):
            assert command[1:4] == ["-m", "intuitor_lib", "train"]
            assert command[5:] == ["--runs", str(new.run.path.parent)]
            trained.append(Recipe.from_json(Path(command[4]).read_text()))

        def poll(self):
            return None

    monkeypatch.setattr(live.subprocess, "Popen", Process)
    recipe = tiny_recipe.replace(save_steps=2)  # the same run
    LiveRun(new.run, recipe).resume()
    new.resume()
    assert trained == [recipe, tiny_recipe]


def test_the_panel_shows_what_the_files_hold(new):
    shown = Panel(new)
    assert shown.refresh() == "new"
    assert not shown._resume.disabled
    assert shown._stop.disabled
    assert shown._newest.value == ""
    empty = shown._curves.value
    made = {"step": 1, "problem": "1+1", "prompt": "1+1=", "completion": "<2>", "tokens": 1}
    new.run.append("completions.jsonl", [made])
    new.run.append("metrics.jsonl", [{"step": 1, "rewards/self_certainty/mean": 9.0}])
    shown.refresh()
    assert shown._curves.value != empty
    assert "&lt;2&gt;" in shown._newest.value


def test_a_refused_stop_is_shown(new, monkeypatch):
    def refuse():
        raise InputError("run on another machine")

    shown = Panel(new)
    monkeypatch.setattr(new, "stop", refuse)
    shown._stop.click()
    assert "another machine" in shown._message.value
    shown.refresh()
    assert "another machine" in shown._message.value


def test_the_panel_follows_a_run_that_another_process_resumes(new, monkeypatch):
    handle = Mock()
    monkeypatch.setattr(panel.display, "show", lambda *_: handle)
    monkeypatch.setattr(panel, "_POLL", 0.02)
    new.run.set_status("interrupted")
    shown = Panel(new)
    shown.show()
    until(lambda: handle.update.called)
    with hold(new.run.path, "training"):
        new.run.set_status("running")
        until(lambda: "running" in shown._headline.value)
    new.run.set_status("interrupted")
    until(lambda: "interrupted" in shown._headline.value)
    shutil.rmtree(new.run.path)
    until(lambda: "is gone: run the cell again" in shown._message.value)


def test_the_panel_reads_the_recipe_once(new, monkeypatch):
    """Reading it silences warnings, in the whole process, and the panel has a thread."""
    monkeypatch.setattr(Run, "recipe", property(lambda run: pytest.fail("read again")))
    assert Panel(new).refresh() == "new"
    assert "step 0 of 2" in repr(new)


@pytest.mark.slow
def test_a_training_is_stopped_resumed_and_ends(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "person_there", lambda: True)
    monkeypatch.setattr(panel.display, "show", lambda *_: None)
    monkeypatch.setattr(Panel, "_watch", lambda self: None)
    began = time.monotonic()
    training = start(tiny_recipe.replace(max_steps=400), runs=tmp_path)
    assert time.monotonic() - began < 5
    assert training.state == "starting"
    other = watch(training.run.id, runs=tmp_path)
    until(lambda: other.run.steps >= 2)
    assert other.state == training.state == "running"
    other.stop()  # from another notebook
    assert other.state in ("stopping", "interrupted")
    with pytest.raises(InputError, match="interrupted after step"):
        training.wait(60)
    assert training.state == other.state == "interrupted"
    steps = training.run.steps
    assert 2 <= steps < 400
    training.resume()
    training.resume()  # one process is enough
    until(lambda: training.run.steps > steps)
    assert [row["step"] for row in training.run.metrics][: steps + 1] == [*range(1, steps + 2)]
    training.stop()
    with pytest.raises(InputError):
        training.wait(60)
    assert training.run.verify() == {}
    assert training.log.read_text()


@pytest.mark.slow
def test_a_process_that_fails_says_why(tiny_recipe, tmp_path, monkeypatch):
    recipe = tiny_recipe.replace(model=str(tmp_path / "nothing"))
    training = LiveRun(RunStore(tmp_path).open(recipe, load_problems(recipe).describe()))
    training.resume()
    with pytest.raises(RuntimeError, match="nothing"):
        training.wait(60)
    assert training.state == "failed"
    assert "nothing" in headline(training)


def test_a_process_that_fails_before_it_takes_the_run_says_why(tiny_recipe, tmp_path, monkeypatch):
    run = RunStore(tmp_path).open(tiny_recipe, load_problems(tiny_recipe).describe())
    run.set_status("failed", error="an old reason")
    training = LiveRun(run)
    assert training.error == "an old reason"
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ImportError: libcudart'\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr("intuitor_lib.lab.live.sys.executable", str(python))
    for state in ("failed", "interrupted"):
        run.set_status(state)
        training.resume()
        with pytest.raises(RuntimeError, match="libcudart"):
            training.wait(60)
    assert training.state == "failed"


@pytest.mark.slow
def test_in_batch_it_trains_here_and_leaves_a_figure(tiny_recipe, tmp_path, shown):
    training = start(tiny_recipe, runs=tmp_path)
    assert training.run.finished
    assert asyncio.run(awaited(training)) == training.run
    ((static, widget),) = shown
    assert widget is None
    assert "<img" in static
    assert "finished" in static
    assert "Newest completions" in static
    assert start(tiny_recipe, runs=tmp_path).state == "finished"  # trains nothing
