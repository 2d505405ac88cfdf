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
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from .cores import cores
from .rules import MAX_ANSWER_CHARS, decide, is_plain

CPU_SECONDS = 0.8  # for one answer
WALL_FACTOR = 10  # wall seconds allowed per CPU second
START_SECONDS = 120.0  # importing sympy from a cold network disk can take most of a minute
MEMORY_BYTES = 2 << 30
ANSWERS_PER_WORKER = 64  # starting a worker costs about as much as grading this many

Texts = tuple[str | None, ...]  # what is asked about


def equivalent(pairs: Sequence[tuple[str | None, str]]) -> list[bool]:
    """Whether the answer of each pair ``(answer, reference)`` is equivalent to its reference.

    The rules are those of `answers.is_correct`. The answer None is equivalent to nothing.

    Raises:
        RuntimeError: math-verify cannot be started; no answer makes it raise.
    """
    return _verdicts("same", pairs, decide)


def readable(answers: Sequence[str | None]) -> list[bool]:
    """Whether each answer is a number, words or LaTeX that math-verify reads within its limits.

    False for None, an empty answer and one of over 2,000 characters. Raises as `equivalent` does.
    """

    def at_once(answer: str | None) -> bool | None:
        if answer is None or not answer.strip() or len(answer) > MAX_ANSWER_CHARS:
            return False
        return True if is_plain(answer) else None

    return _verdicts("readable", [(answer,) for answer in answers], at_once)


def stated_answers(texts: Sequence[str]) -> list[str | None]:
    """What math-verify takes for the answer in each text: stated, mathematics or an expression.

    None where it finds none or takes too long. Raises as `equivalent` does.
    """
    replies = _ask_each("stated", [(text,) for text in texts])
    return [reply if isinstance(reply, str) else None for reply in replies]


def _verdicts(
    question: str, given: Sequence[Texts], at_once: Callable[..., bool | None]
) -> list[bool]:
    """Decide each by `at_once`, and by math-verify where that returns None."""
    # Equal pairs, common within a group, are decided once.
    verdicts = {texts: at_once(*texts) for texts in dict.fromkeys(given)}
    pending = [texts for texts, verdict in verdicts.items() if verdict is None]
    replies = _ask_each(question, pending)
    verdicts.update((texts, reply is True) for texts, reply in zip(pending, replies, strict=True))
    return [bool(verdicts[texts]) for texts in given]


def _ask_each(question: str, given: Sequence[Texts]) -> list[object]:
    threads = min(math.ceil(len(given) / ANSWERS_PER_WORKER), cores())
    with ThreadPoolExecutor(max(threads, 1)) as executor:
        return list(executor.map(lambda texts: _POOL.ask(question, texts), given))


# --- Worker processes -----------------------------------------------------------------------

_BOOT = (
    "import sys; pipe = int(sys.argv[1]); sys.path[:] = sys.argv[2:]; "
    f"from {__name__} import _serve; _serve(pipe)"
)


class _Worker:
    """A process that answers one question at a time; questions and replies are JSON."""

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

    def ask(self, question: str, texts: Texts) -> object:
        """The worker's reply, or None if it died or did not reply in time."""
        try:
            self.pipe.send_bytes(json.dumps([question, texts, CPU_SECONDS]).encode())
        except OSError:
            return None
        return self._reply(WALL_FACTOR * CPU_SECONDS)

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
        # Of those that are idle, the last used one comes first; None stands for one not started.
        self.idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(cores()):
            self.idle.put(None)

    def ask(self, question: str, texts: Texts) -> object:
        """A worker's reply: True or False, for "stated" a text or False; None in vain."""
        worker, reply = self.idle.get(), None
        try:
            if worker is not None and worker.process.poll() is not None:
                worker.close()
                worker = None
            worker = worker or _Worker()
            reply = worker.ask(question, texts)
        finally:
            # After an interrupt or a timeout, a late reply would be taken for the next one's.
            if reply is None and worker is not None:
                worker.close()
            self.idle.put(None if reply is None else worker)
        return reply

    def close(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                if worker := self.idle.get_nowait():
                    worker.close()


_POOL = _Pool()
atexit.register(_POOL.close)
os.register_at_fork(after_in_child=_POOL.forget)


def _serve(descriptor: int) -> None:
    """In a worker: answer questions from the pipe until it closes with the parent."""
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
        answers: dict[str, Callable[..., object]] = {
            "same": lambda answer, reference: bool(decide(answer, reference, mathematics.same)),
            "readable": mathematics.readable,
            "stated": lambda text: mathematics.stated(text) or False,
        }
    except Exception as error:
        ready = f"{type(error).__name__}: {error}"
    pipe.send_bytes(json.dumps(ready).encode())
    with contextlib.suppress(EOFError, OSError):
        while True:
            question, texts, seconds = json.loads(pipe.recv_bytes())
            # The kernel ends the process once its CPU time is spent, also in C code or after the
            # parent has ended. Wall time would depend on the load of the machine.
            signal.setitimer(signal.ITIMER_PROF, seconds)
            reply = answers[question](*texts)
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send_bytes(json.dumps(reply).encode())
