r"""Extract the final answer of a completion, grade it against a gold answer, or vote on it."""

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


def is_correct(text: str, gold: str, *, last_number: bool = False, timeout_s: float = 0.8) -> bool:
    r"""Whether the answer of the completion `text` is equivalent to the gold answer.

    Equivalent is what math-verify takes for equal (``\frac12`` and 0.5, ``x=5`` and 5), but for
    four rules: two plain numbers are compared exactly, unless one is a fraction, the other a
    decimal, the gold no integer and their difference at most one millionth of their size; a word
    of four letters or more, or several words, are compared as words and not as products of
    letters; numbers in different bases (``12_8``, ``12_9``) differ; ``2(3)`` is a product and
    ``5 7`` a list, neither a sum. Units do not count. Wrong is a text without an answer, an answer
    of over 2,000 characters that is not identical to the gold, and one that takes over `timeout_s`
    CPU seconds (ten times that on the clock) or 2 GiB.

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
    timeout_s: float = 0.8,
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
    answers = [extract_answer(text, last_number=last_number) for text in texts]
    pairs = list(zip(answers, map(_gold_answer, golds, range(len(golds))), strict=True))
    return equivalent(pairs, timeout_s=timeout_s, workers=workers)


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


# --- Voting ---------------------------------------------------------------------------------


def clusters(
    answers: Sequence[str | None], *, timeout_s: float = 0.8, workers: int | None = None
) -> list[int | None]:
    """Give each answer its cluster: the index of the first answer that it is equivalent to.

    `answers` are extracted ones. None stands for those that cannot vote: None, what math-verify
    cannot read within its limits, and over 2,000 characters. Each answer is compared with the
    first of every cluster before it, as the gold, by the rules of `is_correct`. Raises ValueError
    and RuntimeError as `grade` does for its settings; never because of what an answer says.
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

    Of equally large ones it is that whose first member comes first; when nothing votes, all are
    False. The answer that the vote elects is the first one in the plurality. Raises as
    `clusters` does.
    """
    return most_frequent(clusters(answers, timeout_s=timeout_s, workers=workers))


def most_frequent(votes: Sequence[Hashable | None]) -> list[bool]:
    """Which votes are for the most frequent one, of equals the first; None votes for nothing."""
    counts = Counter(vote for vote in votes if vote is not None)
    elected = max(counts, key=counts.__getitem__, default=None)  # the first of the largest
    return [vote is not None and vote == elected for vote in votes]
