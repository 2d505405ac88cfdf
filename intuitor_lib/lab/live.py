"""Trainings in processes of their own, which outlive the notebook that started them."""

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ..problems import Problems, load_problems
from ..recipe import InputError, Recipe
from ..report.progress import VARIABLE
from ..store import Run, RunStore
from ..store.files import write_text
from ..store.locks import LOCK, holder, is_here, write_owner
from .display import person_there

_POLL = 1.0  # seconds between two looks at a training
_AT_WORK = ("starting", "running", "stopping")


def start(
    recipe: Recipe, *, runs: str | Path | None = None, problems: Problems | None = None
) -> "LiveRun":
    """Train a recipe in a process of its own; show it live, and return at once.

    The training goes on when the kernel restarts or the browser closes; `watch` shows it again. A
    finished run is shown, an interrupted one resumed. Where nobody sits at the notebook (papermill,
    nbconvert, a script), it trains here, waits, and leaves a static figure.

    Args:
        recipe: the recipe to train.
        runs: folder of the run store; by default as in `RunStore`.
        problems: the result of `load_problems(recipe)`, if it is loaded already.

    Raises:
        InputError: malformed problems; in batch what `train` raises, too.
    """
    problems = problems or load_problems(recipe)
    if not person_there():
        from ..training.training import train

        live = LiveRun(train(recipe, runs=runs, problems=problems))
    else:
        live = LiveRun(RunStore(runs).open(recipe, problems.describe()), recipe)
        live.resume()
    live.show()
    return live


def watch(run: Run | str, *, runs: str | Path | None = None) -> "LiveRun":
    """Show a run as it trains, whichever process trains it, and return at once.

    Args:
        run: a run, or its id in the store.
        runs: folder of the run store; by default as in `RunStore`.

    Raises:
        KeyError: no run of that id.
    """
    live = LiveRun(run if isinstance(run, Run) else RunStore(runs)[run])
    live.show()
    return live


class LiveRun:
    """A run and the process that trains it, if there is one, on this machine or another.

    `state` is that of the run (new, interrupted, failed, finished, damaged), or of its process:
    starting (until it holds the run), running, or stopping (it ends this step and saves). With a
    `recipe`, its labels (`save_steps`, `report_to`) hold for what is trained from here.
    """

    def __init__(self, run: Run, recipe: Recipe | None = None) -> None:
        self.run, self.recipe = run, recipe or run.recipe
        self._process: subprocess.Popen[bytes] | None = None
        self._before: Any = None  # when the run's status had changed as that process began
        self._asked_to_stop = False

    @property
    def state(self) -> str:
        """What the run and its process do now."""
        status = self.run.status
        stored = status["state"]
        if stored == "finished":
            return stored
        if holder(self.run.path) is not None:
            if self._asked_to_stop:
                return "stopping"
            return "running" if stored == "running" else "starting"
        self._asked_to_stop = False
        code = None if self._process is None else self._process.poll()
        if holder(self._folder) is not None:
            return "starting"
        failed = code not in (None, 0, 130, -signal.SIGTERM)
        if failed and status.get("changed") == self._before:
            return "failed"  # before it took the run
        return stored

    @property
    def _folder(self) -> Path:
        """What its processes leave, beside the run, whose files have checksums; one holds it."""
        return self.run.path.parent / "logs" / self.run.id

    @property
    def log(self) -> Path:
        """File with what the process printed."""
        return self._folder / "printed.txt"

    @property
    def error(self) -> str | None:
        """Why the training failed, or its process was killed; None if neither."""
        state = self.state
        killed = self._process is not None and self._process.returncode == -signal.SIGKILL
        if killed and state not in (*_AT_WORK, "finished"):
            return "its process was killed, as it is by a machine out of memory"
        if state != "failed":
            return None
        status = self.run.status
        said = None
        if self._process is None or status.get("changed") != self._before:
            said = status.get("error")
        printed = self.log.read_text(errors="replace") if self.log.is_file() else ""
        lines = [line for line in re.split(r"[\r\n]+", printed) if line.strip()]
        return said or "\n".join(lines[-3:]) or "its process ended without a message"

    def resume(self) -> None:
        """Train the run from its last checkpoint, in a new process; nothing if one is at work.

        Raises:
            InputError: its problems are other ones now.
        """
        if self.state in (*_AT_WORK, "finished"):
            return
        recipe = self.recipe
        if load_problems(recipe).fingerprint != self.run.problems["fingerprint"]:
            raise InputError(
                f"run {self.run.id} was begun on other problems than dataset={recipe.dataset!r} "
                "has now: put the file back, or start the recipe again, which is another run"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / "recipe.json"
        write_text(file, recipe.to_json())
        # The child has this lock until it ends, so nobody starts a second one beside it.
        with (self._folder / LOCK).open("ab") as lock, self.log.open("ab") as log:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            log.truncate(0)
            self._before = self.run.status.get("changed")
            store = str(self.run.path.parent.resolve())
            command = ["train", str(file.resolve()), "--runs", store]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "intuitor_lib", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if name != VARIABLE},
                pass_fds=[lock.fileno()],
                start_new_session=True,  # the end of the kernel is not its end
            )
            write_owner(self._folder, self._process.pid)

    def stop(self) -> None:
        """Ask the training to end after this step and save; `resume` goes on from there.

        Before its first step it ends at once.

        Raises:
            InputError: it runs on another machine.
        """
        note = holder(self.run.path)
        note = holder(self._folder) if note is None else note
        if note is None:
            return
        if not is_here(note):
            where = note.get("host", "a machine that its note does not name")
            raise InputError(
                f"run {self.run.id} is trained on {where}: stop it there, by an interrupt "
                f"(Ctrl-C) or `kill {note.get('pid', 'PID')}`"
            )
        with contextlib.suppress(ProcessLookupError):
            os.kill(note["pid"], signal.SIGTERM)
            self._asked_to_stop = True

    def wait(self, seconds: float | None = None) -> Run:
        """The run, when it is finished.

        In a notebook, `await` the training instead: buttons work while such a cell waits.
        Interrupting it ends the waiting, not the training.

        Raises:
            InputError: the training was stopped before its last step.
            RuntimeError: it failed.
            TimeoutError: it is still at work after `seconds`.
        """
        began = time.monotonic()
        while self.state in _AT_WORK:
            if seconds is not None and time.monotonic() - began > seconds:
                raise TimeoutError(f"{self} after {seconds:g} s of waiting")
            time.sleep(_POLL)
        return self._finished()

    def __await__(self) -> Generator[Any, None, Run]:
        """The run, when it is finished; errors as of `wait`."""
        return self._wait().__await__()

    async def _wait(self) -> Run:
        while self.state in _AT_WORK:
            await asyncio.sleep(_POLL)
        return self._finished()

    def _finished(self) -> Run:
        """The run; an error if it is not finished."""
        if self.state == "failed":
            raise RuntimeError(f"run {self.run.id} failed: {self.error}; its log is {self.log}")
        if not self.run.finished:
            raise InputError(
                f"run {self.run.id} is {self.state} after step {self.run.steps} of "
                f"{self.recipe.max_steps}: press Resume, or call resume(), and wait again"
            )
        return self.run

    def show(self) -> None:
        """Show the run in the cell's output: live where a person sits at the notebook."""
        from .panel import Panel, static

        if person_there():
            Panel(self).show()
        else:
            static(self)

    def __repr__(self) -> str:
        return f"{self.run.id}: {self.state}, step {self.run.steps} of {self.recipe.max_steps}"
