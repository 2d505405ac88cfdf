"""Answers to the questions of the plan, with verdicts by the rules of `docs/protocol.md`."""

import types
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..report import Estimate, Table, combination_over_seeds, mean_over_seeds
from .plan import PLAN_FILE
from .trials import Rows, Trial

VERDICTS = (
    *("gain", "no gain", "loss"),  # of an arm over the base and the random reward
    *("yes", "no"),  # whether it reaches `SHARE` of another arm's gain
    *("higher", "lower"),  # than another arm
    *("undecided", "withheld", "not tested here"),
)

SHARE = 0.7
"""An arm is close to another if it has this share of its gain."""

NO_GAIN = 0.05
FLOOR, CEILING = 0.05, 0.95

ONLY_SMOKE = "the profile smoke trains two steps"


@dataclass(frozen=True)
class Question:
    """A question of the plan: which arm is compared with which, on which tests.

    `kind` is "gain" (over the base and over `coin`, the random reward), "share" (of the gain of
    `other`), "difference" (to `other`) or "separation" (of right and wrong, by `separation`).
    `tests` and `other_tests` are tests of the suite by decoding; behind a colon, `any` takes a
    problem as solved if one of its samples is, `vote` the most frequent answer of its samples.
    """

    id: str
    text: str
    kind: str
    arm: str
    tests: Mapping[str, str]
    other: str = "base"
    other_tests: Mapping[str, str] = field(default_factory=dict)
    coin: str = "random"
    column: str = "correct"
    claim: str | None = None  # of the paper's


QUESTIONS: Mapping[str, Question] = types.MappingProxyType(
    {entry["id"]: Question(**entry) for entry in PLAN_FILE["questions"]}
)
"""The questions by id."""


def rows_of(trial: Trial, test: str, step: int | None = None) -> Rows:
    """The rows of a test, or a row per problem for `test:any` and `test:vote`.

    Raises:
        KeyError: the test was not collected.
        ValueError: an unknown word behind the colon.
    """
    name, _, how = test.partition(":")
    rows = trial.rows(name, step)
    if not how:
        return rows
    by_id: dict[str, Rows] = {}
    for row in rows:
        by_id.setdefault(row["id"], []).append(row)
    if how == "any":
        return [{"id": i, "correct": any(r["correct"] for r in own)} for i, own in by_id.items()]
    if how != "vote":
        raise ValueError(f"{test!r}: behind the colon stands 'any' or 'vote'")
    return [{"id": i, "correct": _vote(own)} for i, own in by_id.items()]


def _vote(rows: Rows) -> bool:
    """Whether the most frequent answer of some samples is right; the first of equally frequent."""
    votes = Counter(row["answer"] for row in rows if row["answer"] is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]
    return any(row["correct"] for row in rows if row["answer"] == winner)


def step_of(several: Sequence[Trial], step: int | None) -> int | None:
    """Where an arm's tests of a snapshot are: those of a base, which has none, are of step 0."""
    return 0 if step and several[0].training is None else step


def estimate(
    trials: Sequence[Trial], test: str, column: str = "correct", step: int | None = None
) -> Estimate:
    """Estimate the mean of a column of a test over the seeds of an arm, with a 95 % interval."""
    return mean_over_seeds([rows_of(trial, test, step) for trial in trials], column)


def change(
    before: Sequence[Trial],
    after: Sequence[Trial],
    test: str,
    column: str = "correct",
    *,
    step: int | None = None,
    test_before: str | None = None,
) -> Estimate:
    """Estimate the difference of two arms on the same items, with a 95 % interval.

    Trainings are paired by their seed; a base is paired with each.

    Raises:
        ValueError: they share no seed.
    """
    return _combination([(1, after, test), (-1, before, test_before or test)], column, step)


def later(several: Sequence[Trial], test: str, step: int, column: str = "correct") -> Estimate:
    """Estimate what an arm gained on a test from a snapshot to its result."""
    tables = [(1.0, [t.rows(test) for t in several]), (-1.0, [t.rows(test, step) for t in several])]
    return combination_over_seeds(tables, column)


