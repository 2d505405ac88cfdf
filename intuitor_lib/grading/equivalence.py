"""Decide whether two mathematical answers are equivalent.

math-verify decides, in worker processes: an answer such as ``9^{9^{9^9}}`` keeps it busy for ever
in one call, which its own time limit, a signal in the main thread, cannot interrupt. What `rules`
can decide without it needs no worker. Workers need POSIX (Linux or macOS).
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
from functools import lru_cache
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from .extraction import whole_numeral
from .notation import as_latex, normalized, without_fonts
from .rules import MAX_ANSWER_CHARS, decide, is_plain

__all__ = ["equivalent", "readable", "stated_answers"]

START_SECONDS = 120.0  # importing sympy from a cold network disk can take most of a minute
WALL_FACTOR = 10  # wall seconds allowed per CPU second of timeout_s
MEMORY_BYTES = 2 << 30
PAIRS_PER_WORKER = 64  # starting a worker costs about as much as grading this many pairs

# An answer and its reference; without a reference, whether the answer can be read. Or _STATED and
# a text.
Pair = tuple[str | None, str | None]
_STATED = "\0stated"  # no answer: they are normalized, which leaves no control characters


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

        logging.disable(logging.CRITICAL)
        ready: object = _equivalent("(x+1)^2", "x^2+2x+1")  # a slow first call
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
            reply = _reply(first, second)
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send_bytes(json.dumps(reply).encode())


def _reply(first: str, second: str | None) -> bool | str:
    if first == _STATED:
        return _stated(second or "") or False
    return _readable(first) if second is None else _equivalent(first, second)


def _equivalent(answer: str, reference: str) -> bool:
    """The verdict of the rules, with math-verify as their judge."""
    return bool(decide(answer, reference, _same_mathematics))


def _readable(answer: str) -> bool:
    from math_verify import verify

    parsed = _parsed(answer)
    # Comparing evaluates the answer, so one that takes for ever fails here, not at each comparison.
    verify(_parsed("0"), parsed, timeout_seconds=None)
    return any(not isinstance(expression, str) for expression in parsed)


def _stated(text: str) -> str | None:
    r"""The answer that math-verify finds in a text, as lighteval calls it."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    text = without_fonts(text)  # it takes \mathrm{e} for a unit
    configs = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    found = [part for part in parse(text, configs, parsing_timeout=None) if isinstance(part, str)]
    if not found:
        return None
    answer = whole_numeral(text, found[0])
    return answer if answer.count("{") == answer.count("}") else answer.strip("{}")


def _same_mathematics(answer: str, reference: str) -> bool:
    """math-verify's verdict, without its own time limit, and its two faults mended.

    It compares to an absolute precision, and takes every variable for a possible negative or
    complex number, so that sqrt(1/n) is not 1/sqrt(n).
    """
    from math_verify import verify

    given, expected = _parsed(answer), _parsed(reference)
    # Where it cannot parse an answer, math-verify returns a text with parts left out.
    if any(not side or isinstance(side[0], str) for side in (given, expected)):
        return _latex(answer).replace(" ", "") == _latex(reference).replace(" ", "")
    same = verify(expected, given, timeout_seconds=None)
    try:
        check = _same_size if same else _same_where_real
        return check(given[0], expected[0])
    except Exception:  # sympy raises any of them for odd expressions
        return same


@lru_cache(maxsize=512)  # parsing takes most of the time, and references repeat
def _parsed(answer: str) -> list[Any]:
    """math-verify's expression, if it can parse the answer, and the answer's text."""
    from math_verify import LatexExtractionConfig, parse

    # Only LaTeX, and only as a whole: other settings would pick a number out of unreadable text.
    config = LatexExtractionConfig(try_extract_without_anchor=False)
    return list(parse(f"\\boxed{{{_latex(answer)}}}", [config], parsing_timeout=None))


def _latex(answer: str) -> str:
    return _LISTED.sub(", ", _PRODUCT.sub(r"\1\2\\cdot ", as_latex(normalized(answer))))


# math-verify reads a whole number next to a number as a mixed number, that is as a sum: 2(3) as 5,
# "5 7" as 12.
_PRODUCT = re.compile(r"((?<![0-9._^])[0-9]+|\))\s*(?=(?:\\left\s*)?\()|(\))\s*(?=[0-9])")
_LISTED = re.compile(
    r"(?<![a-z^_][0-9])(?<![a-z] [0-9])(?<=[0-9])(?:\s|\\[;:, ]|\\q?quad)+(?=[0-9])"
)


def _same_size(given: Any, expected: Any) -> bool:
    """Whether values that math-verify takes for equal also agree relative to their size."""
    import sympy

    if isinstance(given, sympy.Rel) and isinstance(expected, sympy.Rel):
        return given.lhs != expected.lhs or _same_size(given.rhs, expected.rhs)
    containers = (sympy.Tuple, sympy.MatrixBase, sympy.FiniteSet)
    if isinstance(given, containers) and isinstance(expected, containers):
        pairs = [
            side.flat() if isinstance(side, sympy.MatrixBase) else [*side.args]
            for side in (given, expected)
        ]
        if isinstance(expected, sympy.FiniteSet):
            pairs = [sorted(side, key=sympy.default_sort_key) for side in pairs]
        return len(pairs[0]) != len(pairs[1]) or all(map(_same_size, *pairs))
    values = (given, expected)
    if any(value.has(sympy.UnevaluatedExpr) or not value.is_number for value in values):
        return True  # a percentage may be written without its sign; variables have no size
    given, expected = (value.doit() for value in values)
    if given.is_Rational and expected.is_Rational:
        return bool(given == expected)
    digits = 6 if any(value.has(sympy.Float) for value in values) else 50
    given, expected = (sympy.N(value, 60) for value in (given, expected))
    size = max(abs(given), abs(expected))
    return bool(abs(given - expected) <= size * sympy.Integer(10) ** -digits)


def _same_where_real(given: Any, expected: Any) -> bool:
    """Whether two expressions with a root are equal wherever either of them is real."""
    import sympy

    values = (given, expected)
    if not all(isinstance(value, sympy.Expr) for value in values):
        return False
    symbols = sorted(given.free_symbols | expected.free_symbols, key=str)
    if not symbols or given.free_symbols != expected.free_symbols:
        return False
    if not any(
        power.exp.is_Rational and not power.exp.is_Integer
        for value in values
        for power in value.atoms(sympy.Pow)
    ):
        return False
    positive = {symbol: sympy.Symbol(symbol.name, positive=True) for symbol in symbols}
    if sympy.simplify((given - expected).doit().subs(positive)) != 0:
        return False
    for shift in range(4):  # points with every sign of the first two variables
        point = {
            symbol: sympy.Rational(7 + 4 * i, 3) * (-1 if shift >> (i % 2) & 1 else 1)
            for i, symbol in enumerate(symbols)
        }
        here = [sympy.N(value.doit().subs(point), 30) for value in values]
        real = [abs(sympy.im(value)) < 1e-20 for value in here]
        if any(real) and not (all(real) and abs(here[0] - here[1]) < 1e-20):
            return False
    return True
