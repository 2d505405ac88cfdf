"""Decide whether two mathematical answers are equivalent.

math-verify decides, in worker processes: an answer such as ``9^{9^{9^9}}`` keeps it busy for ever
in one call, which its own time limit, a signal in the main thread, cannot interrupt. Plain numbers,
words and identical strings are compared without a worker. Workers need POSIX (Linux or macOS).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import lru_cache
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

__all__ = ["equivalent", "readable"]

MAX_ANSWER_CHARS = 2_000  # longer ones are no answer to a problem with a short reference answer
MAX_NUMBER_CHARS = 40
START_SECONDS = 120.0  # importing sympy from a cold network disk can take most of a minute
WALL_FACTOR = 10  # wall seconds allowed per CPU second of timeout_s
MEMORY_BYTES = 2 << 30
PAIRS_PER_WORKER = 64  # starting a worker costs about as much as grading this many pairs

# An answer and its reference; without a reference, whether the answer can be read.
Pair = tuple[str | None, str | None]


def equivalent(
    pairs: Sequence[tuple[str | None, str]],
    *,
    timeout_s: float = 0.8,
    workers: int | None = None,
) -> list[bool]:
    """Whether the answer of each pair ``(answer, reference)`` is equivalent to its reference.

    The rules are those of `answers.is_correct`, `workers` that of `answers.grade`. The answer None
    is equivalent to nothing, nor is one that takes math-verify over `timeout_s` CPU seconds, ten
    times that of wall time or 2 GiB.

    Raises:
        ValueError: `timeout_s` out of range, or fewer than one worker; no answer makes it raise.
        RuntimeError: math-verify cannot be started.
    """
    return _decide(pairs, _compare, timeout_s, workers)


def readable(
    answers: Sequence[str | None], *, timeout_s: float = 0.8, workers: int | None = None
) -> list[bool]:
    """Whether each answer is a number, words or LaTeX that math-verify reads within its limits.

    False for None, an empty answer and one of over 2,000 characters. Raises as `equivalent` does.
    """
    pairs = [(answer, None) for answer in answers]
    return _decide(pairs, lambda answer, _: _is_plain(answer), timeout_s, workers)


def _decide(
    pairs: Sequence[Any],
    at_once: Callable[[Any, Any], bool | None],
    timeout_s: float,
    workers: int | None,
) -> list[bool]:
    """Decide each pair by `at_once`, and by math-verify where that returns None."""
    if not 0 < timeout_s <= 3600:
        raise ValueError(f"timeout_s is {timeout_s!r}; pass seconds above 0 and up to 3600")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers!r}; pass at least 1, or None for the default")

    # Equal pairs, common within a group, are decided once.
    verdicts: dict[Pair, bool | None] = {pair: at_once(*pair) for pair in dict.fromkeys(pairs)}
    pending = [pair for pair, verdict in verdicts.items() if verdict is None]
    most = min(workers or math.ceil(len(pending) / PAIRS_PER_WORKER), os.cpu_count() or 1)
    executor = ThreadPoolExecutor(max(most, 1))
    try:
        decided = executor.map(lambda pair: _POOL.verify(pair, timeout_s), pending)
        verdicts.update(zip(pending, decided, strict=True))
    finally:
        executor.shutdown(cancel_futures=True)  # an interrupt does not wait for the whole batch
    return [bool(verdicts[pair]) for pair in pairs]


# --- Without mathematics --------------------------------------------------------------------

_NUMBER = re.compile(
    r"[+-]?(?:(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
    r"|[0-9]+/0*[1-9][0-9]*)"
)
_THOUSANDS = re.compile(r"(?<=[0-9])(?:,\\!\s*|\{,\}|\\,)(?=[0-9]{3}(?![0-9]))")
_ROUND = re.compile(r"(?:\\left)?\(([^()]{1,200}?)(?:\\right)?\)")
_FRACTION = re.compile(
    r"([+-]?)\\[dt]?frac\s*(?:\{\s*([+-]?)([0-9]+)\s*\}\s*\{\s*(0*[1-9][0-9]*)\s*\}|([0-9])([1-9]))"
)
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[^\W\d_]{4,}|[^\W\d_]{2,}(?: [^\W\d_]{2,})+")
_BASED = re.compile(r"[0-9A-Fa-f]+_\{?([0-9]+)\}?")


def _compare(answer: str | None, reference: str) -> bool | None:
    """Grade a pair if that needs no mathematics, else return None."""
    if answer is None or answer == reference:
        return answer == reference
    if max(len(answer), len(reference)) > MAX_ANSWER_CHARS:
        return False
    answer, reference = _cleaned(answer), _cleaned(reference)
    text, reference_text = (
        _TEXT.sub(r"\1", side).strip().casefold() for side in (answer, reference)
    )
    if answer == reference or (text == reference_text and _TEXT.fullmatch(reference)):
        return True
    if _WORDS.fullmatch(reference_text) and text.replace(" ", "").isalpha():
        return text == reference_text
    if _is_number(answer) and _is_number(reference):
        return _same_number(answer, reference)
    given, expected = _coordinates(answer), _coordinates(reference)
    if given and expected:
        return len(given) == len(expected) and all(map(_same_number, given, expected))
    bases = {base.group(1) for base in map(_BASED.fullmatch, (answer, reference)) if base}
    return False if len(bases) == 2 else None


def _same_number(answer: str, reference: str) -> bool:
    given, expected = (Fraction(side.replace(",", "")) for side in (answer, reference))
    if expected.denominator == 1 or ("/" in answer) == ("/" in reference):
        return given == expected
    return abs(given - expected) * 10**6 <= max(abs(given), abs(expected))


def _coordinates(answer: str) -> list[str] | None:
    """The plain numbers of a tuple in round brackets, None for anything else."""
    inside = _ROUND.fullmatch(answer)
    if inside is None:
        return None
    parts = [_cleaned(part) for part in inside[1].split(",")]
    return parts if len(parts) > 1 and all(map(_is_number, parts)) else None


def _is_plain(answer: str | None) -> bool | None:
    """True or False for an answer that need not be parsed, else None."""
    if answer is None or not answer.strip() or len(answer) > MAX_ANSWER_CHARS:
        return False
    answer = _cleaned(answer)
    text = _TEXT.sub(r"\1", answer).strip()
    plain = _is_number(answer) or _WORDS.fullmatch(text) or (text and _TEXT.fullmatch(answer))
    return True if plain else None


def _cleaned(answer: str) -> str:
    """Remove $, a final full stop and TeX's digit spacing; write its plain fractions as a/b."""
    answer = answer.replace("\\$", "").replace("$", "").replace("\N{MINUS SIGN}", "-")
    answer = _THOUSANDS.sub("", answer.strip().removesuffix(".").strip())
    fraction = _FRACTION.fullmatch(answer)
    if fraction is None:
        return answer
    # A fraction of two integers is a plain number, which needs no mathematics.
    outer, inner, top, bottom, short_top, short_bottom = fraction.groups()
    sign = "-" if (outer == "-") != (inner == "-") else ""
    return f"{sign}{top or short_top}/{bottom or short_bottom}"