def _combination(
    terms: Sequence[tuple[float, Sequence[Trial], str]], column: str, step: int | None
) -> Estimate:
    """A weighted sum of arms, paired by seed and problem."""
    trained = [{t.seed for t in arm} for _, arm, _ in terms if arm[0].training is not None]
    seeds = sorted(set.intersection(*trained)) if trained else []
    if trained and not seeds:
        raise ValueError(f"arms with the seeds {[sorted(s) for s in trained]} share none")
    weighted = []
    for weight, arm, test in terms:
        is_base = arm[0].training is None
        paired = arm[:1] if is_base else [t for s in seeds for t in arm if t.seed == s]
        weighted.append((weight, [rows_of(t, test, step_of(arm, step)) for t in paired]))
    return combination_over_seeds(weighted, column)


def ask(
    ids: Sequence[str],
    trials: Mapping[str, Sequence[Trial]],
    profile: str,
    *,
    step: int | None = None,
) -> list[dict[str, Any]]:
    """Answer questions of the plan from collected trials: an entry for each question and decoding.

    Questions whose arms or tests were not collected are left out. `step` selects snapshots.

    Returns:
        JSON-ready entries: `question`, `decoding`, `profile`, `model`, `n`, `seeds`, the
        `levels` of the arms, the `differences` between them, and the `verdict`.

    Raises:
        KeyError: an unknown id.
    """
    answers = []
    for id in ids:
        question = QUESTIONS[id]
        for decoding, test in question.tests.items():
            other_test = question.other_tests.get(decoding, test)
            sides = {question.arm: test, question.other: other_test, "base": other_test}
            if question.kind == "gain":
                sides[question.coin] = test
            if all(_has(trials, label, name, step) for label, name in sides.items()):
                answers.append(_answer(question, decoding, test, other_test, trials, profile, step))
    return answers


def _has(trials: Mapping[str, Sequence[Trial]], label: str, test: str, step: int | None) -> bool:
    several = trials.get(label)
    if not several:
        return False
    at = step_of(several, step)
    return all((test.partition(":")[0], at) in trial.tables for trial in several)


def _answer(
    question: Question,
    decoding: str,
    test: str,
    other_test: str,
    trials: Mapping[str, Sequence[Trial]],
    profile: str,
    step: int | None,
) -> dict[str, Any]:
    arm, other, base = (trials[name] for name in (question.arm, question.other, "base"))
    column = question.column
    labels = dict.fromkeys((question.arm, question.other, "base"))
    if question.kind == "gain":
        labels[question.coin] = None
    levels = {
        label: estimate(
            trials[label],
            test if label in (question.arm, question.coin) else other_test,
            column,
            step_of(trials[label], step),
        )
        for label in labels
    }
    how: dict[str, Any] = {"column": column, "step": step}
    differences: dict[str, Estimate] = {}
    if question.kind == "gain":
        differences["base"] = change(base, arm, test, **how)
        coin = question.coin
        differences[coin] = change(trials[coin], arm, test, **how)
        verdict = _gain(levels["base"], levels[coin], levels[question.arm], differences)
    elif question.kind == "share":
        differences["base"] = change(base, arm, test, **how)
        whole = change(base, other, test, **how)
        terms = [(1.0, arm, test), (-SHARE, other, test), (SHARE - 1, base, test)]
        rest = _combination(terms, column, step)
        differences[f"{SHARE:.0%} of {question.other}'s gain"] = rest
        verdict = "undecided"
        if _out_of_range(levels["base"]):
            verdict = "withheld"
        elif whole.low > 0:
            verdict = "yes" if rest.low > 0 else "no" if rest.high < 0 else "undecided"
    else:
        gap = change(other, arm, test, test_before=other_test, **how)
        differences[question.other] = gap
        verdict = "higher" if gap.low > 0 else "lower" if gap.high < 0 else "undecided"
        both = (levels[question.arm], levels[question.other])
        if column == "correct" and any(all(_beyond(e, end) for e in both) for end in (-1, 1)):
            verdict = "withheld"
    reason = {}
    if profile == "smoke":
        verdict, reason = "not tested here", {"reason": ONLY_SMOKE}
    return {
        "question": question.id,
        "decoding": decoding,
        "test": test,
        "step": step,
        "profile": profile,
        "model": policy_name(arm[0]),
        "n": levels[question.arm].n,
        "seeds": [trial.seed for trial in arm],
        "levels": {label: value.to_dict() for label, value in levels.items()},
        "differences": {label: value.to_dict() for label, value in differences.items()},
        "verdict": verdict,
        **reason,
    }


