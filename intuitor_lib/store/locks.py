"""One process at a time works on a folder; others wait and see its owner.

The lock is the operating system's (`flock`), which ends with its process. A file beside it names
the owner, for the messages of those who wait.
"""

import contextlib
import datetime
import fcntl
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .files import read_json, write_text

LOCK, OWNER = ".lock", ".owner.json"
_POLL = 1.0  # seconds between two tries for the lock


def now() -> str:
    """The time in UTC, as ISO 8601 to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def owner(folder: Path) -> str | None:
    """The process that holds a folder, for messages; None if none does.

    The lock decides: a process that died holds nothing, whoever has its number now.
    """
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # closing the file releases it
    except BlockingIOError:
        try:
            note = read_json(folder / OWNER)
            where = "" if note["host"] == platform.node() else f" on {note['host']}"
            return f"process {note['pid']}{where} (since {note['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
    except OSError:
        pass
    return None


@contextlib.contextmanager
def hold(
    folder: Path, doing: str, while_waiting: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold an existing folder; wait, with a message, while another process does.

    `doing` is the owner's activity, for the message; `while_waiting` is called about once a second.
    """
    import filelock

    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"{owner(folder) or 'another process'} is {doing}; waiting for it", file=sys.stderr)
        while not lock.is_locked:
            if while_waiting is not None:
                while_waiting()
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=_POLL)
    except NotImplementedError as error:
        raise OSError(
            f"the file system of {folder} has no locks (flock), so two processes could write one "
            "run: name a folder on another disk with --runs DIR or INTUITOR_RUNS"
        ) from error
    try:
        # The work does not depend on the note, so a full disk must not end it here.
        with contextlib.suppress(OSError):
            note = {"pid": os.getpid(), "host": platform.node(), "since": now()}
            write_text(folder / OWNER, json.dumps(note) + "\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / OWNER).unlink()
        lock.release()
