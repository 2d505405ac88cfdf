"""Rows of .jsonl, .json, .csv and .parquet files and of hub data sets, with faults by line.

A row that cannot be read becomes a `Fault` in its place, so that all faults are reported at once.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..recipe import InputError
from ..recipe.files import as_utf8

TABLE_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")

FAULTS_SHOWN = 20

# How files begin that have a table's name and no table's content.
_NOT_DATA = {
    b"version https://git-lfs": "a Git LFS pointer, not the data: run `git lfs pull`, or download "
    "the file itself",
    b"/annex/objects/": "a git-annex pointer, not the data: run `git annex get`",
    b"<!doctype html": "a web page, not the data: download the file itself",
    b"<html": "a web page, not the data: download the file itself",
    b"\x1f\x8b": "compressed (gzip): unpack it",
    b"\x28\xb5\x2f\xfd": "compressed (zstd): unpack it",
    b"pk\x03\x04": "a zip archive or an Excel workbook: unpack it, or save it as CSV in UTF-8",
}


class DataError(InputError):
    """Problems that cannot be loaded. The message has the source, the faults and a remedy."""


class Fault(str):
    """The reason why a row is unusable."""


class RawTable(NamedTuple):
    """Rows of a source, each as its number and its cells or a fault."""

    columns: list[str]
    records: list[tuple[int, Mapping[str, Any] | Fault]]
    unit: str = "line"


def list_faults(faults: Sequence[str]) -> str:
    """Faults on a line each, the first twenty of them, for the end of a message."""
    more = len(faults) - FAULTS_SHOWN
    rest = [f"and {more} more"] if more > 0 else []
    return "".join(f"\n  {line}" for line in [*faults[:FAULTS_SHOWN], *rest])


def sound_rows(table: RawTable, name: str) -> list[tuple[int, dict[str, Any]]]:
    """The rows with their numbers, or a DataError that lists the faults under the name."""
    bad = [f"{table.unit} {n}: {row}" for n, row in table.records if isinstance(row, Fault)]
    if bad:
        raise DataError(f"{name}: {len(bad)} faults{list_faults(bad)}")
    return [(n, dict(row)) for n, row in table.records if not isinstance(row, Fault)]


def read_table(path: Path, columns: Sequence[str] = ()) -> RawTable:
    """The rows of a file.

    Args:
        path: a file whose name ends in one of `TABLE_SUFFIXES`.
        columns: if given, a parquet file is read only for them, and a JSON object that has the
            first of them is a row, whatever lists it holds. A name with dots is that of a field:
            "reward_model.ground_truth".

    Raises:
        DataError: the file cannot be opened, has another suffix, or is not what its suffix says.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise DataError(f"{path}: a file of problems ends in one of {', '.join(TABLE_SUFFIXES)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{str(path)!r}: cannot read {path.absolute()} ({error.strerror})"
        ) from error
    opening = content[:100].lstrip().lower()
    for start, what in _NOT_DATA.items():
        if opening.startswith(start):
            raise DataError(f"{path.name} is {what}")
    if suffix == ".parquet":
        return _read_parquet(content, path.name, columns)
    try:
        content = as_utf8(content, path.name)
    except InputError as error:
        raise DataError(str(error)) from error
    return _read_csv(content) if suffix == ".csv" else _read_json(content, path.name, columns)


def _read_json(content: bytes, name: str, columns: Sequence[str]) -> RawTable:
    """Rows that are objects on a line each, or behind one another, or in an array."""
    # JSON may have U+2028 and other characters at which str.splitlines would cut it.
    lines = enumerate(content.split(b"\n"), 1)
    pairs = [(number, _parse_json(line)) for number, line in lines if line.strip()]
    unit = "line"
    if len(pairs) == 1 or (pairs and isinstance(pairs[0][1], Fault)):
        values = _parse_json(content, several=True)
        whole = sum(isinstance(row, dict) for _, row in pairs)
        if not isinstance(values, Fault):
            rows = _rows_of(values, name, columns)
            if rows is not values or isinstance(pairs[0][1], Fault):
                unit, pairs = "row", list(enumerate(rows, 1))
        elif 2 * whole < len(pairs):
            pairs = [(1, Fault(f"{values}; give one object a line, or an array of objects"))]
    records: list[tuple[int, Any]] = [
        (n, row if isinstance(row, dict | Fault) else Fault("not a JSON object"))
        for n, row in pairs
    ]
    found = dict.fromkeys(c for _, row in records if isinstance(row, dict) for c in row)
    return RawTable(list(found), records, unit)


def _rows_of(values: list[Any], name: str, columns: Sequence[str]) -> list[Any]:
    """The rows of a file of JSON values: of an array, or of the one list in an object."""
    value = values[0] if len(values) == 1 else None
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return values
    held = [v for v in value.values() if isinstance(v, list | dict)]
    if not held or (columns and _is_row(value, columns[0])):
        return values
    lists = [v for v in held if isinstance(v, list) and any(isinstance(row, dict) for row in v)]
    if len(lists) == 1:
        return lists[0]
    if columns:
        keys = ", ".join(map(shown, value))
        raise DataError(
            f"{name} is one object with the keys {keys}, not a list of rows: give an array of "
            "objects, or one object a line"
        )
    return values


