"""Results on record: files that are read if they exist and made otherwise.

data/results/<profile>/...     committed with the project
runs/results/<profile>/...     of this machine

A result with rows is a Parquet file, whose metadata hold the rest as JSON; any other is JSON.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from ..store import RunStore, data_folder
from ..store.files import write_bytes

_SUFFIXES = (".parquet", ".json")
_METADATA = b"intuitor"


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
        name: name of its file without suffix, with `/` between folders.
        make: makes the result. If it is a mapping with a list of mappings under "rows", these have
            the same columns, missing ones None.
        profile: the profile it belongs to.
        key: JSON-ready; a record with another key is ignored.
        retrain: ignore the results committed with the project.
        runs: the run store.
    """
    key = json.loads(json.dumps(key))
    stored = RunStore(runs).root / "results" / profile
    data = data_folder()
    committed = data and data / "results" / profile
    folders = [stored] if retrain or committed is None else [committed, stored]
    for folder in folders:
        for suffix in _SUFFIXES:
            path = folder / (name + suffix)
            if path.is_file():
                found = read_result(path)
                if found["key"] == key:
                    return found["result"]
    return read_result(_write(stored, name, key, make()))["result"]


def read_result(path: Path) -> dict[str, Any]:
    """The `key` and the `result` in a file of `result_files`."""
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    table = pyarrow.parquet.read_table(path)
    found = json.loads(table.schema.metadata[_METADATA])
    return {"key": found["key"], "result": {**found["result"], "rows": table.to_pylist()}}


def result_files(folder: Path) -> list[Path]:
    """The results in a folder and below."""
    return sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES)


def _write(folder: Path, name: str, key: Any, value: Any) -> Path:
    rest, rows = value, None
    if isinstance(value, dict) and isinstance(value.get("rows"), list):
        rest, rows = {k: v for k, v in value.items() if k != "rows"}, value["rows"]
    text = _dump({"key": key, "result": rest})
    content, suffix = text.encode() + b"\n", ".json"
    if rows is not None:
        columns = dict.fromkeys(column for row in rows for column in row)
        table = pyarrow.table({column: [row.get(column) for row in rows] for column in columns})
        sink = pyarrow.BufferOutputStream()
        with_rest = table.replace_schema_metadata({_METADATA: text.encode()})
        pyarrow.parquet.write_table(with_rest, sink, compression="zstd")
        content, suffix = sink.getvalue().to_pybytes(), ".parquet"
    write_bytes(folder / (name + suffix), content)
    for other in {*_SUFFIXES} - {suffix}:
        (folder / (name + other)).unlink(missing_ok=True)
    return folder / (name + suffix)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
