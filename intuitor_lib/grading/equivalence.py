"""Decide whether two mathematical answers are equivalent.

math-verify decides, in worker processes: an answer such as ``9^{9^{9^9}}`` keeps it busy for ever
in one call, which its own time limit, a signal in the main thread, cannot interrupt. What `rules`
can decide without it needs no worker. Workers need POSIX (Linux or macOS).
"""

import atexit
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from .rules import MAX_ANSWER_CHARS, decide, is_plain

START_SECONDS = 120.0  # importing sympy from a cold network disk can take most of a minute
WALL_FACTOR = 10  # wall seconds allowed per CPU second of timeout_s
MEMORY_BYTES = 2 << 30
PAIRS_PER_WORKER = 64  # starting a worker costs about as much as grading this many pairs

# An answer and its reference; without a reference, whether the answer can be read. Or _STATED and
# a text.
Pair = tuple[str | None, str | None]
_STATED = "\0stated"  # no answer: they are normalized, which leaves no control characters


def equivalent(
    pairs: Sequence[tuple[str | None, str]], *, timeout_s: float = 0.8, workers: int | None = None
) -> list[bool]:
    """Whether the answer of each pair ``(answer, reference)`` is equivalent to its reference.

    The rules are those of `answers.is_correct`, `workers` that of `answers.grade`. The answer None
    is equivalent to nothing, nor is one that takes math-verify over `timeout_s` CPU seconds, ten
    times that of wall time or 2 GiB.

    Raises:
        ValueError: `timeout_s` out of range, or fewer than one worker; no answer makes it raise.
        RuntimeError: math-verify cannot be started.
    """
    return _verdicts(pairs, decide, timeout_s, workers)


def readable(
    answers: Sequence[str | None], *, timeout_s: float = 0.8, workers: int | None = None
) -> list[bool]:
    """Whether each answer is a number, words or LaTeX that math-verify reads within its limits.

    False for None, an empty answer and one of over 2,000 characters. Raises as `equivalent` does.
    """

    def at_once(answer: str | None, _: None) -> bool | None:
        if answer is None or not answer.strip() or len(answer) > MAX_ANSWER_CHARS:
            return False
        return True if is_plain(answer) else None

    return _verdicts([(answer, None) for answer in answers], at_once, timeout_s, workers)


def stated_answers(
    texts: Sequence[str], *, timeout_s: float = 0.8, workers: int | None = None
) -> list[str | None]:
    """What math-verify takes for the answer in each text: stated, mathematics or an expression.

    None where it finds none or takes too long. Raises as `equivalent` does.
    """
    _check_limits(timeout_s, workers)
    replies = _ask_each([(_STATED, text) for text in texts], timeout_s, workers)
    return [reply if isinstance(reply, str) else None for reply in replies]


def _verdicts(
    pairs: Sequence[Any],
    at_once: Callable[[Any, Any], bool | None],
    timeout_s: float,
    workers: int | None,
) -> list[bool]:
    """Decide each pair by `at_once`, and by math-verify where that returns None."""
    _check_limits(timeout_s, workers)
    # Equal pairs, common within a group, are decided once.
    verdicts: dict[Pair, bool | None] = {pair: at_once(*pair) for pair in dict.fromkeys(pairs)}
    pending = [pair for pair, verdict in verdicts.items() if verdict is None]
    replies = _ask_each(pending, timeout_s, workers)
    verdicts.update((pair, reply is True) for pair, reply in zip(pending, replies, strict=True))
    return [bool(verdicts[pair]) for pair in pairs]


def _check_limits(timeout_s: float, workers: int | None) -> None:
    if not 0 < timeout_s <= 3600:
        raise ValueError(f"timeout_s is {timeout_s!r}; pass seconds above 0 and up to 3600")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers!r}; pass at least 1, or None for the default")


def _ask_each(requests: Sequence[Pair], timeout_s: float, workers: int | None) -> list[object]:
    most = min(workers or math.ceil(len(requests) / PAIRS_PER_WORKER), os.cpu_count() or 1)
    executor = ThreadPoolExecutor(max(most, 1))
    try:
        return list(executor.map(lambda request: _POOL.ask(request, timeout_s), requests))
    finally:
        executor.shutdown(cancel_futures=True)  # an interrupt does not wait for the whole batch


