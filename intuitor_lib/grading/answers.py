"""Extract the final answer of a completion, grade it, or vote on several."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Hashable, Sequence

from .equivalence import equivalent, readable

__all__ = [
    "clusters",
    "extract_answer",
    "grade",
    "grade_labelled",
    "is_correct",
    "most_frequent",
    "plurality",
]

# --- Extraction -----------------------------------------------------------------------------

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACES = re.compile(r"\\.|\{+|\}+", re.DOTALL)
# A box without braces, as in `\boxed 5`: a number, a command with its arguments, or a letter.
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
    r"""Return the final answer of a completion, or None if it gives none.

    The answer is the stripped content of the last complete ``\boxed{...}`` or ``\fbox{...}``; of
    nested boxes, of the inner one. ``\boxed 5`` counts; an empty box and one that the text cuts off
    do not. Without a box and with ``last_number``, it is the last number of the text: ``-3``,
    ``1,234``, ``0.5``, ``3/4``, ``\frac{3}{4}``. Takes time linear in the length of the text and
    raises for no text.
    """
    limit = len(text)
    for box in reversed(list(_BOX.finditer(text))):
        start = box.end()
        if text.startswith("{", start):
            end = _closing_brace(text, start, limit)
            if end is None:
                # An earlier box around this one cannot be closed either. Reading nothing from here
                # on twice keeps the search linear.
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
    """Position of the brace that closes the one at `start`, if it is before `limit`."""
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
    """Whether the minus that ends `line` is the next number's sign, not an operator or hyphen."""
    line = line.rstrip("\\$")  # the sign of -$3 is before the currency
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


def is_correct(
    text: str, reference: str, *, last_number: bool = False, timeout_s: float = 0.8
) -> bool:
    r"""Whether the answer of the completion `text` is equivalent to the reference answer.

    math-verify decides (``\frac12`` equals 0.5, ``x=5`` equals 5; units do not count), except that

    - two plain numbers are compared exactly, unless one is a fraction, the other a decimal, the
      reference no integer and their difference at most one millionth of their size;
    - a word of four letters or more, or several words, are compared as words, not as products of
      letters;
    - numbers in different bases (``12_8``, ``12_9``) differ;
    - ``2(3)`` is a product and ``5 7`` a list, not sums.

    A completion is wrong without an answer, with an answer of over 2,000 characters that is not
    identical to the reference, and where comparing takes over `timeout_s` CPU seconds (ten times
    that of wall time) or 2 GiB.

    Args:
        text: the completion.
        reference: the reference answer, or a solution that boxes it.
        last_number: see `extract_answer`.
        timeout_s: CPU seconds for math-verify, above 0 and up to 3600.

    Raises:
        ValueError: an empty `reference`, or `timeout_s` out of range; no `text` makes it raise.
        RuntimeError: math-verify cannot be started.
    """
    return grade([text], [reference], last_number=last_number, timeout_s=timeout_s, workers=1)[0]


def grade(
    texts: Sequence[str],
    references: Sequence[str],
    *,
    last_number: bool = False,
    timeout_s: float = 0.8,
    workers: int | None = None,
) -> list[bool]:
    """Grade each completion against the reference answer of the same index, as `is_correct` does.

    `workers` limits the processes used at once (at most one per core; by default one for every 64
    pairs that need math-verify). They stay for the next call and end with this process.

    Raises:
        ValueError: as `is_correct`; sequences of unequal length; fewer than one worker.
        RuntimeError: math-verify cannot be started.
    """
    if len(texts) != len(references):
        raise ValueError(
            f"{len(texts)} texts and {len(references)} reference answers; pass one for each text"
        )
    answers = [extract_answer(text, last_number=last_number) for text in texts]
    expected = [_reference_answer(reference, i) for i, reference in enumerate(references)]
    return equivalent([*zip(answers, expected, strict=True)], timeout_s=timeout_s, workers=workers)


def grade_labelled(
    texts: Sequence[str], references: Sequence[str | None], *, last_number: bool = False
) -> list[bool | None]:
    """`grade`, with None for every completion whose reference answer is None."""
    pairs = [(t, r) for t, r in zip(texts, references, strict=True) if r is not None]
    graded = iter(grade([t for t, _ in pairs], [r for _, r in pairs], last_number=last_number))
    return [None if reference is None else next(graded) for reference in references]


def _reference_answer(reference: str, row: int) -> str:
    if not isinstance(reference, str) or not reference.strip():
        raise ValueError(
            f"reference answer of row {row} is {reference!r}; expected a non-empty string: leave "
            "rows without one out of grading"
        )
    return extract_answer(reference) or reference.strip()


# --- Voting ---------------------------------------------------------------------------------


def clusters(
    answers: Sequence[str | None], *, timeout_s: float = 0.8, workers: int | None = None
) -> list[int | None]:
    """The cluster of each answer: the index of the first answer that it is equivalent to.

    `answers` are extracted ones. None is the cluster of those that cannot vote: None, answers of
    over 2,000 characters and those that math-verify cannot read within its limits. Each answer is
    compared with the first of every cluster before it, as the reference, by the rules of
    `is_correct`. Raises for its settings as `grade` does, and for no answer.
    """
    distinct = [answer for answer in dict.fromkeys(answers) if answer is not None]
    can_vote = readable(distinct, timeout_s=timeout_s, workers=workers)
    rest = [answer for answer, voter in zip(distinct, can_vote, strict=True) if voter]
    cluster: dict[str | None, int] = {}
    while rest:
        first = rest[0]
        pairs = [(answer, first) for answer in rest]
        same = equivalent(pairs, timeout_s=timeout_s, workers=workers)
        joined = [answer for answer, joins in zip(rest, same, strict=True) if joins]
        cluster.update(dict.fromkeys(joined, answers.index(first)))
        rest = [answer for answer in rest if answer not in cluster]
    return [cluster.get(answer) for answer in answers]


def plurality(
    answers: Sequence[str | None], *, timeout_s: float = 0.8, workers: int | None = None
) -> list[bool]:
    """Whether each answer is in the plurality, the largest of the `clusters`.

    Of equally large clusters the first wins; if nothing votes, all are False. Raises as `clusters`
    does.
    """
    return most_frequent(clusters(answers, timeout_s=timeout_s, workers=workers))


def most_frequent(votes: Sequence[Hashable | None]) -> list[bool]:
    """Which votes are for the most frequent one, of equals the first; None is no vote."""
    counts = Counter(vote for vote in votes if vote is not None)
    elected = max(counts, key=counts.__getitem__, default=None)  # the first of the largest
    return [vote is not None and vote == elected for vote in votes]
