"""Files that are whole or absent: written at once, appended by lines, checked by SHA-256.

The checksums of a folder are in its `SHA256SUMS`, in the format of coreutils: `sha256sum -c
SHA256SUMS` checks it without this package.
"""

import contextlib
import hashlib
import json
import mmap
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|API_?KEY|(^|_)(KEY|PAT|PASS|PASSWD)(_|$)")
"""Names of environment variables whose values are secrets."""

SUMS = "SHA256SUMS"
"""Name of the file of checksums."""


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, in the way of `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that readers find either the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # `mkstemp` would make a file that only its owner may read, whatever the umask.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        with open(f"{scratch}/{path.name}", "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(stream.name, path)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes the target at the end of a block that raises nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        filled = Path(scratch) / target.name
        filled.mkdir()
        yield filled
        # safetensors makes files that only their owner may read, whatever the umask.
        mode = filled.stat().st_mode & 0o666
        for file in filled.rglob("*"):
            if file.is_file():
                file.chmod(mode)
        filled.rename(target)


def write_json(path: Path, values: Any) -> None:
    """Write values as indented JSON, in the way of `write_text`."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The values of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def dump_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as jsonl; a ValueError for a number that JSON does not have (NaN, infinity)."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows to a jsonl file in one write, after removing a torn last line.

    A failed write (a full disk) leaves the lines that were there.
    """
    content = dump_rows(rows).encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as stream:
        whole = _whole_lines(path)
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
    if not path.stat().st_size:  # an empty file cannot be mapped
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.rfind(b"\n") + 1


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a jsonl file, none if it does not exist; a torn last line is left out."""
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


def last_rows(path: Path, most: int) -> list[dict[str, Any]]:
    """The rows in the last `most` bytes of a jsonl file, which another process may be writing."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        lines = file.read(most).split(b"\n")
    return [json.loads(line) for line in lines[size > most : -1] if line]


def digest(path: Path) -> str:
    """SHA-256 of a file: 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_sums(folder: Path) -> dict[str, str]:
    """The checksums of a folder by relative path, none if it has no `SHA256SUMS`."""
    file = folder / SUMS
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8", errors="replace")
    sums = {name: value for value, name in re.findall(r"([0-9a-f]{64})  (.+)\n", text)}
    if not sums or _sums_text(sums) != text:
        raise ValueError(f"{SUMS} is damaged: not a checksum and a file's name in each line")
    return sums


def _sums_text(sums: Mapping[str, str]) -> str:
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def record_checksums(folder: Path, names: Iterable[str] | None = None) -> None:
    """Write `SHA256SUMS` for all files of a folder, or add `names` to it."""
    if names is None:
        sums, names = {}, [name for name in names_in(folder) if name != SUMS]
    else:
        sums = read_sums(folder)
    sums |= {name: digest(folder / name) for name in names}
    write_text(folder / SUMS, _sums_text(sums))


def redact(text: str) -> str:
    """Text without the secrets of this process's environment (tokens, keys, passwords)."""
    for name, value in os.environ.items():
        # A short value is no secret and may occur in any word.
        if len(value) >= 8 and _SECRET.search(name.upper()):
            text = text.replace(value, f"<{name}>")
    return text


def names_in(folder: Path) -> Iterator[str]:
    """Relative paths of all files of a folder; scratch files (`.name`) are left out."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part[0] == "." for part in path.relative_to(folder).parts):
            yield path.relative_to(folder).as_posix()


def faults(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """Damage, by relative path, to those files (all, or `names`) whose checksums are recorded."""
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
