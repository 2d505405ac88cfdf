"""Open the run of a recipe and hold it, by all processes that train it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..problems import Problems
from ..recipe import InputError, Recipe
from ..report import LiveTraining
from ..store import Run, RunStore
from ..store.files import read_rows
from ..store.processes import all_or_none, from_all, from_main, is_main


def open_run(recipe: Recipe, problems: Problems, runs: str | Path | None) -> Run:
    """The run, created by the main process if it is new.

    Raises:
        InputError: the processes were given different recipes or problems.
    """
    with all_or_none():
        described = problems.describe()
        path = RunStore(runs).open(recipe, described).path if is_main() else Path()
    asked = set(from_all([(recipe.digest, described["fingerprint"])]))
    if len(asked) > 1:
        raise InputError(
            f"the processes were given {len(asked)} different recipes or problems: start them all "
            "with the same command, on the same files"
        )
    return Run(from_main(path))


@contextlib.contextmanager
def held(run: Run) -> Iterator[None]:
    """Hold the run's lock in the main process; the other processes wait with it."""
    if is_main():
        with contextlib.closing(_Watching(run)) as watching, run.lock(watching):
            watching.close()
            from_main(True)
            yield
    else:
        while not from_main(False):
            pass
        yield


class _Watching:
    """Shows the training of another process while this one waits for it."""

    def __init__(self, run: Run) -> None:
        self.run, self.shown = run, 0
        self.display: LiveTraining | None = None

    def __call__(self) -> None:
        from_main(False)
        if self.display is None:
            self.display = LiveTraining(f"{self.run.id}, elsewhere", self.run.recipe.max_steps)
        rows = read_rows(self.run.path / "metrics.jsonl")
        if len(rows) != self.shown:
            self.shown = len(rows)
            if rows:
                self.display.update(rows)

    def close(self) -> None:
        if self.display is not None:
            self.display.close(f"`{self.run.id}`: the other process is done")
            self.display = None