def _is_number(answer: str) -> bool:
    return len(answer) <= MAX_NUMBER_CHARS and _NUMBER.fullmatch(answer) is not None


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

    def verdict(self, pair: Pair, timeout_s: float) -> object:
        """The worker's verdict, or None if it died or did not reply in time."""
        try:
            self.pipe.send_bytes(json.dumps([*pair, timeout_s]).encode())
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

    def verify(self, pair: Pair, timeout_s: float) -> bool:
        with self._slots:
            worker = self._take() or _Worker()
            verdict = None
            try:
                verdict = worker.verdict(pair, timeout_s)
            finally:
                # After an interrupt or a timeout, a late reply would be taken for the next pair's.
                if verdict is None:
                    worker.close()
                else:
                    self._idle.append(worker)
        return verdict is True

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

        logging.disable(logging.CRITICAL)
        ready: object = _equivalent("(x+1)^2", "x^2+2x+1")  # a slow first call
        with contextlib.suppress(ValueError, OSError):  # macOS refuses this limit
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except Exception as error:
        ready = f"{type(error).__name__}: {error}"
    pipe.send_bytes(json.dumps(ready).encode())
    with contextlib.suppress(EOFError, OSError):
        while True:
            answer, reference, timeout_s = json.loads(pipe.recv_bytes())
            # The kernel ends the process once its CPU time is spent, also in C code or after the
            # parent has ended. Wall time would depend on the load of the machine.
            signal.setitimer(signal.ITIMER_PROF, timeout_s)
            verdict = _readable(answer) if reference is None else _equivalent(answer, reference)
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send_bytes(json.dumps(verdict).encode())


def _equivalent(answer: str, reference: str) -> bool:
    """math-verify's verdict, without its own time limit."""
    from math_verify import verify

    return bool(verify(_parsed(reference), _parsed(answer), timeout_seconds=None))


def _readable(answer: str) -> bool:
    from math_verify import verify

    parsed = _parsed(answer)
    # Comparing evaluates the answer, so one that takes for ever fails here, not at each comparison.
    verify(_parsed("0"), parsed, timeout_seconds=None)
    return any(not isinstance(expression, str) for expression in parsed)


@lru_cache(maxsize=512)  # parsing takes most of the time, and references repeat
def _parsed(answer: str) -> list[Any]:
    """math-verify's expression, if it can parse the answer, and the answer's text."""
    from math_verify import LatexExtractionConfig, parse

    # Only LaTeX, and only as a whole: other settings would pick a number out of unreadable text.
    config = LatexExtractionConfig(try_extract_without_anchor=False)
    return list(parse(f"\\boxed{{{_unmixed(answer)}}}", [config], parsing_timeout=None))


# math-verify reads a whole number next to a number as a mixed number, that is as a sum: 2(3) as 5,
# "5 7" as 12; but "3 1/2" as (3 + 1)/2.
_MIXED = re.compile(r"(?<![0-9.])([0-9]+)\s+([0-9]+)/([0-9]+)(?![0-9.])")
_PRODUCT = re.compile(r"((?<![0-9._^])[0-9]+|\))\s*(?=(?:\\left\s*)?\()|(\))\s*(?=[0-9])")
_LISTED = re.compile(
    r"(?<![a-z^_][0-9])(?<![a-z] [0-9])(?<=[0-9])(?:\s|\\[;:, ]|\\q?quad)+(?=[0-9])"
)


def _unmixed(answer: str) -> str:
    answer = _MIXED.sub(r"\1\\frac{\2}{\3}", _cleaned(answer))
    return _LISTED.sub(", ", _PRODUCT.sub(r"\1\2\\cdot ", answer))
