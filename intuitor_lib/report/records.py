"""Records of executed notebooks: their numbers, for programs and tests.

A record has profile, environment and sample sizes beside every number, so that no result of a small
model or a stand-in can be mistaken for one of the paper.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..store import RunStore, environment, require_readable
from ..store.files import read_json, write_text
from .tables import Table


def _path(notebook: str, profile: str, runs: str | Path | None) -> Path:
    return RunStore(runs).root / "records" / f"{notebook}-{profile}.json"


def save_record(
    notebook: str,
    profile: str,
    *,
    table: Table,
    values: Mapping[str, Any],
    runs: str | Path | None = None,
) -> Path:
    """Store the numbers of an executed notebook: a table to read and `values` for programs.

    Raises:
        ValueError: a value that is not finite JSON.
    """
    content = {
        "notebook": notebook,
        "profile": profile,
        "environment": environment(),
        "table": table.to_dict(),
        "values": dict(values),
    }
    path = _path(notebook, profile, runs)
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path


def load_record(notebook: str, profile: str, runs: str | Path | None = None) -> dict[str, Any]:
    """The stored record.

    Raises:
        KeyError: the notebook has not been executed under this profile.
        InputError: as `read_record`.
    """
    path = _path(notebook, profile, runs)
    if not path.is_file():
        raise KeyError(
            f"no record of {notebook} under {profile}: run `intuitor reproduce {notebook} "
            f"--profile {profile}`"
        )
    return read_record(path)


def read_record(path: Path) -> dict[str, Any]:
    """The record in a file; an `InputError` if a later version wrote it in another format."""
    record = read_json(path)
    require_readable(record.get("environment", {}), path.name)
    return record
