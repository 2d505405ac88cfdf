"""`Run`: one training in the store."""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..recipe import InputError, Recipe
from . import files
from .checkpoints import checkpoint_faults
from .locks import LOCK, OWNER, now, owner
from .stored import Stored


@dataclasses.dataclass(frozen=True)
class Run(Stored):
    """One training in the store; every property reads its file anew.

    Records of a finished run that differ from their checksum raise a `DamagedError`.

    runs/<recipe name>-s<seed>-<hash>/
        recipe.json  problems.json  environment.json  status.json
        local_weights.json contents of a model or adapter in a local folder
        metrics.jsonl      one row per step, TRL's metric names
        completions.jsonl  sampled completions with their rewards
        adapter/           the trained LoRA weights (model/ when all weights were trained)
        snapshots/         the weights after some steps, where the recipe asks for them
        checkpoints/       to resume from; removed when the run is finished
        SHA256SUMS         checksums of the finished files
    """

    _work = "training"
    _last = "metrics.jsonl"

    @property
    def recipe(self) -> Recipe:
        """The recipe that is trained."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the recipe warned when it was made
            return self._read("recipe.json", lambda file: Recipe.from_json(file.read_text("utf-8")))

    @property
    def status(self) -> dict[str, Any]:
        """`state` (new, running, interrupted, failed, finished, damaged) and its times."""
        status = self._read_status()
        if status is None or (status["state"] == "running" and owner(self.path) is None):
            # Checksums are written last, so a run that has them lacks only its status.
            cut_off = "damaged" if status is None else "interrupted"
            state = "finished" if self.has_checksums else cut_off
            status = {**(status or {}), "state": state}
        return status

    def _read_status(self) -> dict[str, Any] | None:
        """The status, or None if the file is damaged or missing."""
        if not (self.path / "status.json").is_file() and not self.has_checksums:
            return {"state": "new"}
        try:
            status = files.read_json(self.path / "status.json")
            return status if status.pop("checksum") == _checksum(status) else None
        except (OSError, ValueError, KeyError, AttributeError):
            return None

    @property
    def finished(self) -> bool:
        """Whether all steps are trained and the result is saved."""
        return self.status["state"] == "finished"

    def require_finished(self) -> None:
        """Raise an `InputError` for a run that is not finished."""
        if not self.finished:
            raise InputError(
                f"run {self.id} is {self.status['state']}, not finished: train its recipe again, "
                "which goes on from its last checkpoint"
            )

    def require_same_base(self) -> None:
        """Raise an `InputError` if the local folders it began from hold other weights now."""
        now_there = self.recipe.local_weights()
        for key, contents in self.local_weights.items():
            if now_there.get(key, contents) != contents:
                raise InputError(
                    f"run {self.id} began from {key}={getattr(self.recipe, key)!r}, whose files "
                    "have been changed since: put them back, or train the recipe again"
                )

    @property
    def problems(self) -> dict[str, Any]:
        """Source, counts and fingerprint of the problems."""
        return files.read_json(self.path / "problems.json")

    @property
    def local_weights(self) -> dict[str, str]:
        """The recipe's `local_weights` when the run began."""
        file = self.path / "local_weights.json"
        return files.read_json(file) if file.is_file() else {}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """A row per training step: `step`, TRL's metrics, `step_time`, `rollout_time` (seconds)."""
        return self._rows("metrics.jsonl")

    @property
    def completions(self) -> list[dict[str, Any]]:
        """Sampled completions: step, prompt, completion, one column per reward."""
        return self._rows("completions.jsonl")

    @property
    def steps(self) -> int:
        """Training steps recorded."""
        return max((row["step"] for row in self.metrics), default=0)

    @property
    def result_step(self) -> int | None:
        """The step whose weights are the result, None before the run is finished."""
        status = self.status
        return status.get("restored", self.steps) if status["state"] == "finished" else None

    @property
    def seconds(self) -> float:
        """Seconds spent in training steps, over all resumptions."""
        return sum(row.get("step_time", 0.0) for row in self.metrics)

    @property
    def adapter(self) -> Path:
        """Folder of the trained LoRA weights."""
        return self.path / "adapter"

    @staticmethod
    def snapshot_name(step: int) -> str:
        """Relative folder of the policy after a step."""
        return f"snapshots/step-{step:05d}"

    @property
    def snapshots(self) -> dict[int, Path]:
        """Folders of the policies kept during training (`snapshot_steps`), by step."""
        folders = sorted((self.path / "snapshots").glob("step-*"))
        numbers = {folder: folder.name.partition("-")[2] for folder in folders}
        return {int(number): folder for folder, number in numbers.items() if number.isdecimal()}

    def weights(self, step: int | None = None) -> Path:
        """Folder of the result's weights, or of a step's; `InputError` if that was not kept."""
        if step is None or step == self.result_step:
            return self.adapter if self.recipe.use_lora else self.path / "model"
        if step not in self.snapshots:
            kept = ", ".join(map(str, self.snapshots)) or "none"
            raise InputError(
                f"run {self.id} kept no snapshot of step {step}; it kept: {kept}. "
                "snapshot_steps sets how often, and does not make another run: remove this run "
                "and train it again with another value"
            )
        return self.snapshots[step]

    def weights_digest(self, step: int | None = None) -> str | None:
        """16 hex digits over the recorded checksums of the weights; None if none are recorded.

        Of the `.safetensors` alone: PEFT writes its settings in another order each time.
        """
        folder = self.weights(step).relative_to(self.path).as_posix()
        sums = self._read(files.SUMS, lambda file: files.read_sums(file.parent))
        lines = [
            f"{sums[name]}  {name}\n"
            for name in sorted(sums)
            if name.startswith(f"{folder}/") and name.endswith(".safetensors")
        ]
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:16] if lines else None

    def set_status(self, state: str, **details: Any) -> None:
        """Write the state and details; other fields of the status stay."""
        status = {**self.status, "state": state, "changed": now(), **details}
        status["checksum"] = _checksum(status)
        files.write_json(self.path / "status.json", status)

    def append(self, file: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to `metrics.jsonl` or `completions.jsonl`."""
        files.append_rows(self.path / file, rows)

    def save_folder(self, name: str, save: Callable[[Path], None]) -> None:
        """Let `save` fill a folder, which appears whole or not at all."""
        with files.new_folder(self.path / name) as filled:
            save(filled)
            shutil.rmtree(self.path / name, ignore_errors=True)

    def clean(self) -> None:
        """Remove files that a killed process left half written; the caller holds the run."""
        for path in (*self.path.glob(".*"), *self.path.glob("snapshots/.*")):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in (LOCK, OWNER):
                path.unlink(missing_ok=True)

    def finish(self, **details: Any) -> None:
        """Record checksums and the status "finished" with `details`; remove the checkpoints."""
        (self.path / files.SUMS).unlink(missing_ok=True)
        files.record_checksums(self.path, self._lasting())
        steps, seconds = self.steps, round(self.seconds, 1)
        self.set_status("finished", steps=steps, seconds=seconds, error=None, **details)
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def tidy(self) -> None:
        """Remove leftovers of a process that was killed after it had finished the run."""
        left = [path for path in self.path.glob(".*") if path.name != LOCK]
        if (left or (self.path / "checkpoints").exists()) and owner(self.path) is None:
            with contextlib.suppress(OSError), self.lock():  # it may be read-only
                self.clean()
                shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def _lasting(self) -> list[str]:
        return [
            name
            for name in files.names_in(self.path)
            if name not in ("status.json", files.SUMS) and not name.startswith("checkpoints/")
        ]

    def verify(self) -> dict[str, str]:
        """Damage to its files and checkpoints, by relative path.

        The records of an unfinished run are left out: a checkpoint brings its own.
        """
        found = files.faults(self.path)
        if self._read_status() is None:
            found["status.json"] = "damaged or missing"
        if self.finished and files.SUMS not in found:
            unlisted = set(self._lasting()) - files.read_sums(self.path).keys()
            found |= dict.fromkeys(sorted(unlisted), f"has no checksum in {files.SUMS}")
        for folder in sorted((self.path / "checkpoints").glob("checkpoint-*")):
            for name, fault in checkpoint_faults(folder).items():
                found[f"checkpoints/{folder.name}/{name}"] = fault
        return found


def _checksum(status: Mapping[str, Any]) -> str:
    """SHA-256 of a status without its own checksum."""
    kept = {key: value for key, value in status.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
