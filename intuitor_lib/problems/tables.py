"""Rows of .jsonl, .json, .csv and .parquet files and of hub data sets, with faults by line.

A row that cannot be read becomes a `Fault` in its place, so that all faults are reported at once.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..recipe import InputError

__all__ = [
    "TABLE_SUFFIXES",
    "DataError",
    "Fault",
    "RawTable",
    "is_unicode",
    "read_hub",
    "read_table",
]

TABLE_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


class DataError(InputError):
    """Problems that cannot be loaded. The message has the source, the faults and a remedy."""


class Fault(str):
    """The reason why a row is unusable."""


class RawTable(NamedTuple):
    """Rows of a source, each as its number and its cells or a fault."""

    columns: list[str]
    records: list[tuple[int, Mapping[str, Any] | Fault]]
    unit: str = "line"


def read_table(path: Path, columns: Collection[str] | None = None) -> RawTable:
    """The rows of a file; if `columns` are given, a parquet file is read only for them.

    Raises:
        DataError: the file cannot be opened, has another suffix, or is no parquet file.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise DataError(f"{path}: a file of problems ends in one of {', '.join(TABLE_SUFFIXES)}")
    try:
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(
            f"{str(path)!r}: cannot read {path.absolute()} ({error.strerror})"
        ) from error
    if suffix == ".parquet":
        return _read_parquet(content, path.name, columns)
    if suffix == ".csv":
        return _read_csv(content)
    if suffix == ".json" and content.lstrip().startswith(b"["):
        return _read_json(content, array=True)
    return _read_json(content)


def _read_json(content: bytes, *, array: bool = False) -> RawTable:
    if array:
        rows = _parse_json(content)
        pairs = [(1, rows)] if isinstance(rows, Fault) else list(enumerate(rows, 1))
    else:
        # JSON may have U+2028 and other characters at which str.splitlines would cut it.
        lines = enumerate(content.split(b"\n"), 1)
        pairs = [(number, _parse_json(line)) for number, line in lines if line.strip()]
    records: list[tuple[int, Any]] = [
        (n, row if isinstance(row, dict | Fault) else Fault("not a JSON object"))
        for n, row in pairs
    ]
    columns = dict.fromkeys(c for _, row in records if isinstance(row, dict) for c in row)
    return RawTable(list(columns), records, "row" if array else "line")


def _parse_json(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Fault(f"invalid UTF-8: {error.reason} at byte {error.start}")
    except json.JSONDecodeError as error:
        return Fault(f"invalid JSON: {error.msg} at character {error.pos}")
    except (ValueError, RecursionError) as error:
        return Fault(f"invalid JSON: {error}")


def _read_csv(content: bytes) -> RawTable:
    # Invalid bytes become surrogates, so that other lines can still be read.
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    columns: list[str] = []
    records: list[tuple[int, Any]] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return RawTable(columns, records)
        except csv.Error as error:
            records.append((number, Fault(f"invalid CSV: {error}")))
            continue
        if not is_unicode("".join(cells)):
            records.append((number, Fault("invalid UTF-8")))
        elif not columns:
            columns = cells
        elif len(cells) > len(columns):
            fault = f"{len(cells)} cells under {len(columns)} columns: quote cells with commas"
            records.append((number, Fault(fault)))
        elif cells:
            records.append((number, dict(zip(columns, cells, strict=False))))


def _read_parquet(content: bytes, name: str, columns: Collection[str] | None) -> RawTable:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(content)) as file:
            names = list(file.schema_arrow.names)
            batches = file.read(_wanted(names, columns))
    except pyarrow.ArrowException as error:
        raise DataError(f"{name} is not a readable parquet file: {error}") from error
    records: list[tuple[int, Any]] = []
    for i in range(batches.num_rows):
        try:
            records.append((i + 1, batches.slice(i, 1).to_pylist()[0]))
        except UnicodeDecodeError as error:
            records.append((i + 1, Fault(f"invalid UTF-8: {error.reason}")))
    return RawTable(names, records, "row")


def read_hub(
    dataset: str,
    *,
    name: str | None,
    split: str,
    revision: str | None,
    columns: Collection[str] | None = None,
    instead: str,
) -> RawTable:
    """The rows of a Hugging Face data set; `instead` is the remedy where there is no hub.

    Raises:
        DataError: it cannot be loaded.
    """
    import datasets

    # Network libraries under `datasets` raise errors of unrelated classes.
    try:
        table = datasets.load_dataset(dataset, name, split=split, revision=revision)
    except Exception as error:
        asked = {"dataset_name": name, "dataset_split": split, "dataset_revision": revision}
        raise DataError(
            f"cannot load dataset={dataset!r} from the Hugging Face hub with {asked}: {error}. "
            f"Check these; without the hub, {instead}"
        ) from error
    rows = table.select_columns(_wanted(table.column_names, columns))
    return RawTable(list(table.column_names), list(enumerate(rows, 1)), "row")


def _wanted(names: Collection[str], columns: Collection[str] | None) -> list[str]:
    """The columns to read: other columns of code data sets hold megabytes of tests."""
    return [name for name in names if columns is None or name in columns]


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
