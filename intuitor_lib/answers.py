r"""Extract the final answer of a completion and grade it against a gold answer.

math-verify decides whether two answers are equivalent. It runs in worker processes, because an
answer such as ``9^{9^{9^9}}`` keeps it busy for ever inside one call that its own time limit, a
signal in the main thread, cannot interrupt. Plain numbers, words and identical strings are
compared here, without a worker. The workers need a POSIX system (Linux or macOS).
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

__all__ = ["extract_answer", "grade", "grade_labelled", "is_correct"]

MAX_ANSWER_CHARS = 2_000  # a longer answer is no answer to a problem with a short gold
MAX_NUMBER_CHARS = 40
START_SECONDS = 120.0  # importing sympy from a cold network disk can take most of a minute
WALL_FACTOR = 10  # wall seconds allowed per CPU second of timeout_s
MEMORY_BYTES = 2 << 30
PAIRS_PER_WORKER = 64  # starting a worker costs about as much as grading this many pairs

# --- Extraction -----------------------------------------------------------------------------

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACES = re.compile(r"\\.|\{+|\}+", re.DOTALL)
# What `\boxed 5` may hold without braces: a number, a command with its arguments, a letter.
# Anything else is prose about the box ("write it in \boxed format").
_BARE_BOX = re.compile(
    r"[-+]?(?:(?:\\?\$)?[0-9.][0-9.,/]*(?:\\?%)?|\\[A-Za-z]+(?:\{[^{}]*\}|[0-9])*"
    r"|[A-Za-z](?![A-Za-z]))"
)
_SEPARATOR = r"(?:,\\!|\{,\}|\\,|,)"  # between thousands, as in 1,234 or LaTeX's 1{,}234
_LAST_NUMBER = re.compile(
    r"\\[dt]?frac\{[0-9]+\}\{[0-9]+\}"
    rf"|(?<![A-Za-z0-9_])(?:[0-9]{{1,3}}(?:{_SEPARATOR}[0-9]{{3}})+(?![0-9])|[0-9]+)"
    r"(?:\.[0-9]+)?(?:/[0-9]+)?"
    r"|(?<![A-Za-z0-9_.])\.[0-9]+"
)


def extract_answer(text: str, *, last_number: bool = False) -> str | None:
    r"""Return the answer that a completion ends with, or None when it gives none.

    The answer is what the last complete ``\boxed{...}`` or ``\fbox{...}`` holds, stripped; of a
    box within a box, what the inner one holds. ``\boxed 5`` counts, an empty box or one that the
    end of the text cuts off does not. Without a box and with ``last_number``, it is the last
    number of the text: ``-3``, ``1,234``, ``0.5``, ``3/4``, ``\frac{3}{4}``. The time is linear
    in the length of the text, and no string makes it raise.
    """
    limit = len(text)
    for box in reversed(list(_BOX.finditer(text))):
        start = box.end()
        if text.startswith("{", start):
            end = _closing_brace(text, start, limit)
            if end is None:
                # A box that opens earlier and holds this one cannot be closed either, so nothing
                # from here on is read twice: that keeps the whole search linear.
                limit = box.start()
                continue
            answer = text[start + 1 : end].strip()
        else:
            bare = _BARE_BOX.match(text, start)
            answer = bare.group().rstrip(".,/") if bare else ""
        if answer:
            return answer
    return _last_number(text) if last_number else None


def _closing_brace(text: str, start: int, limit: int) -> int | None:
    """Position of the brace that closes the one at `start`, if it lies before `limit`."""
    depth = 0
    for token in _BRACES.finditer(text, start, limit):
        run = len(token.group())
        if token.group()[0] == "{":
            depth += run
        elif token.group()[0] == "}":
            if run >= depth:
                return token.start() + depth - 1
            depth -= run
    return None


def _last_number(text: str) -> str | None:
    last = deque(_LAST_NUMBER.finditer(text), maxlen=1)
    if not last:
        return None
    line = text[: last[0].start()].rpartition("\n")[2]
    return ("-" if _ends_in_sign(line) else "") + last[0].group()


def _ends_in_sign(line: str) -> bool:
    """Whether the minus that ends `line` is the next number's sign, no operator or hyphen."""
    line = line.rstrip("\\$")  # the sign of -$3 stands before the currency
    bare = line.rstrip(" ")
    if not bare.endswith(("-", "\N{MINUS SIGN}")):
        return False
    left = bare[:-1]
    near, operand = left[-1:], left.rstrip(" ")[-1:]
    if bare != line:  # "= - 3" is negative, "x - 3" is a difference, "- 3" a list item
        return operand in {"=", ":", "(", "["}
    if near.isalnum() or near in {"_", "-"}:
        return False
    return not (operand.isdigit() or operand in {")", "]", "}"})


