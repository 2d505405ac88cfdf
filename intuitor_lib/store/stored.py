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
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..recipe.constants import InputError
from .files import SUMS, dump_rows, faults, read_rows, seal, write_text
from .locks import hold

__all__ = ["DamagedError", "environment"]

_PACKAGES = "intuitor torch transformers trl peft bitsandbytes accelerate datasets reasoning-gym"


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


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class DamagedError(InputError):
    """A stored file is not what was written. The message names it and says what to do."""


@dataclasses.dataclass(frozen=True)
class Stored:
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


def unreadable(name: str, read: Callable[[], object]) -> dict[str, str]:
    """The fault of a file that `read` cannot read; none where it can."""
    try:
        read()
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {name: f"not readable: {error}"}
    return {}
