"""Reference answers that no completion can match, found before anything is graded by them."""

import re
from collections.abc import Mapping

from .answers import extract_answer
from .equivalence import readable
from .extraction import BOX, is_prose

_FROM_BOX = re.compile(rf"(?={BOX.pattern})")
_ABSENT = {"nan", "null", "n/a", "<na>"}  # how tables write that there is none
MOST_READ = 300  # answers that are given to math-verify, each some milliseconds


def doubtful(references: Mapping[str, str]) -> dict[str, str]:
    r"""The reference answers, by id, that hardly a completion can match, with the reason.

    Such an answer is the mark of a missing value; or the last of several boxes; or prose without
    a box: over ten words, or over three beside numbers, those in `\text{}` not counted; or neither
    a number, words nor LaTeX that math-verify can read. The last is looked for in 300
    different answers at most, spread over all.

    Raises:
        RuntimeError: math-verify cannot be started.
    """
    found: dict[str, str] = {}
    named: dict[str, list[str]] = {}
    for name, reference in references.items():
        answer = extract_answer(reference)
        boxes = {*map(extract_answer, _FROM_BOX.split(reference)[1:])} - {None}
        if reference.strip().casefold() in _ABSENT:
            found[name] = "a missing value"
        elif answer in boxes and len(boxes) > 1:
            found[name] = "the last of several boxes"
        elif answer is None and is_prose(reference):
            found[name] = "prose without a box"
        else:
            named.setdefault(answer or reference.strip(), []).append(name)
    step = -(-len(named) // MOST_READ) or 1
    read = [*named][::step]
    for answer, can_be_read in zip(read, readable(read), strict=True):
        if not can_be_read:
            found |= dict.fromkeys(named[answer], "not readable")
    return {name: found[name] for name in references if name in found}


def describe_doubts(references: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What `doubtful` found, as a sentence for a warning."""
    name, reason = next(iter(found.items()))
    text = references[name]
    shown = text if len(text) <= 60 else f"{text[:60]}..."
    return (
        f"hardly a completion can match {len(found)} of {len(references)} reference answers; the "
        f"first, of {name}, is {reason}: {shown!r}. Name a column with the final answers alone"
    )