# --- Worker processes -----------------------------------------------------------------------

_BOOT = (
    "import sys; pipe = int(sys.argv[1]); sys.path[:] = sys.argv[2:]; "
    f"from {__name__} import _serve; _serve(pipe)"
)


class _Worker:
    """A process that grades one pair at a time; requests and replies are JSON."""

    def __init__(self) -> None:
        # A plain command, not `multiprocessing`: that would run the caller's script once more.
        # The caller's own path finds the same packages, its last entry this one.
        path = [entry for entry in sys.path if isinstance(entry, str)]
        path.append(str(Path(__file__).resolve().parents[2]))
        self.pipe, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), *path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONHASHSEED": "0"},  # sympy's term order hangs on it
                start_new_session=True,  # out of reach of the Ctrl-C meant for a notebook
            )
        try:
            ready = self._reply(START_SECONDS)
            if ready is not True:
                raise RuntimeError(
                    f"grading could not start math-verify under {sys.executable}: "
                    f"{ready or 'no reply from the worker'}; check that math-verify is installed "
                    "there (pip install math-verify) and that `import math_verify` works"
                )
        except BaseException:
            self.close()
            raise

    def ask(self, request: Pair, timeout_s: float) -> object:
        """The worker's reply, or None if it died or did not reply in time."""
        try:
            self.pipe.send_bytes(json.dumps([*request, timeout_s]).encode())
        except OSError:
            return None
        return self._reply(WALL_FACTOR * timeout_s)

    def _reply(self, seconds: float) -> object:
        try:
            return json.loads(self.pipe.recv_bytes()) if self.pipe.poll(seconds) else None
        except (EOFError, OSError):
            return None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()


class _Pool:
    """The workers of this process: as many as threads use at once, up to one per core."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """In a forked child: leave the workers and their replies to the parent."""
        self._slots = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._idle: deque[_Worker] = deque()  # appending and popping are atomic

    def ask(self, request: Pair, timeout_s: float) -> object:
        """A worker's reply: True or False, for `_STATED` a text or False; None in vain."""
        with self._slots:
            worker = self._take() or _Worker()
            reply = None
            try:
                reply = worker.ask(request, timeout_s)
            finally:
                # After an interrupt or a timeout, a late reply would be taken for the next one's.
                if reply is None:
                    worker.close()
                else:
                    self._idle.append(worker)
        return reply

    def close(self) -> None:
        while worker := self._take():
            worker.close()

    def _take(self) -> _Worker | None:
        """An idle worker that is alive, or None."""
        with contextlib.suppress(IndexError):
            while True:
                worker = self._idle.pop()
                if worker.process.poll() is None:
                    return worker
                worker.close()
        return None


_POOL = _Pool()
atexit.register(_POOL.close)
os.register_at_fork(after_in_child=_POOL.forget)


def _serve(descriptor: int) -> None:
    """In a worker: grade pairs from the pipe until it closes with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    pipe = Connection(descriptor)
    try:
        import logging
        import resource

        from . import mathematics

        logging.disable(logging.CRITICAL)
        ready: object = mathematics.same("(x+1)^2", "x^2+2x+1")  # a slow first call
        with contextlib.suppress(ValueError, OSError):  # macOS refuses this limit
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except Exception as error:
        ready = f"{type(error).__name__}: {error}"
    pipe.send_bytes(json.dumps(ready).encode())
    with contextlib.suppress(EOFError, OSError):
        while True:
            first, second, timeout_s = json.loads(pipe.recv_bytes())
            # The kernel ends the process once its CPU time is spent, also in C code or after the
            # parent has ended. Wall time would depend on the load of the machine.
            signal.setitimer(signal.ITIMER_PROF, timeout_s)
            if first == _STATED:
                reply = mathematics.stated(second) or False
            elif second is None:
                reply = mathematics.readable(first)
            else:
                reply = bool(decide(first, second, mathematics.same))
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send_bytes(json.dumps(reply).encode())
