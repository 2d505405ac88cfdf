"""Files that are whole or not there: written at once, appended by lines, checked by SHA-256.

A folder's checksums are in its `SHA256SUMS`, in the format of coreutils: `sha256sum -c SHA256SUMS`
checks it without this package.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "SUMS",
    "append_rows",
    "digest",
    "dump_rows",
    "faults",
    "files",
    "read_rows",
    "read_sums",
    "redact",
    "seal",
    "write_text",
]

SUMS = "SHA256SUMS"
"""Name of the file of checksums."""

_BLOCK = 2**20  # bytes


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the whole new one."""
    _replace(path, text.encode("utf-8"))


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch)
        raise


def dump_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as jsonl.

    Raises:
        ValueError: a number that JSON does not have (NaN, infinity).
    """
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows to a jsonl file, in one write; a torn last line is taken off first.

    A failed write (a full disk) leaves the lines that were there.
    """
    content = dump_rows(rows).encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as stream:
        whole = _whole_lines(path)
        if whole < stream.seek(0, os.SEEK_END):
            stream.truncate(whole)
        left = memoryview(content)
        try:
            while left:
                left = left[stream.write(left) :]
        except BaseException:
            with contextlib.suppress(OSError):
                stream.truncate(whole)
            raise


def _whole_lines(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        end = size
        while end > 0:
            begin = max(0, end - _BLOCK)
            stream.seek(begin)
            newline = stream.read(end - begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            end = begin
    return 0


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a jsonl file, none if there is no file; a torn last line is left out.

    Raises:
        ValueError: another line is not JSON; with the file and the line's number.
    """
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            if line:
                rows.append(json.loads(line.decode("utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
    return rows


def digest(path: Path) -> str:
    """SHA-256 of a file: 64 hex digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_sums(folder: Path) -> dict[str, str]:
    """The checksums of a folder by relative path, none where it has no `SHA256SUMS`.

    Raises:
        ValueError: the file is damaged.
    """
    file = folder / SUMS
    if not file.is_file():
        return {}
    sums = {}
    text = file.read_bytes().decode("utf-8", errors="replace")
    for number, line in enumerate(text.split("\n")[:-1], 1):
        value, _, name = line.partition("  ")
        if not name or len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise ValueError(f"{SUMS}, line {number}: not a checksum")
        sums[name] = value
    if not sums or not text.endswith("\n"):
        raise ValueError(f"{SUMS}: cut short")
    return sums


def seal(folder: Path, names: Iterable[str] | None = None) -> None:
    """Record the checksums of files of a folder: of `names`, added to what it has, or of all."""
    if names is None:
        sums, names = {}, [name for name in files(folder) if name != SUMS]
    else:
        sums = read_sums(folder)
    sums |= {name: digest(folder / name) for name in names}
    write_text(folder / SUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def redact(text: str) -> str:
    """Text without the secrets of this process's environment (tokens, keys, passwords)."""
    words = ("TOKEN", "API_KEY", "SECRET", "PASSWORD")
    for name, value in os.environ.items():
        # A short value is no secret, and may be part of any word.
        if len(value) >= 8 and any(word in name.upper() for word in words):
            text = text.replace(value, f"<{name}>")
    return text


def files(folder: Path) -> Iterator[str]:
    """Every file of a folder by relative path, without scratch (a name that begins with a dot)."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part[0] == "." for part in path.relative_to(folder).parts):
            yield path.relative_to(folder).as_posix()


def faults(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """What is wrong with sealed files of a folder (of `names`, or of all), by relative path."""
    try:
        sums = read_sums(folder)
    except ValueError as error:
        return {SUMS: str(error)}
    wanted = sums if names is None else [name for name in names if name in sums]
    found = {}
    for name in wanted:
        file = folder / name
        if not file.is_file():
            found[name] = "missing"
        elif not file.stat().st_size and sums[name] != hashlib.sha256().hexdigest():
            found[name] = "empty"
        elif digest(file) != sums[name]:
            found[name] = "changed: its SHA-256 is not the one recorded"
    return found
