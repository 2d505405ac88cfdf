"""Record a training in its run, show its metrics, and watch them for a collapse."""

import logging
from collections.abc import Callable
from typing import Any

import transformers
from accelerate.utils import gather_object

from ..recipe import Recipe
from ..report import LiveTraining
from ..store import Run
from ..store.files import read_rows
from ..store.processes import from_main, join
from .monitor import Alarm, alarms, distinct

logger = logging.getLogger(__name__)

_MUST_BE_FINITE = ("loss", "grad_norm", "reward", "kl")


class Recorder(transformers.TrainerCallback):
    """Writes each step's metrics and completions to the run and shows the metrics.

    Every process has one; the main process writes a row for each step. With `num_iterations` above
    1 a rollout serves several steps; only the first one's row has its rewards and completions.
    `held_out` measures the accuracy on held-out problems and its number of completions,
    `snapshot(step)` saves the policy.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        display: LiveTraining,
        held_out: Callable[[], tuple[float, int]] | None = None,
        snapshot: Callable[[int], object] | None = None,
    ) -> None:
        self.recipe, self.run, self.display = recipe, run, display
        self._main = join().is_main_process
        self.rows = read_rows(run.path / "metrics.jsonl") if self._main else []
        self._held_out, self._snapshot = held_out, snapshot
        self._more: dict[str, float] = {}
        self.latest: list[dict[str, Any]] = []  # completions of the last rollout, in this process
        self._warned = {name for row in self.rows for name in row.get("collapse", [])}

    def completions(self, rows: list[dict[str, Any]]) -> None:
        """Record the completions of every process; each process passes its own."""
        rows = gather_object(rows)
        if self._main:
            self.run.append("completions.jsonl", rows)
            self.latest = rows
            texts = [row["completion"] for row in rows]
            self._more["completions/distinct"] = distinct(texts, self.recipe.num_generations)
            self._more["completions/repetition"] = sum(r["repetition"] for r in rows) / len(rows)
            if any(row.get("accuracy") is None for row in rows):  # of some problems without a label
                judged = [row for row in rows if row.get("accuracy") is not None]
                self._more["rewards/accuracy/n"] = len(judged) / self.recipe.num_generations

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        every = self.recipe.eval_steps
        if self._held_out is not None and every and state.global_step % every == 0:
            accuracy, n = self._held_out()
            self._more |= {"held_out/accuracy": accuracy, "held_out/n": n}
        kept = self.recipe.snapshot_steps
        if self._snapshot is not None and kept and state.global_step % kept == 0 and self._main:
            self._snapshot(state.global_step)
        control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" not in (logs or {}):  # the summary at the end
            return
        found: list[Alarm] = []
        if self._main:
            numbers = {k: v for k, v in logs.items() if isinstance(v, int | float)}
            finite = {k: v for k, v in numbers.items() if abs(v) < float("inf")}
            row: dict[str, Any] = {"step": state.global_step, **finite, **self._more}
            # TRL writes None for NaN; a reward has none where no completion could be judged.
            broken = [k for k in _MUST_BE_FINITE if k in logs and k not in finite]
            broken = [k for k in broken if (k, logs[k]) != ("reward", None)]
            # In fp16 the loss is scaled: an update that overflows is left out, the scale halved.
            if getattr(kwargs.get("optimizer"), "step_was_skipped", False):
                row["update_skipped"] = 1.0
                broken = [k for k in broken if k != "grad_norm"]
            if broken:
                row["not_finite"] = broken
            logs.update(self._more)  # for trackers, which come after
            self._more = {}
            found = alarms([*self.rows, row], problems=self.recipe.problems_per_step)
            if found:
                row["collapse"] = [alarm.name for alarm in found]
            self.rows.append(row)
            self.run.append("metrics.jsonl", [row])
            self._warn(found)
            self.display.update(self.rows)
        if self.recipe.on_collapse != "warn" and from_main(bool(found)):
            control.should_training_stop = True

    def _warn(self, found: list[Alarm]) -> None:
        consequence = {
            "warn": "the training continues (on_collapse='warn')",
            "stop": "the training stops (on_collapse='stop')",
            "restore": "the last checkpoint before it is the result (on_collapse='restore')",
        }[self.recipe.on_collapse]
        for alarm in found:
            if alarm.name not in self._warned:
                self._warned.add(alarm.name)
                logger.warning("this training seems to collapse: %s; %s", alarm, consequence)