def _gain(
    base: Estimate, coin: Estimate, arm: Estimate, differences: Mapping[str, Estimate]
) -> str:
    if _out_of_range(base) or any(_beyond(coin, end) and _beyond(arm, end) for end in (-1, 1)):
        return "withheld"
    both = [*differences.values()]
    if all(value.low > 0 for value in both):
        return "gain"
    if all(value.high < 0 for value in both):
        return "loss"
    return "no gain" if any(value.high < NO_GAIN for value in both) else "undecided"


def _out_of_range(level: Estimate) -> bool:
    return _beyond(level, -1) or _beyond(level, 1)


def _beyond(level: Estimate, end: int) -> bool:
    """Whether an accuracy is below the floor (`end` -1) or above the ceiling (1)."""
    return level.value < FLOOR if end < 0 else level.value > CEILING


def policy_name(trial: Trial) -> str:
    """The model of a trial, with its quantization and adapter."""
    recipe = trial.recipe
    weights = "not quantized" if recipe.quantization == "none" else recipe.quantization.upper()
    return f"{recipe.model.removeprefix('embedded:')} ({weights}{' + LoRA' * recipe.use_lora})"


def restored(values: Mapping[str, Any]) -> Estimate:
    """The estimate among the values of a record."""
    return Estimate(**{f.name: values[f.name] for f in fields(Estimate) if f.name in values})


def signed(value: Estimate) -> str:
    """A difference with its interval: `+0.18 [+0.12, +0.24]`."""
    alike = " (the same on every problem)" if value.same else ""
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]{alike}"


def answers_table(answers: Sequence[Mapping[str, Any]], text: str = "") -> Table:
    """Tabulate answers: levels, differences with 95 % intervals, and the verdict of each.

    `text` replaces `caption`.
    """
    rows = []
    for entry in answers:
        question = QUESTIONS[entry["question"]]
        digits = 1 if question.column == "tokens" else 2
        levels = "; ".join(
            f"{label} {value['value']:.{digits}f}" for label, value in entry["levels"].items()
        )
        differences = "; ".join(
            f"less {label}: {signed(restored(value))}"
            for label, value in entry["differences"].items()
        )
        size = f"{entry['n']} / {len(entry['seeds'])}"
        rows.append([question.text, entry["decoding"], levels, differences, size, entry["verdict"]])
    header = ["question", "decoding", "measured", "difference", "n / seeds", "verdict"]
    return Table(header, rows, text or caption(answers))


def caption(answers: Sequence[Mapping[str, Any]]) -> str:
    """What belongs to the numbers of some answers."""
    if not answers:
        return "No question could be answered."
    where = dict.fromkeys(f"profile {a['profile']}, {a['model']}" for a in answers)
    return (
        f"{'; '.join(where)}. Differences with 95 % intervals, over seeds and problems where there "
        "are several seeds, else over problems alone. n: problems / seeds of training. Verdicts by "
        "docs/protocol.md."
    )


def conclude(answers: Sequence[Mapping[str, Any]]) -> str:
    """Write the answers as Markdown: for each question its verdicts, with the numbers."""
    texts: dict[str, list[str]] = {}
    for entry in answers:
        question = QUESTIONS[entry["question"]]
        arm = restored(entry["levels"][question.arm])
        against = " and ".join(
            f"{signed(restored(value))} to {label}" for label, value in entry["differences"].items()
        )
        texts.setdefault(question.text, []).append(
            f"{entry['decoding']} **{entry['verdict']}** "
            f"({question.arm} {arm.value:.2f}, {against})"
        )
    return "\n".join(f"- {text} {'; '.join(found)}." for text, found in texts.items())
