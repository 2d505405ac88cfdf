"""One process at a time works on a folder; the others see who does, and whether it still lives.

The lock is the operating system's (`flock`), which a dead owner cannot keep. Beside it lies who
holds it and when that process last gave a sign of life, for those who wait.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from .files import write_text

__all__ = ["Owner", "hold", "is_lock", "owner"]

_LOCK, _OWNER = ".lock", ".owner.json"
_BEAT = 10.0  # seconds between signs of life
_SILENT = 12 * _BEAT  # seconds without one that are worth a word
_POLL = 1.0  # seconds between two tries for the lock


@dataclass(frozen=True)
class Owner:
    """The process that holds a folder."""

    pid: int
    host: str
    since: str  # ISO 8601, UTC
    beat: float  # seconds since the epoch of its last sign of life

    def __str__(self) -> str:
        where = "" if self.host == platform.node() else f" on {self.host}"
        return f"process {self.pid}{where} (since {self.since})"

    @property
    def silent_for(self) -> float:
        """Seconds since its last sign of life."""
        return max(0.0, time.time() - self.beat)

    @property
    def alive(self) -> bool:
        """Whether the process is there; of another machine's, whether it was heard of lately."""
        if self.host == platform.node():
            return psutil.pid_exists(self.pid)
        return self.silent_for < _SILENT


def owner(folder: Path) -> Owner | None:
    """Who holds a folder, or held it last and died; None when it was let go."""
    try:
        return Owner(**json.loads((folder / _OWNER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_lock(path: Path) -> bool:
    """Whether a file is part of a lock."""
    return path.name in (_LOCK, _OWNER)


@contextlib.contextmanager
def hold(
    folder: Path, doing: str, while_waiting: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold a folder; wait, with a message, while another process does.

    Args:
        folder: what to hold; it exists.
        doing: what its owner does, for the message: "training x".
        while_waiting: called about once a second of waiting.

    Raises:
        OSError: the folder cannot be written, or its file system has no locks.
    """
    import filelock

    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _wait(lock, folder, doing, while_waiting)
    except NotImplementedError as error:
        raise OSError(
            f"the file system of {folder} has no locks (flock), so two processes could write one "
            "run: name a folder on another disk with --runs DIR or INTUITOR_RUNS"
        ) from error
    try:
        with _signs_of_life(folder):
            yield
    finally:
        lock.release()


def _wait(lock: Any, folder: Path, doing: str, while_waiting: Callable[[], object] | None) -> None:
    import filelock

    print(f"{owner(folder) or 'another process'} is {doing}; waiting for it", file=sys.stderr)
    told = False
    while not lock.is_locked:
        if while_waiting is not None:
            while_waiting()
        holder = owner(folder)
        if holder is not None and holder.silent_for > _SILENT and not told:
            told = True
            print(
                f"no sign of life from {holder} for {holder.silent_for:.0f} s: it is suspended, or "
                "its disk hangs. Resume it, or end it and this one goes on",
                file=sys.stderr,
            )
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(timeout=_POLL)


@contextlib.contextmanager
def _signs_of_life(folder: Path) -> Iterator[None]:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    stop = threading.Event()

    def beat() -> None:
        # The run does not depend on it, so a full disk must not end it here.
        with contextlib.suppress(OSError):
            sign = Owner(os.getpid(), platform.node(), since, time.time())
            write_text(folder / _OWNER, json.dumps(sign.__dict__) + "\n")

    def beats() -> None:
        while not stop.wait(_BEAT):
            beat()

    beat()
    thread = threading.Thread(target=beats, daemon=True, name="signs of life")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(OSError):
            (folder / _OWNER).unlink()
