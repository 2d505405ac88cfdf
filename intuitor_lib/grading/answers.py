"""Extract the final answer of a completion, grade it, or vote on several; doubt references."""

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from .equivalence import equivalent, readable, stated_answers
from .extraction import (
    BOX,
    STATED,
    before_next_question,
    boxed_answer,
    has_final_answer,
    is_prose,
    last_number_of,
    lone_number,
    marked_answer,
    numbers_of,
)
from .labels import label

# --- Extraction -----------------------------------------------------------------------------

EXTRACTIONS = ("boxed", "alone", "whole", "last_number", "harness")
"""Where the answer of a completion is read:

- "boxed": the last ``\\boxed{...}`` alone;
- "alone": a box, else the number that is all of the completion;
- "whole": a box, else all of the completion but a final full stop, as where labels are asked for;
  these are compared as texts (`labels.label`), all others as mathematics;
- "last_number": a box, else the number behind ``####``, else the last number of the text;
- "harness": a box, else ``####``, else what math-verify finds in the text as lighteval calls it:
  a stated final answer, else the last mathematics, else the last expression or number.
"""


def extract_answer(text: str, extraction: str = "boxed") -> str | None:
    r"""Return the final answer of a completion, or None if it gives none.

    A box is ``\boxed{...}`` or ``\fbox{...}``: of several the last, of nested ones the inner one,
    and boxes side by side ("\boxed{3} and \boxed{5}") are one list. ``\boxed 5`` counts; an empty
    box and one that the text cuts off do not. Where a base model goes on with another "Question:",
    the answer before it counts. `extraction` is one of `EXTRACTIONS`. Raises for no text.

    Raises:
        ValueError: an unknown `extraction`.
        RuntimeError: "harness" needs math-verify, which cannot be started.
    """
    return extract_answers([text], extraction)[0]


def extract_answers(texts: Sequence[str], extraction: str = "boxed") -> list[str | None]:
    """`extract_answer` of each text."""
    if extraction not in EXTRACTIONS:
        raise ValueError(f"extraction is {extraction!r}; choose from {', '.join(EXTRACTIONS)}")
    answers, heads, rests = [], [], []
    for text in texts:
        head = before_next_question(text)
        if extraction == "alone":
            answers.append(boxed_answer(head) or lone_number(head) or boxed_answer(text))
            continue
        if extraction == "whole":
            answers.append(boxed_answer(head) or head.strip().removesuffix(".") or None)
            continue
        # Behind the next question, a box counts where the text before says no answer.
        is_all = head == text.lstrip() or (extraction != "boxed" and STATED.search(head))
        rest = "" if is_all else text
        answer = boxed_answer(head)
        if extraction == "harness" and has_final_answer(head):
            answer = None
        elif extraction == "boxed":
            answer = answer or boxed_answer(rest)
        else:
            answer = answer or marked_answer(head) or boxed_answer(rest)
        if extraction == "last_number":
            answer = answer or last_number_of(head) or last_number_of(rest)
        answers.append(answer)
        heads.append(head)
        rests.append(rest)
    if extraction == "harness":
        for parts in (heads, rests):
            missing = [i for i, answer in enumerate(answers) if answer is None and parts[i]]
            stated = stated_answers([parts[i] for i in missing])
            for i, answer in zip(missing, stated, strict=True):
                answers[i] = answer
    return answers


# --- Grading --------------------------------------------------------------------------------


def is_correct(text: str, reference: str, *, extraction: str = "boxed") -> bool:
    r"""Whether the answer of the completion `text` is equivalent to the reference answer.

    `reference` is that answer, or a solution that boxes it; `extraction`, one of `EXTRACTIONS`, is
    where the completion's answer is read.

    math-verify decides (``\frac12`` equals 0.5, ``x=5`` equals 5; units do not count), but for the
    rules of docs/evaluation.md: numbers are compared exactly, words as words.

    A completion is wrong without an answer, with an answer of over 2,000 characters that is not
    identical to the reference, and where comparing takes over 0.8 CPU seconds, 8 seconds of wall
    time or 2 GiB.

    Raises:
        ValueError: an empty `reference`, or an unknown `extraction`; no `text` makes it raise.
        RuntimeError: math-verify cannot be started.
    """
    return grade([text], [reference], extraction=extraction)[0]


def grade(
    texts: Sequence[str], references: Sequence[str], *, extraction: str = "boxed"
) -> list[bool]:
    """Grade each completion against the reference answer of the same index, as `is_correct` does.

    math-verify runs in processes, one for every 64 pairs that need it and at most one per core.
    They stay for the next call and end with this process.

    Raises:
        ValueError: as `is_correct`; sequences of unequal length.
        RuntimeError: math-verify cannot be started.
    """
    if len(texts) != len(references):
        raise ValueError(
            f"{len(texts)} texts and {len(references)} reference answers; pass one for each text"
        )
    return grade_answers(extract_answers(texts, extraction), references, extraction)


