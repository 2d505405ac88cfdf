"""Folders of the project: its root and `data/`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["data_folder", "project_root"]


def project_root(start: Path | None = None) -> Path | None:
    """The project folder that contains `start` (by default the working folder), or None."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "intuitor_lib").is_dir() and (folder / "notebooks").is_dir():
            return folder
    return None


def data_folder() -> Path | None:
    """`data/` of the project that contains the working folder or else this library, or None."""
    root = project_root() or project_root(Path(__file__).parent)
    return None if root is None else root / "data"
