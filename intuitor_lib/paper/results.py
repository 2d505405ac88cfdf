"""Results on record: files that are read if they exist and made otherwise.

data/results/<profile>/...     committed with the project
runs/results/<profile>/...     of this machine

A result is a Parquet file of rows, whose metadata hold the rest as JSON.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from ..store import FORMAT, RunStore, data_folder, require_readable
from ..store.files import write_bytes

_METADATA = b"intuitor"


def result(
    name: str,
    make: Callable[[], dict[str, Any]],
    *,
    profile: str,
    key: Any = None,
    retrain: bool = False,
    runs: str | Path | None = None,
) -> dict[str, Any]:
    """Return a result by name; if it is not on record, make and record it.

    Args:
        name: name of its file without suffix, with `/` between folders.
        make: makes the result, JSON-ready; its "rows" have the same columns, missing ones None.
        key: JSON-ready; a record with another key is ignored.
        retrain: ignore the results committed with the project.
    """
    file = find_file(name, profile=profile, key=key, retrain=retrain, runs=runs)
    if file is None:
        file = RunStore(runs).root / _file(name, profile)
        _write(file, key, **make())
    return read_result(file)


def find_file(
    name: str,
    *,
    profile: str,
    key: Any = None,
    retrain: bool = False,
    runs: str | Path | None = None,
) -> Path | None:
    """Find the file of a result, None if there is none; the arguments are those of `result`."""
    data, wanted = data_folder(), json.loads(json.dumps(key))
    for root in ([] if retrain or data is None else [data]) + [RunStore(runs).root]:
        if (file := root / _file(name, profile)).is_file():
            stored = json.loads(pyarrow.parquet.read_schema(file).metadata[_METADATA])
            if _key_of(stored) == wanted:
                return file
    return None


def _key_of(stored: dict[str, Any]) -> Any:
    """The key of a result, as it would be written today."""
    key = stored["key"]
    if not isinstance(key, dict) or not isinstance(key.get("test"), dict):
        return key
    # Earlier versions wrote how tables call a test, and not how its problems were asked.
    test = {name: x for name, x in key["test"].items() if name not in ("title", "column")}
    decoding = stored["result"].get("decoding", {})
    asked = {name: decoding[name] for name in ("max_new_tokens", "system_prompt") if decoding}
    return ({"asked": asked} if asked else {}) | key | {"test": test}


def _file(name: str, profile: str) -> Path:
    return Path("results", profile, f"{name}.parquet")


def read_result(path: Path) -> dict[str, Any]:
    """Read a result from its file; an `InputError` if it has a later format."""
    table = pyarrow.parquet.read_table(path)
    found = json.loads(table.schema.metadata[_METADATA])
    require_readable(found, path.name)
    return {**found["result"], "rows": table.to_pylist()}


def _write(path: Path, key: Any, *, rows: list[dict[str, Any]], **rest: Any) -> None:
    values = {"format": FORMAT, "key": key, "result": rest}
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    columns = dict.fromkeys(column for row in rows for column in row)
    table = pyarrow.table({column: [row.get(column) for row in rows] for column in columns})
    sink = pyarrow.BufferOutputStream()
    with_rest = table.replace_schema_metadata({_METADATA: text.encode()})
    pyarrow.parquet.write_table(with_rest, sink, compression="zstd", compression_level=22)
    write_bytes(path, sink.getvalue().to_pybytes())
