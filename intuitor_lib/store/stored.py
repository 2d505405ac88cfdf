"""`Stored`: a folder of the store with its environment and checksums.

`EvaluationRecord` is one with an evaluation, `runs.Run` one with a training.
"""

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..recipe import InputError
from . import files
from .locks import hold

T = TypeVar("T")

FORMAT = 1
"""Version of what is written: runs, evaluations, results, records of notebooks.

It is raised when an earlier reader would take something for what it is not; what an earlier version
wrote stays readable. Until it was written down it was 1.
"""

_VOTES = "tables/majority.jsonl"
_PACKAGES = "intuitor torch transformers trl peft bitsandbytes accelerate datasets reasoning-gym"


def environment() -> dict[str, Any]:
    """The format, versions of Python and packages, kind of machine; no host name, no paths."""
    versions = {}
    for name in _PACKAGES.split():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "format": FORMAT,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "packages": versions,
    }


def require_readable(written: Mapping[str, Any], name: str) -> None:
    """Raise an `InputError` for what a later version of the library wrote in another format."""
    number = written.get("format", 1)
    if number > FORMAT:
        raise InputError(
            f"{name} has format {number}, and this version of the library reads formats up to "
            f"{FORMAT}: install the version that wrote it, or a later one"
        )


class DamagedError(InputError):
    """A stored file differs from what was written. The message has the file and the remedy."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """A folder of the store: its name and environment."""

    path: Path
    _work = "using"  # what a process that holds it does
    _last = ""  # a file of whatever is finished

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, device and precision of the last process that worked on it."""
        file = self.path / "environment.json"
        return files.read_json(file) if file.is_file() else {}

    def set_environment(self, details: Mapping[str, Any]) -> None:
        """Write versions and machine, with `details` of the policy."""
        files.write_json(self.path / "environment.json", {**environment(), **details})

    def lock(
        self, while_waiting: Callable[[], object] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Hold the folder; waits, with a message, while another process works on it.

        `while_waiting` is called about once a second of waiting.
        """
        return hold(self.path, f"{self._work} {self.id}", while_waiting)

    def _record_checksums(self, names: Iterable[str]) -> None:
        try:
            files.record_checksums(self.path, names)
        except ValueError as error:
            raise DamagedError(self._damage({files.SUMS: str(error)})) from error

    def _rows(self, name: str) -> list[dict[str, Any]]:
        """Rows of a file, after comparing it with its checksum if one is recorded."""
        self._require_readable()
        self.require_whole([name])
        return files.read_rows(self.path / name)

    def _require_readable(self) -> None:
        try:
            written = self.environment
        except ValueError:  # damaged, which `verify` tells and a resumed training mends
            written = {}
        require_readable(written, self.id)

    def _read(self, name: str, read: Callable[[Path], T]) -> T:
        """Read a file that only damage can make unreadable."""
        try:
            return read(self.path / name)
        except (OSError, ValueError) as error:
            raise DamagedError(self._damage({name: str(error)})) from error

    @property
    def has_checksums(self) -> bool:
        """Whether the checksums of what is finished are recorded."""
        try:
            return self._last in files.read_sums(self.path)
        except ValueError:
            return False

    def require_whole(self, names: Iterable[str] | None = None) -> None:
        """Raise a `DamagedError` if files (all, or `names`) differ from recorded checksums."""
        found = files.faults(self.path, names)
        if found:
            raise DamagedError(self._damage(found))

    def verify(self) -> dict[str, str]:
        """Damage to its files, by relative path."""
        return files.faults(self.path)

    def _damage(self, found: Mapping[str, str]) -> str:
        listed = "; ".join(f"{name}: {fault}" for name, fault in found.items())
        return (
            f"{self.id} is damaged ({listed}). Put a copy of it back, or remove the folder "
            f"{self.path} and ask for it again; `intuitor runs verify` checks the whole store"
        )


@dataclasses.dataclass(frozen=True)
class EvaluationRecord(Stored):
    """One evaluation in the store: a policy on a benchmark, decoded in one way.

    evaluations/<benchmark>-<policy>-<hash>/
        evaluation.json    settings: policy, items, decoding
        environment.json   versions, device and precision
        items.jsonl        one row per completion, in the order they were made
        tables/majority.jsonl  the vote of several samples of an item
    """

    _work = "evaluating"
    _last = "items.jsonl"

    @property
    def spec(self) -> dict[str, Any]:
        """`policy`, `benchmark` and `decoding`, each with its settings."""
        return self._read("evaluation.json", files.read_json)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per completion, sorted by item and sample; fewer if it was interrupted."""
        order = {item: i for i, item in enumerate(self.spec["benchmark"]["_ids"])}
        return sorted(self._rows("items.jsonl"), key=lambda row: (order[row["id"]], row["sample"]))

    @property
    def finished(self) -> bool:
        """Whether every completion is recorded."""
        spec = self.spec
        wanted = spec["benchmark"]["n"] * spec["decoding"]["num_samples"]
        return len(files.read_rows(self.path / "items.jsonl")) == wanted

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to `items.jsonl`."""
        files.append_rows(self.path / "items.jsonl", rows)

    @property
    def votes(self) -> list[dict[str, Any]]:
        """The majority answer of each item; none until `set_votes`."""
        return self._rows(_VOTES)

    def set_votes(self, votes: Iterable[Mapping[str, Any]]) -> None:
        """Store the majority answers."""
        files.write_text(self.path / _VOTES, files.dump_rows(votes))
        self._record_checksums([_VOTES])

    def verify(self) -> dict[str, str]:
        """Damage to its files, by relative path; an unfinished one has no checksums yet."""
        found = super().verify()
        if found or self.has_checksums:
            return found
        reads = {"evaluation.json": files.read_json, "items.jsonl": files.read_rows}
        for name, read in reads.items():
            try:
                read(self.path / name)
            except (OSError, ValueError) as error:
                found[name] = str(error)
        if not found and self.finished:
            found[files.SUMS] = "missing: asked for again, the evaluation records it"
        return found

    def finish(self) -> None:
        """Record the checksums of its files, once every completion is recorded."""
        self._record_checksums(["evaluation.json", "environment.json", "items.jsonl"])