def grade_answers(
    answers: Sequence[str | None], references: Sequence[str], extraction: str = "boxed"
) -> list[bool]:
    """`grade` for answers that `extract_answers` has read."""
    expected = [_reference_answer(reference, i) for i, reference in enumerate(references)]
    if extraction == "harness":  # the harness reads references that are sentences likewise
        prose = [i for i, answer in enumerate(expected) if is_prose(answer)]
        stated = extract_answers([expected[i] for i in prose], extraction)
        for i, answer in zip(prose, stated, strict=True):
            expected[i] = answer or expected[i]
    if extraction == "whole":
        return [
            (own := label(answer)) is not None and own == label(reference)
            for answer, reference in zip(answers, expected, strict=True)
        ]
    return equivalent([*zip(answers, expected, strict=True)])


def grade_labelled(
    answers: Sequence[str | None], references: Sequence[str | None], extraction: str = "boxed"
) -> list[bool | None]:
    """`grade_answers`, with None for every answer whose reference is None."""
    known = [(a, r) for a, r in zip(answers, references, strict=True) if r is not None]
    graded = iter(grade_answers([a for a, _ in known], [r for _, r in known], extraction))
    return [None if reference is None else next(graded) for reference in references]


def echoed(
    prompts: Sequence[str], references: Sequence[str], extraction: str = "boxed"
) -> list[bool]:
    """Whether a number that stands in each prompt is equivalent to its reference answer.

    Repeating the question answers such a problem, so accuracy on it shows no skill.

    Raises:
        ValueError: an empty reference.
    """
    expected = [_reference_answer(reference, i) for i, reference in enumerate(references)]
    if extraction == "whole":
        known = [{*map(label, numbers_of(prompt))} for prompt in prompts]
        return [label(answer) in own for answer, own in zip(expected, known, strict=True)]
    both = [(numbers_of(prompt), answer) for prompt, answer in zip(prompts, expected, strict=True)]
    pairs = list({(number, answer): None for numbers, answer in both for number in numbers})
    same = dict(zip(pairs, equivalent(pairs), strict=True))
    return [any(same[number, answer] for number in numbers) for numbers, answer in both]


def _reference_answer(reference: str, row: int) -> str:
    if not isinstance(reference, str) or not reference.strip():
        raise ValueError(
            f"reference answer of row {row} is {reference!r}; expected a non-empty string: leave "
            "rows without one out of grading"
        )
    return boxed_answer(reference) or reference.strip()


# --- Voting ---------------------------------------------------------------------------------


def clusters(answers: Sequence[str | None], extraction: str = "boxed") -> list[int | None]:
    """The cluster of each answer: the index of the first answer that it is equivalent to.

    `answers` are extracted ones, of `extraction`. None is the cluster of those that cannot vote:
    None, answers of over 2,000 characters and those that math-verify cannot read within its limits.
    Each answer is compared with the first of every cluster before it, as the reference, by the
    rules of `is_correct`. No answer makes it raise.
    """
    if extraction == "whole":
        labels = [*map(label, answers)]
        return [None if own is None else labels.index(own) for own in labels]
    distinct = [answer for answer in dict.fromkeys(answers) if answer is not None]
    can_vote = readable(distinct)
    rest = [answer for answer, voter in zip(distinct, can_vote, strict=True) if voter]
    cluster: dict[str | None, int] = {}
    while rest:
        first = rest[0]
        same = equivalent([(answer, first) for answer in rest])
        joined = [answer for answer, joins in zip(rest, same, strict=True) if joins]
        cluster.update(dict.fromkeys(joined, answers.index(first)))
        rest = [answer for answer in rest if answer not in cluster]
    return [cluster.get(answer) for answer in answers]


def plurality(answers: Sequence[str | None], extraction: str = "boxed") -> list[bool]:
    """Whether each answer is in the plurality, the largest of the `clusters`.

    Of equally large clusters the first wins; if nothing votes, all are False.
    """
    return most_frequent(clusters(answers, extraction))


def most_frequent(votes: Sequence[Hashable | None]) -> list[bool]:
    """Which votes are for the most frequent one, of equals the first; None is no vote."""
    counts = Counter(vote for vote in votes if vote is not None)
    elected = max(counts, key=counts.__getitem__, default=None)  # the first of the largest
    return [vote is not None and vote == elected for vote in votes]


def in_plurality(votes: Sequence[Hashable | None]) -> list[bool]:
    """Which votes are for one of the most frequent, all of equals; None is no vote."""
    counts = Counter(vote for vote in votes if vote is not None)
    most = max(counts.values(), default=0)
    return [vote is not None and counts[vote] == most for vote in votes]


# --- References that no completion can match ------------------------------------------------

_FROM_BOX = re.compile(rf"(?={BOX.pattern})")
_ABSENT = {"nan", "null", "n/a", "<na>"}  # how tables write that there is none
MOST_READ = 300  # answers that are given to math-verify, each some milliseconds


def doubtful(references: Mapping[str, str], extraction: str = "boxed") -> dict[str, str]:
    r"""The reference answers, by id, that hardly a completion can match, with the reason.

    Such an answer is the mark of a missing value; or the last of several boxes; or prose without
    a box: over ten words, or over three beside numbers, those in `\text{}` not counted; or neither
    a number, words nor LaTeX that math-verify can read. The last is looked for in 300
    different answers at most, spread over all. With "whole", where answers are texts, only the
    first is looked for.

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
        elif extraction == "whole":
            continue
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
