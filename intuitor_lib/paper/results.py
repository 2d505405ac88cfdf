"""Results on record: JSON files that are read if they exist and made otherwise.

data/results/<profile>/...     committed with the project
runs/results/<profile>/...     of this machine
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..recipe import InputError
from ..store import RunStore, data_folder
from ..store.files import write_text

__all__ = ["keep", "result"]


def result(
    name: str,
    make: Callable[[], Any],
    *,
    profile: str,
    key: Any = None,
    retrain: bool = False,
    runs: str | Path | None = None,
) -> Any:
    """Return a JSON-ready result by name; if it is not on record, make and record it.

    Args:
        name: name of its file, with `/` between folders.
        make: makes the result.
        profile: the profile it belongs to.
        key: JSON-ready; a record with another key is ignored.
        retrain: ignore the results committed with the project.
        runs: the run store.
    """
    key = json.loads(json.dumps(key))
    stored = RunStore(runs).root / "results" / profile / f"{name}.json"
    data = data_folder()
    committed = data and data / "results" / profile / f"{name}.json"
    for path in (None if retrain else committed, stored):
        if path is not None and path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["key"] == key:
                return found["result"]
    value = make()
    write_text(stored, _dump({"key": key, "result": value}))
    return json.loads(json.dumps(value))


def _dump(value: Mapping[str, Any]) -> str:
    """Format JSON with a line per column and per step, for readable diffs."""

    def lines(value: Any, depth: int) -> str:
        pad = " " * depth
        if isinstance(value, Mapping) and depth < 3 and value:
            parts = [f"{pad} {json.dumps(k)}: {lines(v, depth + 1)}" for k, v in value.items()]
            return "{\n" + ",\n".join(parts) + f"\n{pad}}}"
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return "[\n" + ",\n".join(f"{pad} {_text(item)}" for item in value) + f"\n{pad}]"
        return _text(value)

    return lines(value, 0) + "\n"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def keep(
    profile: str, notebooks: Sequence[str] = (), *, runs: str | Path | None = None
) -> list[Path]:
    """Copy results and notebook records of the run store into the project's data folder.

    Args:
        profile: the profile to keep.
        notebooks: numbers or names of notebooks, to keep only their records and no results.
        runs: the run store.

    Returns:
        The files written.

    Raises:
        InputError: the working folder is in no project, or there is nothing to keep.
    """
    data, root = data_folder(), RunStore(runs).root
    if data is None:
        raise InputError("no project here: keep results from within a clone of it")
    sources = [] if notebooks else sorted((root / "results" / profile).rglob("*.json"))
    sources += [
        source
        for source in sorted((root / "records").glob(f"*-{profile}.json"))
        if not notebooks or source.stem.startswith(tuple(notebooks))
    ]
    if not sources:
        raise InputError(f"{root} holds no results under {profile}: execute the notebooks first")
    copies = [data / source.relative_to(root) for source in sources]
    for source, copy in zip(sources, copies, strict=True):
        write_text(copy, source.read_text(encoding="utf-8"))
    return copies
