"""Sources of a benchmark's rows: the hub, a local folder, the package itself.

Each yields its `rows` with a label for messages: a generator `n` of them from `seed`, others all.
Local files in `folder` take precedence over the hub. Rows that cannot be read or fetched raise
DataError.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...problems.tables import TABLE_SUFFIXES, DataError, read_hub, read_table, sound_rows
from ...recipe import InputError

FOLDER_VARIABLE = "INTUITOR_BENCHMARKS"
Row = Mapping[str, Any]
_INSTEAD = (
    f"put its file into a folder named with --benchmarks DIR or {FOLDER_VARIABLE} "
    "(`intuitor benchmarks` lists the names), or use an embedded benchmark"
)


@dataclass(frozen=True)
class HubTable:
    """A data set of the hub, or the local file FILE.jsonl, .json, .csv or .parquet."""

    repo: str
    split: str
    revision: str
    file: str
    name: str | None = None

    def rows(self, folder: Path | None, n: int | None, seed: int) -> Iterator[tuple[str, Row]]:
        local = _local(folder, [self.file + suffix for suffix in TABLE_SUFFIXES])
        if local is not None:
            table = read_table(local)
        else:
            table = read_hub(self.repo, self.name, self.split, self.revision, instead=_INSTEAD)
        for number, row in sound_rows(table, str(local or self.repo)):
            yield f"{local or self.repo}, {table.unit} {number}", row

    def describe(self) -> str:
        return f"{self.repo} ({self.split}) at {self.revision[:8]}, or {self.file}.jsonl"


@dataclass(frozen=True)
class HubFiles:
    """Raw files of a hub data set, or all of the same files in the local folder."""

    repo: str
    files: Sequence[str]
    revision: str
    read: Callable[[Path], Iterable[Row]]
    folder: str = ""

    def rows(self, folder: Path | None, n: int | None, seed: int) -> Iterator[tuple[str, Row]]:
        places = [_local(folder, [os.path.join(self.folder, f), f]) for f in self.files]
        if any(places) and not all(places):
            missing = [f for f, place in zip(self.files, places, strict=True) if place is None]
            raise DataError(f"{folder} lacks {', '.join(missing)} of {self.repo}")
        for file, place in zip(self.files, places, strict=True):
            for number, row in enumerate(self.read(place or self._fetch(file)), 1):
                yield f"{file}, row {number}", row

    def _fetch(self, file: str) -> Path:
        from huggingface_hub import hf_hub_download

        try:
            path = hf_hub_download(self.repo, file, repo_type="dataset", revision=self.revision)
        except Exception as error:  # network libraries raise errors of unrelated classes
            raise DataError(
                f"cannot fetch {file} of {self.repo} from the Hugging Face hub: {error}. Without "
                f"the hub, {_INSTEAD}"
            ) from error
        return Path(path)

    def describe(self) -> str:
        names = os.path.join(self.folder, self.files[0])
        more = f" to {self.files[-1]}" if len(self.files) > 1 else ""
        return f"{self.repo} at {self.revision[:8]}, or {names}{more}"


@dataclass(frozen=True)
class Embedded:
    """Items that come with the package, from a generator or a fixed pool."""

    make: Callable[[int, int], Sequence[Row]]
    origin: str
    default_n: int = 200

    def rows(self, folder: Path | None, n: int | None, seed: int) -> Iterator[tuple[str, Row]]:
        for number, row in enumerate(self.make(n or self.default_n, seed), 1):
            yield f"{self.origin}, item {number}", row

    def describe(self) -> str:
        return self.origin


Source = HubTable | HubFiles | Embedded


def benchmarks_folder(folder: str | Path | None = None) -> Path | None:
    """Return the local folder of benchmark files: `folder`, else `INTUITOR_BENCHMARKS`, else None.

    Raises:
        InputError: it is not a folder.
    """
    chosen = folder or os.environ.get(FOLDER_VARIABLE)
    if not chosen:
        return None
    path = Path(chosen).expanduser()
    if not path.is_dir():
        raise InputError(f"benchmark files: {str(chosen)!r} is no folder")
    return path


def _local(folder: Path | None, names: Sequence[str]) -> Path | None:
    if folder is None:
        return None
    return next((folder / name for name in names if (folder / name).is_file()), None)