def _is_row(value: dict[str, Any], column: str) -> bool:
    """Whether an object with the prompt's column is a row, not a table with a value a row in it."""
    top, dot, _ = column.partition(".")
    plain = all(
        isinstance(v, list | dict) and not any(isinstance(part, list | dict) for part in v)
        for v in value.values()
    )
    return top in value and (bool(dot) or not plain)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} occurs twice in an object")
    return values


_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder(object_pairs_hook=_once)


def _parse_json(text: bytes, *, several: bool = False) -> Any:
    """The value of a text, or the list of its `several` values one behind the other."""
    try:
        decoded = text.decode("utf-8").strip()
        if not several:
            return _DECODER.decode(decoded)
        values, end = [], 0
        while end < len(decoded):
            value, end = _DECODER.raw_decode(decoded, end)
            values.append(value)
            end = _SPACE.match(decoded, end).end()  # type: ignore[union-attr]
        return values
    except UnicodeDecodeError as error:
        return Fault(f"invalid UTF-8: {error.reason} at byte {error.start}{_likely(text)}")
    except json.JSONDecodeError as error:
        return Fault(f"invalid JSON: {error.msg} at character {error.pos}")
    except (ValueError, RecursionError) as error:
        return Fault(f"invalid JSON: {error}")


def _likely(text: bytes) -> str:
    """What to do with bytes that are not UTF-8: guessing would change problems unnoticed."""
    # Windows-1252 has single bytes among ASCII, East Asian encodings have them in pairs.
    runs = re.findall(rb"[\x80-\xff]+", text)
    single = sum(len(run) == 1 for run in runs)
    which = "probably Windows-1252" if 2 * single > len(runs) else "in another encoding"
    return f" ({which}: save the file as UTF-8)"


def _read_csv(content: bytes) -> RawTable:
    # Invalid bytes become surrogates, so that other lines can still be read.
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    columns: list[str] = []
    records: list[tuple[int, Any]] = []
    before = csv.field_size_limit(max(csv.field_size_limit(), len(content)))
    try:
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except csv.Error as error:
                records.append((number, Fault(f"invalid CSV: {error}")))
                continue
            if not is_unicode(line := "".join(cells)):
                likely = _likely(line.encode("utf-8", "surrogateescape"))
                records.append((number, Fault(f"invalid UTF-8{likely}")))
            elif not columns:
                columns = cells
            elif cells and len(cells) != len(columns):
                fault = f"{len(cells)} cells under {len(columns)} columns: quote cells with commas"
                fault += " or line breaks"
                records.append((number, Fault(fault)))
            elif cells:
                records.append((number, dict(zip(columns, cells, strict=False))))
    except StopIteration:
        return RawTable(columns, records)
    finally:
        csv.field_size_limit(before)


def _read_parquet(content: bytes, name: str, columns: Sequence[str]) -> RawTable:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(content)) as file:
            names = list(file.schema_arrow.names)
            table = file.read(_wanted(names, columns))
        return RawTable(names, _as_written_rows(table.to_pylist(), table.schema), "row")
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{name} is not a readable parquet file: {error}") from error


def read_hub(
    dataset: str,
    name: str | None,
    split: str,
    revision: str | None,
    *,
    columns: Sequence[str] = (),
    instead: str,
) -> RawTable:
    """The rows of a Hugging Face data set; `instead` is the remedy where there is no hub.

    A class label is its name, and None where it is unknown (-1).
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
    kinds = rows.features.items()
    labels = {key: kind for key, kind in kinds if isinstance(kind, datasets.ClassLabel)}
    records = _as_written_rows((_named(row, labels) for row in rows), rows.features.arrow_schema)
    return RawTable(list(table.column_names), records, "row")


def _named(row: dict[str, Any], labels: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose class labels, numbers from 0, are their names."""
    given = {key: (row[key], kind) for key, kind in labels.items()}
    return row | {
        key: None if number is None or number < 0 else kind.int2str(number)
        for key, (number, kind) in given.items()
    }


def _wanted(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The columns to read: other columns of code data sets hold megabytes of tests."""
    tops = {*columns, *(column.partition(".")[0] for column in columns)}
    return [name for name in names if not columns or name in tops]


def _as_written_rows(rows: Iterable[dict[str, Any]], schema: Any) -> list[tuple[int, Any]]:
    """Numbered rows, with numbers of less than 64 bits as written: 0.1, not 0.10000000149."""
    return [
        (n, {field.name: _as_written(row[field.name], field.type) for field in schema})
        for n, row in enumerate(rows, 1)
    ]


def _as_written(value: Any, kind: Any) -> Any:
    import pyarrow.types as kinds

    if isinstance(value, dict) and kinds.is_struct(kind):
        return {field.name: _as_written(value[field.name], field.type) for field in kind}
    if isinstance(value, list) and (kinds.is_list(kind) or kinds.is_large_list(kind)):
        return [_as_written(part, kind.value_type) for part in value]
    if isinstance(value, float) and (kinds.is_float16(kind) or kinds.is_float32(kind)):
        return float(str(kind.to_pandas_dtype()(value)))
    return value


def shown(name: str) -> str:
    """A name for a message, without control characters."""
    return name if name.isprintable() else repr(name)


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogate."""
    return re.search("[\ud800-\udfff]", text) is None
