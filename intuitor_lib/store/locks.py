"""One process at a time works on a folder; others wait and see its owner.

The lock is the operating system's (`flock`), which ends with its process. A file beside it names
the owner, for the messages of those who wait.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .files import read_json, write_text

LOCK, OWNER = ".lock", ".owner.json"
_POLL = 1.0  # seconds between two tries for the lock


def now() -> str:
    """The time in UTC, as ISO 8601 to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def holder(folder: Path) -> dict[str, Any] | None:
    """The process that holds a folder: `pid`, `host`, `since`; None if none does.

    The lock decides: a process that died holds nothing, whoever has its number now. Empty if the
    holder left no note.
    """
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # closing the file releases it
    except BlockingIOError:
        try:
            note = read_json(folder / OWNER)
            return {key: note[key] for key in ("pid", "host", "since")}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
    except OSError:
        pass
    return None


def owner(folder: Path) -> str | None:
    """The process that holds a folder, for messages; None if none does."""
    note = holder(folder)
    if not note:
        return None if note is None else "another process"
    where = "" if is_here(note) else f" on {note['host']}"
    return f"process {note['pid']}{where} (since {note['since']})"


def is_here(note: Mapping[str, Any]) -> bool:
    """Whether a `holder` runs on this machine."""
    return note.get("host") == platform.node()


def write_owner(folder: Path, pid: int) -> None:
    """Note that a process of this machine holds a folder, for `holder`."""
    note = {"pid": pid, "host": platform.node(), "since": now()}
    write_text(folder / OWNER, json.dumps(note) + "\n")


@contextlib.contextmanager
def hold(
    folder: Path, doing: str, while_waiting: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold an existing folder; wait, with a message, while another process does.

    `doing` is the owner's activity, for the message; `while_waiting` is called about once a second.
    """
    import filelock

    lock = filelock.FileLock(folder / LOCK, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"{owner(folder) or 'another process'} is {doing}; waiting for it", file=sys.stderr)
        while not lock.is_locked:
            if while_waiting is not None:
                while_waiting()
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=_POLL)
    except (NotImplementedError, OSError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP):
            raise
        raise OSError(
            f"the file system of {folder} has no locks (flock), so two processes could write one "
            "run: name a folder on another disk with --runs DIR or INTUITOR_RUNS"
        ) from error
    try:
        # The work does not depend on the note, so a full disk must not end it here.
        with contextlib.suppress(OSError):
            (folder / OWNER).unlink(missing_ok=True)  # of a holder that was killed
            write_owner(folder, os.getpid())
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / OWNER).unlink()
        lock.release()
