"""Experiment trackers: TensorBoard, trackio and Weights & Biases.

transformers' callbacks send a training's metrics there. The classes here give the tracker's run the
name of the run, continue it when the training is resumed, add a few completions of each rollout,
and end it with the training.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas
from transformers.integrations import (
    TensorBoardCallback,
    TrackioCallback,
    WandbCallback,
    is_tensorboard_available,
    is_trackio_available,
    is_wandb_available,
)

from ..recipe import InputError, Recipe
from ..report import Table
from ..store import Run
from ..store.files import redact
from .recorder import Recorder

PROJECT = "intuitor"
"""The tracker's project; `WANDB_PROJECT` names another one to W&B."""

COMPLETIONS = 4
"""Completions shown of each rollout."""

_AVAILABLE = {
    "tensorboard": is_tensorboard_available,
    "trackio": is_trackio_available,
    "wandb": is_wandb_available,
}
_LEFT_OUT = ("token_ids", "token_self_certainty")


def require_trackers(recipe: Recipe) -> None:
    """Raise an `InputError` for a tracker of the recipe whose package is not installed."""
    for name in _names(recipe):
        if not _AVAILABLE[name]():
            raise InputError(
                f"report_to={name!r} and {name} cannot be imported: pip install {name}, or set "
                "report_to='none'"
            )


def trackers(recipe: Recipe, run: Run, recorder: Recorder) -> list[Any]:
    """The callbacks of a recipe's trackers, each a context that ends the tracker's run.

    They are for the main process alone, and come after `recorder`, whose completions they show.
    """
    return [_CALLBACKS[name](recipe, run, recorder) for name in _names(recipe)]


def log_folder(run: Run) -> Path:
    """Where trackers write beside the run; files in a run's own folder have checksums."""
    return run.path.parent / "logs" / run.id


def _names(recipe: Recipe) -> tuple[str, ...]:
    named = recipe.report_to
    return tuple(n for n in ((named,) if isinstance(named, str) else named) if n != "none")


class _Tracker:
    """What a callback here adds to that of transformers, which stands behind it in the order."""

    def __init__(self, recipe: Recipe, run: Run, recorder: Recorder) -> None:
        super().__init__()
        self.recipe, self.run, self.recorder = recipe, run, recorder

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        super().on_log(args, state, control, logs=logs, **kwargs)  # type: ignore[misc]
        rows = self.recorder.latest
        # With several updates of a rollout, the first one's step shows it.
        if "loss" in (logs or {}) and rows and rows[0]["step"] == state.global_step:
            every = max(1, len(rows) // COMPLETIONS)  # of different problems
            shown = [
                {key: value for key, value in row.items() if key not in _LEFT_OUT}
                for row in rows[::every][:COMPLETIONS]
            ]
            self.show(shown, state.global_step)

    def show(self, rows: Sequence[dict[str, Any]], step: int) -> None:
        """Show completions in the tracker."""
        raise NotImplementedError

    def close(self, failed: bool) -> None:
        """End the tracker's run."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        self.close(kind is not None)


class _TensorBoard(_Tracker, TensorBoardCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Steps after the checkpoint that a killed training resumes from are shown once.
        folder, step = str(log_folder(self.run)), state.global_step + 1
        self.tb_writer = self._SummaryWriter(log_dir=folder, purge_step=step)
        super().on_train_begin(args, state, control, **kwargs)

    def show(self, rows: Sequence[dict[str, Any]], step: int) -> None:
        table = Table([*rows[0]], [[*map(_one_line, row.values())] for row in rows], "")
        self.tb_writer.add_text("completions", table.to_markdown(), step)

    def close(self, failed: bool) -> None:
        if self.tb_writer is not None:
            self.tb_writer.close()


class _Trackio(_Tracker, TrackioCallback):
    def show(self, rows: Sequence[dict[str, Any]], step: int) -> None:
        table = self._trackio.Table(dataframe=pandas.DataFrame(rows))
        self._trackio.log({"completions": table, "train/global_step": step})

    def close(self, failed: bool) -> None:
        if self._initialized:  # else it ended with the training
            self._trackio.finish()


class _Wandb(_Tracker, WandbCallback):
    _own = False  # whether its run was begun here

    def setup(self, args: Any, state: Any, model: Any, **kwargs: Any) -> None:
        if self._wandb.run is None:
            folder = log_folder(self.run)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._wandb.init(
                    project=os.getenv("WANDB_PROJECT", PROJECT),
                    id=self.run.id,
                    name=self.run.id,
                    resume="allow",
                    dir=str(folder),
                    config=self.recipe.to_dict(),
                )
            except Exception as error:  # of the service, the network or the login
                raise InputError(
                    f"report_to='wandb': {redact(str(error))}. Log in with `wandb login`, or set "
                    "WANDB_MODE=offline, or report_to='none'"
                ) from error
            self._own = True
        super().setup(args, state, model, **kwargs)

    def show(self, rows: Sequence[dict[str, Any]], step: int) -> None:
        table = self._wandb.Table(dataframe=pandas.DataFrame(rows))
        self._wandb.log({"completions": table, "train/global_step": step})

    def close(self, failed: bool) -> None:
        if self._own:  # or the next training of this process would be logged in this run
            self._wandb.finish(exit_code=int(failed))


_CALLBACKS = {"tensorboard": _TensorBoard, "trackio": _Trackio, "wandb": _Wandb}


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())
