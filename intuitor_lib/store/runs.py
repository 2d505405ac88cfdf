"""The run store: one folder per training, found again by what was trained.

    runs/<recipe name>-s<seed>-<hash>/
        recipe.json  problems.json  environment.json  status.json
        metrics.jsonl      one row per step, TRL's metric names
        completions.jsonl  sampled completions with their rewards
        tables/*.jsonl     measurements made on the run
        adapter/           the trained LoRA weights (model/ when all weights were trained)
        snapshots/         the weights after some steps, where the recipe asks for them
        checkpoints/       to resume from; removed when the run is finished
        SHA256SUMS         checksums of what is finished

The hash covers every setting that changes the result and the fingerprint of the problems, so
asking for a run that exists returns it. The folder is `runs/` of the project, or the one that
`INTUITOR_RUNS` names. Files are written whole or appended by lines; a finished run's are compared
with their checksums whenever they are read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..recipe.constants import InputError
from ..recipe.recipe import Recipe
from .checkpoints import RECORDS, checkpoint_faults
from .files import SUMS, append_rows, faults, files, read_rows, read_sums, seal, write_text
from .locks import hold, is_lock, owner
from .stored import Stored, now, unreadable

__all__ = ["Run", "run_digest"]


@dataclasses.dataclass(frozen=True)
class Run(Stored):
    """One training in the store; reads its files when asked."""

    @property
    def recipe(self) -> Recipe:
        """What was trained."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the recipe has to say, it said when it was made
            return Recipe.from_json((self.path / "recipe.json").read_text(encoding="utf-8"))

    @property
    def status(self) -> dict[str, Any]:
        """`state` (new, running, interrupted, failed, finished, damaged) and its times."""
        status = self._read_status()
        if status is None or (status["state"] == "running" and not self._is_held()):
            # The checksums are written last: a run that has them lacks nothing but its status.
            state = (
                "finished" if self._is_sealed() else "damaged" if status is None else "interrupted"
            )
            status = {**(status or {}), "state": state}
        return status

    def _read_status(self) -> dict[str, Any] | None:
        """The status; None where the file is damaged or gone."""
        if not (self.path / "status.json").is_file() and not self._is_sealed():
            return {"state": "new"}
        try:
            status = json.loads((self.path / "status.json").read_text(encoding="utf-8"))
            return status if status.pop("checksum") == _checksum(status) else None
        except (OSError, ValueError, KeyError, AttributeError):
            return None

    def _is_held(self) -> bool:
        holder = owner(self.path)
        return holder is not None and holder.alive

    def _is_sealed(self) -> bool:
        try:
            return "metrics.jsonl" in read_sums(self.path)
        except ValueError:
            return False

    @property
    def finished(self) -> bool:
        """Whether every step is trained and the result saved."""
        return self.status["state"] == "finished"

    def require_finished(self) -> None:
        """Refuse a run that cannot be used yet.

        Raises:
            InputError: it is not finished.
        """
        if not self.finished:
            raise InputError(
                f"run {self.id} is {self.status['state']}, not finished: train its recipe again, "
                "which goes on from its last checkpoint"
            )

    @property
    def problems(self) -> dict[str, Any]:
        """Where the problems came from, how many, and their fingerprint."""
        return json.loads((self.path / "problems.json").read_text(encoding="utf-8"))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One row per training step: `step`, TRL's metrics, `step_time` (seconds).

        Raises:
            DamagedError: of a finished run, they are not what was recorded.
        """
        return self._rows("metrics.jsonl")

    @property
    def completions(self) -> list[dict[str, Any]]:
        """Sampled completions: step, prompt, completion, one column per reward.

        Raises:
            DamagedError: of a finished run, they are not what was recorded.
        """
        return self._rows("completions.jsonl")

    @property
    def steps(self) -> int:
        """Training steps recorded."""
        return max((row["step"] for row in self.metrics), default=0)

    @property
    def seconds(self) -> float:
        """Seconds spent in training steps, over every resumption."""
        return sum(row.get("step_time", 0.0) for row in self.metrics)

    @property
    def adapter(self) -> Path:
        """Folder of the trained LoRA weights."""
        return self.path / "adapter"

    @staticmethod
    def snapshot_name(step: int) -> str:
        """The folder of the policy after a step, within the run."""
        return f"snapshots/step-{step:05d}"

    @property
    def snapshots(self) -> dict[int, Path]:
        """Folders of the policies kept on the way (`snapshot_steps`), by step."""
        folders = sorted((self.path / "snapshots").glob("step-*"))
        return {int(folder.name.partition("-")[2]): folder for folder in folders}

    def weights(self, step: int | None = None) -> Path:
        """Folder of the trained weights, of the result or of a snapshot.

        Raises:
            InputError: no snapshot of that step was kept.
        """
        if step is None or step == self.recipe.max_steps:
            return self.adapter if self.recipe.use_lora else self.path / "model"
        if step not in self.snapshots:
            kept = ", ".join(map(str, self.snapshots)) or "none"
            raise InputError(
                f"run {self.id} kept no snapshot of step {step}; it kept: {kept}. "
                "snapshot_steps says how often, and does not count in what a run is: remove the "
                "run and train it again with another value"
            )
        return self.snapshots[step]

    def set_status(self, state: str, **details: Any) -> None:
        """Write the state; the other fields keep what they had."""
        status = {**self.status, "state": state, "changed": now(), **details}
        status["checksum"] = _checksum(status)
        write_text(self.path / "status.json", json.dumps(status, indent=2) + "\n")

    def append(self, file: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to `metrics.jsonl` or `completions.jsonl`."""
        append_rows(self.path / file, rows)

    def save_folder(self, name: str, save: Callable[[Path], None]) -> None:
        """Have `save` fill a folder that appears whole or not at all."""
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".") as scratch:
            filled = Path(scratch) / "filled"
            filled.mkdir()
            save(filled)
            shutil.rmtree(self.path / name, ignore_errors=True)
            (self.path / name).parent.mkdir(exist_ok=True)
            filled.rename(self.path / name)

    def clean(self) -> None:
        """Remove what a killed process left half written; the caller holds the run."""
        for path in self.path.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif not is_lock(path):
                path.unlink(missing_ok=True)

    def finish(self, **details: Any) -> None:
        """Record the checksums and say that it is finished; then no checkpoint is needed.

        `details` are kept in the status.
        """
        (self.path / SUMS).unlink(missing_ok=True)
        seal(self.path, self._lasting())
        steps, seconds = self.steps, round(self.seconds, 1)
        self.set_status("finished", steps=steps, seconds=seconds, error=None, **details)
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def tidy(self) -> None:
        """Remove what a process left of a finished run that was killed after its last write."""
        left = [path for path in self.path.glob(".*") if path.name != ".lock"]
        if (left or (self.path / "checkpoints").exists()) and not self._is_held():
            with contextlib.suppress(OSError), self.lock():  # it may be read-only
                self.clean()
                shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def _lasting(self) -> list[str]:
        return [
            name
            for name in files(self.path)
            if name not in ("status.json", SUMS) and not name.startswith("checkpoints/")
        ]

    def verify(self) -> dict[str, str]:
        """What is wrong with the run's files, by relative path; checkpoints included."""
        found = faults(self.path)
        if self._read_status() is None:
            found["status.json"] = "damaged or missing"
        readers: dict[str, Callable[[], object]] = {
            "recipe.json": lambda: self.recipe,
            "problems.json": lambda: self.problems["fingerprint"],
            "environment.json": lambda: self.environment,
            **{name: functools.partial(read_rows, self.path / name) for name in RECORDS},
        }
        for name, read in readers.items():
            found |= {} if name in found else unreadable(name, read)
        if not found.keys() & {"recipe.json", "problems.json"}:
            asked = run_digest(self.recipe, self.problems)
            if not self.id.endswith(asked):
                found["recipe.json"] = f"with problems.json it makes {asked}, another run's number"
        if self.finished and SUMS not in found:
            result = (
                "adapter/adapter_model.safetensors"
                if self._trained_adapter()
                else "model/config.json"
            )
            unsealed = {*readers, result, *self._lasting()} - read_sums(self.path).keys()
            found |= dict.fromkeys(sorted(unsealed), f"has no checksum in {SUMS}")
        for folder in sorted((self.path / "checkpoints").glob("checkpoint-*")):
            for name, fault in checkpoint_faults(folder).items():
                found[f"checkpoints/{folder.name}/{name}"] = fault
        return found

    def _trained_adapter(self) -> bool:
        try:
            return self.recipe.use_lora
        except (OSError, ValueError):
            return True

    def lock(
        self, while_waiting: Callable[[], object] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Hold the run; waits, with a message, while another process trains it.

        `while_waiting` is called about once a second of waiting.
        """
        return hold(self.path, f"training {self.id}", while_waiting)


def _checksum(status: Mapping[str, Any]) -> str:
    """SHA-256 of a status without its own checksum."""
    kept = {key: value for key, value in status.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def run_digest(recipe: Recipe, problems: Mapping[str, Any]) -> str:
    """The end of a run's name: 10 hex digits over the recipe and the problems' fingerprint."""
    text = f"{recipe.digest}:{problems['fingerprint']}"
    return hashlib.sha256(text.encode()).hexdigest()[:10]
