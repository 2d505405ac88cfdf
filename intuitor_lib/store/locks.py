"""One process at a time works on a folder; others wait and see its owner.

The lock is the operating system's (`flock`), which ends with its process. A file beside it has the
owner and the time of its last heartbeat, for the messages of those who wait.
"""

import contextlib
import datetime
import fcntl
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import write_text

_LOCK, _OWNER = ".lock", ".owner.json"
_BEAT = 10.0  # seconds between heartbeats
_SILENT = 12 * _BEAT  # seconds without a heartbeat after which there is a message
_POLL = 1.0  # seconds between two tries for the lock


@dataclass(frozen=True)
class Owner:
    """The process that holds a folder."""

    pid: int
    host: str
    since: str  # ISO 8601, UTC
    beat: float  # time of its last heartbeat, seconds since the epoch

    def __str__(self) -> str:
        where = "" if self.host == platform.node() else f" on {self.host}"
        return f"process {self.pid}{where} (since {self.since})"

    @property
    def silent_for(self) -> float:
        """Seconds since its last heartbeat."""
        return max(0.0, time.time() - self.beat)


def owner(folder: Path) -> Owner | None:
    """The living process that holds a folder, or None.

    On this machine the lock decides, since another process may have the number of one that died;
    on another one a recent heartbeat.
    """
    try:
        holder = Owner(**json.loads((folder / _OWNER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    here = holder.host == platform.node()
    return holder if (_is_locked(folder) if here else holder.silent_for < _SILENT) else None


def _is_locked(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # closing the file releases it
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False


def now() -> str:
    """The time in UTC, as ISO 8601 to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def is_lock(path: Path) -> bool:
    """Whether a file is part of a lock."""
    return path.name in (_LOCK, _OWNER)


@contextlib.contextmanager
def hold(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder; wait, with a message, while another process does.

    Args:
        folder: an existing folder.
        doing: the owner's activity, for the message: "training x".

    Raises:
        OSError: the folder cannot be written, or its file system has no locks.
    """
    import filelock

    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _wait(lock, folder, doing)
    except NotImplementedError as error:
        raise OSError(
            f"the file system of {folder} has no locks (flock), so two processes could write one "
            "run: name a folder on another disk with --runs DIR or INTUITOR_RUNS"
        ) from error
    try:
        with _heartbeats(folder):
            yield
    finally:
        lock.release()


def _wait(lock: Any, folder: Path, doing: str) -> None:
    import filelock

    print(f"{owner(folder) or 'another process'} is {doing}; waiting for it", file=sys.stderr)
    warned = False
    while not lock.is_locked:
        holder = owner(folder)
        if holder is not None and holder.silent_for > _SILENT and not warned:
            warned = True
            print(
                f"no heartbeat from {holder} for {holder.silent_for:.0f} s: it is suspended, or "
                "its disk hangs. Resume it, or end it and this one goes on",
                file=sys.stderr,
            )
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(timeout=_POLL)


@contextlib.contextmanager
def _heartbeats(folder: Path) -> Iterator[None]:
    since, stop = now(), threading.Event()

    def beat() -> None:
        # The work does not depend on it, so a full disk must not end it here.
        with contextlib.suppress(OSError):
            holder = Owner(os.getpid(), platform.node(), since, time.time())
            write_text(folder / _OWNER, json.dumps(holder.__dict__) + "\n")

    def beats() -> None:
        while not stop.wait(_BEAT):
            beat()

    beat()
    thread = threading.Thread(target=beats, daemon=True, name="heartbeats")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(OSError):
            (folder / _OWNER).unlink()
