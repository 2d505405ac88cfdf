"""Files that people bring: texts in any Unicode encoding, and models in local folders."""

import codecs
import functools
import hashlib
from pathlib import Path

from .constants import InputError

# UTF-32's mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What transformers and PEFT read from a folder: weights, settings, tokenizers, templates, code.
_READ = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py")


def as_utf8(content: bytes, name: str) -> bytes:
    """A text file's bytes in UTF-8 without a byte-order mark, decoded by the one it begins with.

    Without a mark the bytes are returned as they are.

    Raises:
        InputError: they are not what their mark says, or hold NUL, which no text does.
    """
    encoding = next((known for mark, known in _MARKS if content.startswith(mark)), None)
    if encoding == "utf-8-sig":
        content = content.removeprefix(codecs.BOM_UTF8)
    elif encoding is not None:
        try:
            content = content.decode(encoding).encode()
        except UnicodeError as error:
            raise InputError(
                f"{name} begins as {encoding.upper()} and is damaged ({error}): save it as UTF-8"
            ) from error
    if b"\0" in content:
        raise InputError(
            f"{name} holds NUL characters: it is no text, or UTF-16 without a byte-order mark; "
            "save it as UTF-8"
        )
    return content


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in the encoding of its byte-order mark.

    Raises:
        OSError: it cannot be read.
        InputError: it is in another encoding.
    """
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