# --- Grading --------------------------------------------------------------------------------

_NUMBER = re.compile(
    r"[+-]?(?:(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
    r"|[0-9]+/0*[1-9][0-9]*)"
)
_THOUSANDS = re.compile(r"(?<=[0-9])(?:,\\!\s*|\{,\}|\\,)(?=[0-9]{3}(?![0-9]))")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[^\W\d_]{4,}|[^\W\d_]{2,}(?: [^\W\d_]{2,})+")
_BASED = re.compile(r"[0-9A-Fa-f]+_\{?([0-9]+)\}?")


def is_correct(text: str, gold: str, *, last_number: bool = False, timeout_s: float = 1.0) -> bool:
    r"""Whether the answer of the completion `text` is equivalent to the gold answer.

    Equivalent is what math-verify takes for equal (``\frac12`` and 0.5, ``x=5`` and 5), but for
    three rules: two plain numbers are compared exactly, unless the gold is no integer and they
    differ by at most one millionth of their size; a word of four letters or more, or several
    words, are compared as words and not as products of letters; numbers in different bases
    (``12_8``, ``12_9``) differ. Wrong is a text without an answer, an answer of over 2,000
    characters that is not identical to the gold, and one that takes over `timeout_s` CPU seconds
    (ten times that on the clock) or 2 GiB.

    `gold` is a bare answer or a solution that boxes it. Raises ValueError when it is empty or
    `timeout_s` is out of range, RuntimeError when math-verify cannot be started; never because
    of what `text` says.
    """
    return grade([text], [gold], last_number=last_number, timeout_s=timeout_s, workers=1)[0]


def grade(
    texts: Sequence[str],
    golds: Sequence[str],
    *,
    last_number: bool = False,
    timeout_s: float = 1.0,
    workers: int | None = None,
) -> list[bool]:
    """Grade each completion against the gold of the same index, as `is_correct` does.

    `workers` is the most processes to use at once, never more than the machine has cores; by
    default one for every 64 pairs that need math-verify. They stay for the next call and end
    with this process. Raises as `is_correct` does, and ValueError for unequal lengths or fewer
    than one worker.
    """
    if len(texts) != len(golds):
        raise ValueError(f"{len(texts)} texts and {len(golds)} golds; pass one gold for each text")
    if not 0 < timeout_s <= 3600:
        raise ValueError(f"timeout_s is {timeout_s!r}; pass seconds above 0 and up to 3600")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers!r}; pass at least 1, or None for the default")

    # Stage 1: what can be told at once. Equal pairs, common within a group, are graded once.
    answers = [extract_answer(text, last_number=last_number) for text in texts]
    pairs = list(zip(answers, map(_gold_answer, golds, range(len(golds))), strict=True))
    verdicts = {pair: _compare(*pair) for pair in dict.fromkeys(pairs)}

    # Stage 2: what needs math-verify.
    pending = [pair for pair, verdict in verdicts.items() if verdict is None]
    most = min(workers or math.ceil(len(pending) / PAIRS_PER_WORKER), os.cpu_count() or 1)
    executor = ThreadPoolExecutor(max(most, 1))
    try:
        graded = executor.map(lambda pair: _POOL.verify(pair, timeout_s), pending)
        verdicts.update(zip(pending, graded, strict=True))
    finally:
        executor.shutdown(cancel_futures=True)  # an interrupt does not wait for the whole batch
    return [bool(verdicts[pair]) for pair in pairs]


def grade_labelled(
    texts: Sequence[str], golds: Sequence[str | None], *, last_number: bool = False
) -> list[bool | None]:
    """`grade`, with None for every completion whose gold is None."""
    rows = [i for i, gold in enumerate(golds) if gold is not None]
    known = [gold for gold in golds if gold is not None]
    verdicts: list[bool | None] = [None] * len(texts)
    graded = grade([texts[i] for i in rows], known, last_number=last_number)
    for i, verdict in zip(rows, graded, strict=True):
        verdicts[i] = verdict
    return verdicts


