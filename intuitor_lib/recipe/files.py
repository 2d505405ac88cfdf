"""Files that people bring: texts in UTF-8, and models in local folders."""

import codecs
import functools
import hashlib
from pathlib import Path

from .constants import InputError

# What transformers and PEFT read from a folder: weights, settings, tokenizers, templates, code.
_READ = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py")


def as_utf8(content: bytes, name: str) -> bytes:
    """A text file's bytes without a byte-order mark; an `InputError` for UTF-16 and UTF-32."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise InputError(f"{name} is in UTF-16 or UTF-32, or is no text: save it as UTF-8")
    return content.removeprefix(codecs.BOM_UTF8)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark."""
    try:
        return as_utf8(path.read_bytes(), str(path)).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from error


def folder_digest(name: str) -> str | None:
    """16 hex digits over the files of a local folder; None for a name on the hub."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in _READ:
            stat = file.stat()
            digest.update(f"{file.name}:".encode())
            digest.update(_file_digest(file, stat.st_size, stat.st_mtime_ns))
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=256)  # weights of several GB are read once
def _file_digest(file: Path, size: int, changed: int) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
