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
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .checkpoints import RECORDS, checkpoint_faults
from .files import (
    SUMS,
    append_rows,
    dump_rows,
    faults,
    files,
    read_rows,
    read_sums,
    seal,
    write_text,
)
from .locks import hold, is_lock, owner
from .recipe import InputError, Recipe

__all__ = [
    "DamagedError",
    "EvaluationRecord",
    "Run",
    "RunStore",
    "data_folder",
    "environment",
    "project_root",
    "run_digest",
]

_PACKAGES = "intuitor torch transformers trl peft bitsandbytes accelerate datasets reasoning-gym"


def project_root(start: Path | None = None) -> Path | None:
    """The folder of the project around `start` (the working folder), or None outside of it."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "intuitor_lib").is_dir() and (folder / "notebooks").is_dir():
            return folder
    return None


def data_folder() -> Path | None:
    """`data/` of the project around the working folder, else around this library; or None."""
    root = project_root() or project_root(Path(__file__).parent)
    return None if root is None else root / "data"


def environment() -> dict[str, Any]:
    """Versions of what the result depends on, and the machine; no host name, no paths."""
    versions = {}
    for name in _PACKAGES.split():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "packages": versions,
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class DamagedError(InputError):
    """A stored file is not what was written. The message names it and says what to do."""


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A folder of the store: its name, environment and tables."""

    path: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, device and precision of the last process that worked on it."""
        file = self.path / "environment.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def set_environment(self, details: Mapping[str, Any]) -> None:
        """Write versions and machine, with `details` of the policy."""
        text = json.dumps({**environment(), **details}, indent=2) + "\n"
        write_text(self.path / "environment.json", text)

    def has_table(self, name: str) -> bool:
        """Whether `table(name)` is there."""
        return (self.path / _table_name(name)).is_file()

    def table(
        self, name: str, make: Callable[[], list[dict[str, Any]]] | None = None
    ) -> list[dict[str, Any]]:
        """A stored measurement; made by `make` and stored when there is none yet.

        Raises:
            KeyError: there is none, and no `make`.
            DamagedError: it is not what was stored.
        """
        file = _table_name(name)
        if not self.has_table(name):
            if make is None:
                raise KeyError(f"{self.id} has no table {name!r}")
            (self.path / "tables").mkdir(exist_ok=True)
            with hold(self.path / "tables", f"measuring {name} of {self.id}"):
                if not self.has_table(name):
                    write_text(self.path / file, dump_rows(make()))
                    self._seal([file])
        return self._rows(file)

    def _seal(self, names: Iterable[str]) -> None:
        try:
            seal(self.path, names)
        except ValueError as error:
            raise DamagedError(self._damage({SUMS: str(error)})) from error

    def _rows(self, name: str) -> list[dict[str, Any]]:
        """Rows of a file; of one whose checksum is recorded, only if it is right."""
        self.require_whole([name])
        return read_rows(self.path / name)

    def require_whole(self, names: Iterable[str] | None = None) -> None:
        """Compare files (of those with a checksum: `names`, or all) with their checksums.

        Raises:
            DamagedError: with every file that is damaged, and how.
        """
        found = faults(self.path, names)
        if found:
            raise DamagedError(self._damage(found))

    def _damage(self, found: Mapping[str, str]) -> str:
        listed = "; ".join(f"{name}: {fault}" for name, fault in found.items())
        return (
            f"{self.id} is damaged ({listed}). Put a copy of it back, or remove the folder "
            f"{self.path} and ask for it again; `intuitor runs verify` checks the whole store"
        )


def _table_name(name: str) -> str:
    return f"tables/{re.sub(r'[^A-Za-z0-9.]+', '-', name)}.jsonl"


@dataclasses.dataclass(frozen=True)
class Run(_Stored):
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
        status = {**self.status, "state": state, "changed": _now(), **details}
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
            found |= {} if name in found else _unreadable(name, read)
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


@dataclasses.dataclass(frozen=True)
class EvaluationRecord(_Stored):
    """One evaluation in the store: a policy on a benchmark, decoded in one way.

    evaluations/<benchmark>-<policy>-<hash>/
        evaluation.json    what was asked: policy, items, decoding
        environment.json   versions, device and precision
        items.jsonl        one row per completion, in the order they were made
        tables/*.jsonl     what was computed from them
    """

    @property
    def spec(self) -> dict[str, Any]:
        """`policy`, `benchmark` and `decoding`, each with its settings."""
        return json.loads((self.path / "evaluation.json").read_text(encoding="utf-8"))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per completion, sorted by item and sample; an interrupted one has fewer."""
        order = {item: i for i, item in enumerate(self.spec["benchmark"]["_ids"])}
        rows = self._rows("items.jsonl")
        return sorted(rows, key=lambda row: (order[row["id"]], row["sample"]))

    @property
    def finished(self) -> bool:
        """Whether every completion is there."""
        spec = self.spec
        wanted = spec["benchmark"]["n"] * spec["decoding"]["num_samples"]
        return len(read_rows(self.path / "items.jsonl")) == wanted

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to `items.jsonl`."""
        append_rows(self.path / "items.jsonl", rows)

    def finish(self) -> None:
        """Record the checksums of its files, when every completion is there."""
        self._seal(["evaluation.json", "environment.json", "items.jsonl"])

    def verify(self) -> dict[str, str]:
        """What is wrong with its files, by relative path."""
        found = faults(self.path)
        found |= (
            {} if "evaluation.json" in found else _unreadable("evaluation.json", lambda: self.spec)
        )
        found |= {} if "items.jsonl" in found else _unreadable("items.jsonl", lambda: self.rows)
        return found

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the evaluation; waits, with a message, while another process works on it."""
        return hold(self.path, f"evaluating {self.id}")


def _unreadable(name: str, read: Callable[[], object]) -> dict[str, str]:
    """The fault of a file that `read` cannot read; none where it can."""
    try:
        read()
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {name: f"not readable: {error}"}
    return {}


def _checksum(status: Mapping[str, Any]) -> str:
    """SHA-256 of a status without its own checksum."""
    kept = {key: value for key, value in status.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def run_digest(recipe: Recipe, problems: Mapping[str, Any]) -> str:
    """The end of a run's name: 10 hex digits over the recipe and the problems' fingerprint."""
    text = f"{recipe.digest}:{problems['fingerprint']}"
    return hashlib.sha256(text.encode()).hexdigest()[:10]


class RunStore:
    """A folder of runs.

    Args:
        root: the folder; by default `INTUITOR_RUNS`, else `runs/` of the project.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        root = root or os.environ.get("INTUITOR_RUNS")
        self.root = Path(root).expanduser() if root else (project_root() or Path.cwd()) / "runs"

    def open(self, recipe: Recipe, problems: Mapping[str, Any]) -> Run:
        """The run of a recipe on these problems (`Problems.describe()`), made if it is new.

        Raises:
            OSError: the folder cannot be written.
        """
        digest = run_digest(recipe, problems)
        run = next(map(Run, self.root.glob(f"*-{digest}")), None)
        run = run or Run(self.root / f"{recipe.name}-s{recipe.seed}-{digest}")
        wanted: dict[str, tuple[str, Callable[[], object]]] = {
            "problems.json": (json.dumps(dict(problems), indent=2) + "\n", lambda: run.problems),
            "recipe.json": (recipe.to_json(), lambda: run.recipe),
        }
        try:
            for name, (text, read) in wanted.items():
                # What was asked for is known, so these two can be mended.
                if not run._is_sealed() and _unreadable(name, read):
                    write_text(run.path / name, text)
        except OSError as error:
            raise self._unwritable(error) from error
        return run

    def open_evaluation(self, spec: Mapping[str, Any]) -> EvaluationRecord:
        """The evaluation of these settings, made if it is new.

        Settings whose name begins with "_" describe and do not tell evaluations apart.

        Raises:
            OSError: the folder cannot be written.
        """
        kept = {
            part: {key: value for key, value in settings.items() if key[0] != "_"}
            for part, settings in spec.items()
        }
        digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:10]
        label = f"{spec['benchmark']['name']}-{spec['policy']['_name']}"
        folder = f"{re.sub(r'[^A-Za-z0-9._]+', '-', label)[:80]}-{digest}"
        for existing in (self.root / "evaluations").glob(f"*-{digest}/evaluation.json"):
            return EvaluationRecord(existing.parent)
        record = EvaluationRecord(self.root / "evaluations" / folder)
        try:
            write_text(record.path / "evaluation.json", json.dumps(dict(spec), indent=2) + "\n")
        except OSError as error:
            raise self._unwritable(error) from error
        return record

    def evaluations(self) -> Iterator[EvaluationRecord]:
        """Every evaluation, by name."""
        files = sorted((self.root / "evaluations").glob("*/evaluation.json"))
        return (EvaluationRecord(file.parent) for file in files)

    def _unwritable(self, error: OSError) -> OSError:
        return OSError(
            f"the run store {self.root} cannot be written: {error}. Name a folder of yours "
            "with --runs DIR or the environment variable INTUITOR_RUNS"
        )

    def __iter__(self) -> Iterator[Run]:
        """Every run, by name."""
        return (Run(file.parent) for file in sorted(self.root.glob("*/recipe.json")))

    def __getitem__(self, run_id: str) -> Run:
        """A run by its id.

        Raises:
            KeyError: there is none.
        """
        if not (self.root / run_id / "recipe.json").is_file():
            known = ", ".join(run.id for run in self) or "none"
            raise KeyError(f"no run {run_id!r} in {self.root}; it holds: {known}")
        return Run(self.root / run_id)