def _gold_answer(gold: str, row: int) -> str:
    if not isinstance(gold, str) or not gold.strip():
        raise ValueError(
            f"gold of row {row} is {gold!r}; expected the answer as a non-empty string: "
            "leave rows without one out of grading"
        )
    return extract_answer(gold) or gold.strip()


def _compare(answer: str | None, gold: str) -> bool | None:
    """Grade the pair where that takes no mathematics; None asks for math-verify."""
    if answer is None or answer == gold:
        return answer == gold
    if max(len(answer), len(gold)) > MAX_ANSWER_CHARS:
        return False
    answer, gold = _cleaned(answer), _cleaned(gold)
    text, gold_text = (_TEXT.sub(r"\1", side).strip().casefold() for side in (answer, gold))
    if answer == gold or (text == gold_text and _TEXT.fullmatch(gold)):
        return True
    if _WORDS.fullmatch(gold_text) and text.replace(" ", "").isalpha():
        return text == gold_text
    if _is_number(answer) and _is_number(gold):
        given, expected = (Fraction(side.replace(",", "")) for side in (answer, gold))
        if expected.denominator == 1:
            return given == expected
        return abs(given - expected) * 10**6 <= max(abs(given), abs(expected))
    bases = {base.group(1) for base in map(_BASED.fullmatch, (answer, gold)) if base}
    return False if len(bases) == 2 else None


def _cleaned(answer: str) -> str:
    """Undo what carries no meaning but stops a parser: $, a full stop, TeX's digit spacing."""
    answer = answer.replace("\\$", "").replace("$", "").replace("\N{MINUS SIGN}", "-")
    return _THOUSANDS.sub("", answer.strip().removesuffix(".").strip())


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
        path.append(str(Path(__file__).resolve().parents[1]))
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

    def ask(self, pair: tuple[str | None, str], timeout_s: float) -> object:
        """The worker's verdict, or None when it died or did not answer in time."""
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
    """The workers of this process: as many as threads ask for at once, up to one per core."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """In a forked child: leave the workers, and what they reply, to the parent."""
        self._slots = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    def verify(self, pair: tuple[str | None, str], timeout_s: float) -> bool:
        with self._slots:
            worker = self._take() or _Worker()
            verdict = None
            try:
                verdict = worker.ask(pair, timeout_s)
            finally:
                # After an interrupt as after a timeout, a late reply would answer the next pair.
                if verdict is None:
                    worker.close()
                else:
                    with self._lock:
                        self._idle.append(worker)
        return verdict is True

    def close(self) -> None:
        while worker := self._take():
            worker.close()

    def _take(self) -> _Worker | None:
        """An idle worker that still lives, or None."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                worker = self._idle.pop()
            if worker.process.poll() is None:
                return worker
            worker.close()


_POOL = _Pool()
atexit.register(_POOL.close)
os.register_at_fork(after_in_child=_POOL.forget)


def _serve(descriptor: int) -> None:
    """In a worker: grade what the pipe brings until it closes, which it does with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    pipe = Connection(descriptor)
    try:
        import logging
        import resource

        logging.disable(logging.CRITICAL)
        ready: object = _equivalent("(x+1)^2", "x^2+2x+1")  # loads what a first pair would wait for
        with contextlib.suppress(ValueError, OSError):  # macOS refuses this limit
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except Exception as error:
        ready = f"{type(error).__name__}: {error}"
    pipe.send_bytes(json.dumps(ready).encode())
    with contextlib.suppress(EOFError, OSError):
        while True:
            answer, gold, timeout_s = json.loads(pipe.recv_bytes())
            # The kernel ends the process once its CPU time is spent, be it inside C code or after
            # the parent is gone. Clock time would depend on what else the machine does.
            signal.setitimer(signal.ITIMER_PROF, timeout_s)
            verdict = _equivalent(answer, gold)
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send_bytes(json.dumps(verdict).encode())


def _equivalent(answer: str, gold: str) -> bool:
    """math-verify's verdict, without its own time limit."""
    from math_verify import LatexExtractionConfig, parse, verify

    # Only LaTeX: the extractor for bare expressions would pick a number out of unreadable prose.
    sides = [
        parse(f"\\boxed{{{_cleaned(side)}}}", [LatexExtractionConfig()], parsing_timeout=None)
        for side in (gold, answer)
    ]
    return bool(verify(*sides, timeout_seconds=None))
