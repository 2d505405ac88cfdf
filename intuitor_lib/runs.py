"""The run store: one folder per training, found again by what was trained.

    runs/<recipe name>-s<seed>-<hash>/
        recipe.json  problems.json  environment.json  status.json
        metrics.jsonl      one row per step, TRL's metric names
        completions.jsonl  sampled completions with their rewards
        tables/*.jsonl     measurements made on the run
        adapter/           the trained LoRA weights (model/ when all weights were trained)
        checkpoints/       to resume from; removed when the run is finished

The hash covers every setting that changes the result and the fingerprint of the problems, so
asking for a run that exists returns it. The folder is `runs/` of the project, or the one that
`INTUITOR_RUNS` names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .recipe import InputError, Recipe

__all__ = [
    "EvaluationRecord",
    "Run",
    "RunStore",
    "environment",
    "project_root",
    "read_rows",
    "write_text",
]

_SECONDS_BETWEEN_CALLS = 30.0
_PACKAGES = "intuitor torch transformers trl peft bitsandbytes accelerate datasets reasoning-gym"


def project_root(start: Path | None = None) -> Path | None:
    """The folder of the project around `start` (the working folder), or None outside of it."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "intuitor_lib").is_dir() and (folder / "notebooks").is_dir():
            return folder
    return None


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch)
        raise


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a jsonl file, none if there is no file; a torn last line is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            if line:
                rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not JSON ({error.msg})") from error
    return rows


def _is_torn(file: Path) -> bool:
    """Whether a file has a last line without an end."""
    if not file.is_file() or not file.stat().st_size:
        return False
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"


def _dump_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


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
        return self._table_file(name).is_file()

    def table(
        self, name: str, make: Callable[[], list[dict[str, Any]]] | None = None
    ) -> list[dict[str, Any]]:
        """A stored measurement; made by `make` and stored when there is none yet.

        Raises:
            KeyError: there is none, and no `make`.
        """
        file = self._table_file(name)
        if not file.is_file():
            if make is None:
                raise KeyError(f"{self.id} has no table {name!r}")
            write_text(file, _dump_rows(make()))
        return read_rows(file)

    def _table_file(self, name: str) -> Path:
        return self.path / "tables" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}.jsonl"


@dataclasses.dataclass(frozen=True)
class Run(_Stored):
    """One training in the store; reads its files when asked."""

    @property
    def recipe(self) -> Recipe:
        """What was trained."""
        return Recipe.from_json((self.path / "recipe.json").read_text(encoding="utf-8"))

    @property
    def status(self) -> dict[str, Any]:
        """`state` (new, running, interrupted, failed, finished) and its times."""
        file = self.path / "status.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"state": "new"}

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
        """One row per training step: `step`, TRL's metrics, `step_time` (seconds)."""
        return read_rows(self.path / "metrics.jsonl")

    @property
    def completions(self) -> list[dict[str, Any]]:
        """Sampled completions: step, prompt, completion, one column per reward."""
        return read_rows(self.path / "completions.jsonl")

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

    @property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint to resume from."""
        found = (self.path / "checkpoints").glob("checkpoint-*/trainer_state.json")
        newest = sorted((int(f.parent.name.rsplit("-", 1)[1]), f.parent) for f in found)
        return newest[-1][1] if newest else None

    def set_status(self, state: str, **details: Any) -> None:
        """Write the state; the other fields keep what they had."""
        status = {**self.status, "state": state, "changed": _now(), **details}
        write_text(self.path / "status.json", json.dumps(status, indent=2) + "\n")

    def append(self, file: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to `metrics.jsonl` or `completions.jsonl`."""
        with (self.path / file).open("a", encoding="utf-8") as stream:
            stream.write(_dump_rows(rows))

    def rewind(self, step: int) -> None:
        """Forget rows after `step`, which a resumed training will write again."""
        for file in ("metrics.jsonl", "completions.jsonl"):
            rows = [row for row in read_rows(self.path / file) if row["step"] <= step]
            write_text(self.path / file, _dump_rows(rows))

    def save_folder(self, name: str, save: Callable[[Path], None]) -> None:
        """Have `save` fill a folder that appears whole or not at all."""
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".") as scratch:
            filled = Path(scratch) / name
            filled.mkdir()
            save(filled)
            shutil.rmtree(self.path / name, ignore_errors=True)
            filled.rename(self.path / name)

    def lock(
        self, while_waiting: Callable[[], object] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Hold the run; waits, with a message, while another process trains it.

        `while_waiting` is called before it waits and every half minute of waiting.
        """
        message = f"another process is training {self.id}; waiting for it"
        return _hold(self.path, message, while_waiting)


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
        rows = read_rows(self.path / "items.jsonl")
        return sorted(rows, key=lambda row: (order[row["id"]], row["sample"]))

    @property
    def finished(self) -> bool:
        """Whether every completion is there."""
        spec = self.spec
        wanted = spec["benchmark"]["n"] * spec["decoding"]["num_samples"]
        return len(read_rows(self.path / "items.jsonl")) == wanted

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to `items.jsonl`, which a torn last line would else spoil."""
        file = self.path / "items.jsonl"
        if _is_torn(file):
            write_text(file, _dump_rows(read_rows(file)))
        with file.open("a", encoding="utf-8") as stream:
            stream.write(_dump_rows(rows))

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the evaluation; waits, with a message, while another process works on it."""
        return _hold(self.path, f"another process is evaluating {self.id}; waiting for it")


@contextlib.contextmanager
def _hold(
    folder: Path, message: str, while_waiting: Callable[[], object] | None = None
) -> Iterator[None]:
    import filelock

    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(message, file=sys.stderr)
        while not lock.is_locked:
            if while_waiting is not None:
                while_waiting()
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=_SECONDS_BETWEEN_CALLS)
    try:
        yield
    finally:
        lock.release()


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
        text = f"{recipe.digest}:{problems['fingerprint']}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        for existing in self.root.glob(f"*-{digest}"):
            if (existing / "recipe.json").is_file():
                return Run(existing)
        run = Run(self.root / f"{recipe.name}-s{recipe.seed}-{digest}")
        try:
            write_text(run.path / "problems.json", json.dumps(dict(problems), indent=2) + "\n")
            write_text(run.path / "recipe.json", recipe.to_json())
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
