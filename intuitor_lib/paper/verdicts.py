"""Answers to the questions of the plan, with verdicts by the rules of `docs/protocol.md`."""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..report import Estimate, Table, by_problem, combination_over_seeds, mean_over_seeds
from .plan import PLAN_FILE, SUITES
from .trials import Rows, Trial, benchmark_of

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


QUESTIONS: Mapping[str, Question] = {
    entry["id"]: Question(**entry) for entry in PLAN_FILE["questions"]
}
"""The questions by id."""


def rows_of(trial: Trial, test: str, step: int | None = None) -> Rows:
    """The rows of a test, or a row per problem for `test:any` and `test:vote`."""
    name, _, how = test.partition(":")
    rows = trial.rows(name, step)
    if not how:
        return rows
    if how not in ("any", "vote"):
        raise ValueError(f"{test!r}: behind the colon stands 'any' or 'vote'")
    benchmark = benchmark_of(SUITES[trial.profile][name], trial.recipe)
    found = []
    for id, own in by_problem(rows).items():
        elected = benchmark.grader.elected([row["answer"] for row in own]) or ()
        counted = own if how == "any" else itertools.compress(own, elected)
        found.append({"id": id, "correct": any(row["correct"] for row in counted)})
    return found


def step_of(several: Sequence[Trial], step: int | None) -> int | None:
    """Where an arm's tests of a snapshot are: those of a base, which has none, are of step 0."""
    return 0 if step and several[0].training is None else step


def judged(several: Sequence[Trial], test: str, step: int | None = None) -> bool:
    """Whether an arm has a test, with a verdict on every completion."""
    if not several:
        return False
    tables = [trial.tables.get((test, step_of(several, step))) for trial in several]
    return all(rows and all(row["correct"] is not None for row in rows) for rows in tables)


def estimate(
    trials: Sequence[Trial], test: str, column: str = "correct", step: int | None = None
) -> Estimate:
    """Estimate the mean of a column of a test over the seeds of an arm, with a 95 % interval."""
    at = step_of(trials, step)
    return mean_over_seeds([rows_of(trial, test, at) for trial in trials], column)


def change(
    before: Sequence[Trial], after: Sequence[Trial], test: str, *, step: int | None = None
) -> Estimate:
    """Estimate the difference in accuracy of two arms on the same items, with a 95 % interval.

    Trainings are paired by their seed; a base is paired with each.

    Raises:
        ValueError: they share no seed.
    """
    return _combination([(1, after, test), (-1, before, test)], "correct", step)


def later(several: Sequence[Trial], test: str, step: int) -> Estimate:
    """Estimate the accuracy that an arm gained on a test from a snapshot to its result."""
    tables = [(1.0, [t.rows(test) for t in several]), (-1.0, [t.rows(test, step) for t in several])]
    return combination_over_seeds(tables, "correct")


def _combination(
    terms: Sequence[tuple[float, Sequence[Trial], str]], column: str, step: int | None
) -> Estimate:
    """A weighted sum of arms, paired by seed and by problem, over the problems of all tests."""
    trained = [{t.seed for t in arm} for _, arm, _ in terms if arm[0].training is not None]
    seeds = sorted(set.intersection(*trained)) if trained else []
    if trained and not seeds:
        raise ValueError(f"arms with the seeds {[sorted(s) for s in trained]} share none")
    weighted = []
    for weight, arm, test in terms:
        is_base = arm[0].training is None
        paired = arm[:1] if is_base else [t for s in seeds for t in arm if t.seed == s]
        weighted.append((weight, [rows_of(t, test, step_of(arm, step)) for t in paired]))
    shared = _shared(rows for _, several in weighted for rows in several)
    kept = [(w, [[r for r in rows if r["id"] in shared] for rows in t]) for w, t in weighted]
    return combination_over_seeds(kept, column)


def _shared(tables: Iterable[Rows]) -> set[Any]:
    """The problems that all tables have: tests of one benchmark may have parts of it."""
    return set.intersection(*({row["id"] for row in rows} for rows in tables))


def ask(
    ids: Sequence[str],
    trials: Mapping[str, Sequence[Trial]],
    profile: str,
    *,
    step: int | None = None,
    tests: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Answer questions of the plan from collected trials: an entry for each question and decoding.

    Questions whose arms or tests were not collected are left out. `step` selects snapshots, `tests`
    replace the question's, as on another task.

    Returns:
        JSON-ready entries: `question`, `decoding`, `profile`, `model`, `n`, `seeds`, the
        `levels` of the arms, the `differences` between them, of which those in `elsewhere` are to
        arms trained or tested on another kind of device, and the `verdict`. All are over the
        seeds and the problems that all arms of the question have.

    Raises:
        KeyError: an unknown id.
        ValueError: a question that `separation_answer` answers.
    """
    answers = []
    for id in ids:
        question = QUESTIONS[id]
        if question.kind not in _RULES:
            raise ValueError(f"{id!r} needs other rows than trials have: use separation_answer")
        for decoding, test in (tests or question.tests).items():
            other_test = question.other_tests.get(decoding, test)
            used = {question.arm: test, question.other: other_test, "base": other_test}
            if question.kind == "gain":
                used[question.coin] = test
            case = _Case(question, used, _with_shared_seeds(trials, used), step)
            if case.collected():
                arm, levels = case.trials[question.arm], case.levels()
                gaps, verdict = _RULES[question.kind](case, levels)
                how = _filled(decoding, profile)
                entry = answer(id, how, test, profile, arm, levels, gaps, verdict, step=step)
                entry["elsewhere"] = case.elsewhere(gaps)
                answers.append(entry | ({"reason": ONLY_SMOKE} if profile == "smoke" else {}))
    return answers


def _with_shared_seeds(
    trials: Mapping[str, Sequence[Trial]], labels: Iterable[str]
) -> dict[str, Sequence[Trial]]:
    """Those arms, with the seeds that all of them were trained with, in one order; bases whole."""
    arms = {label: trials[label] for label in labels if trials.get(label)}
    trained = [{t.seed for t in arm} for arm in arms.values() if arm[0].training is not None]
    if not trained:
        return arms
    seeds = sorted(set.intersection(*trained))
    if not seeds:
        raise ValueError(f"arms with the seeds {[sorted(s) for s in trained]} share none")
    return {
        label: arm if arm[0].training is None else [t for s in seeds for t in arm if t.seed == s]
        for label, arm in arms.items()
    }


def answer(
    question: str,
    decoding: str,
    test: str,
    profile: str,
    arm: Sequence[Trial],
    levels: Mapping[str, Estimate],
    differences: Mapping[str, Estimate],
    verdict: str,
    *,
    step: int | None = None,
) -> dict[str, Any]:
    """An entry of `ask`: estimates and verdict with all that belongs to them."""
    return {
        "question": question,
        "decoding": decoding,
        "test": test,
        "step": step,
        "profile": profile,
        "model": policy_name(arm[0]),
        "n": next(iter(differences.values())).n,
        "seeds": [trial.seed for trial in arm],
        "levels": {label: value.to_dict() for label, value in levels.items()},
        "differences": {label: value.to_dict() for label, value in differences.items()},
        "verdict": "not tested here" if profile == "smoke" else verdict,
    }


@dataclass(frozen=True)
class _Case:
    """A question under one decoding: the test of each of its arms, by label, and the trials."""

    question: Question
    tests: Mapping[str, str]
    trials: Mapping[str, Sequence[Trial]]
    step: int | None

    def collected(self) -> bool:
        """Whether every trial of every arm has its test, judged, with problems that all have."""
        tests = {label: test.partition(":")[0] for label, test in self.tests.items()}
        return all(
            judged(self.trials.get(label, ()), test, self.step) for label, test in tests.items()
        ) and bool(self._problems)

    @functools.cached_property
    def _tables(self) -> dict[str, list[Rows]]:
        """The rows of each arm's trials."""
        return {
            label: [
                rows_of(trial, test, step_of(self.trials[label], self.step))
                for trial in self.trials[label]
            ]
            for label, test in self.tests.items()
        }

    @functools.cached_property
    def _problems(self) -> set[Any]:
        """The problems that all arms have."""
        return _shared(itertools.chain(*self._tables.values()))

    def levels(self) -> dict[str, Estimate]:
        """The estimate of each arm, over the problems that all have."""
        return {
            label: mean_over_seeds(
                [[row for row in rows if row["id"] in self._problems] for rows in several],
                self.question.column,
            )
            for label, several in self._tables.items()
        }

    def combined(self, weights: Mapping[str, float]) -> Estimate:
        """A weighted sum of arms."""
        terms = [(w, self.trials[label], self.tests[label]) for label, w in weights.items()]
        return _combination(terms, self.question.column, self.step)

    def elsewhere(self, labels: Iterable[str]) -> list[str]:
        """The arms among these that were trained or tested on another kind of device."""
        own, found = self._devices(self.question.arm), []
        for label in labels:  # that of a share is no arm's
            other = self._devices(label if label in self.tests else self.question.other)
            # A base has one trial, which is paired with each.
            pairs = zip(own, other if len(other) == len(own) else other * len(own), strict=True)
            if any(ours != theirs for ours, theirs in pairs):
                found.append(label)
        return found

    def _devices(self, label: str) -> list[set[str]]:
        """Where each trial of an arm was trained and tested: on a CPU, a GPU, or both."""
        test, several = self.tests[label].partition(":")[0], self.trials[label]
        found = []
        for trial in several:
            where = [] if trial.training is None else [trial.training.get("environment", {})]
            where.append(trial.environments.get((test, step_of(several, self.step)), {}))
            names = (about.get("device", "").partition(":")[0] for about in where)
            found.append({name for name in names if name})
        return found

    def gap(self, label: str) -> Estimate:
        """The arm of the question less another one."""
        return self.combined({self.question.arm: 1, label: -1})


Levels = Mapping[str, Estimate]
Judged = tuple[dict[str, Estimate], str]


def _gain(case: _Case, levels: Levels) -> Judged:
    """Over the base and the random reward."""
    coin, arm = case.question.coin, case.question.arm
    gaps = {label: case.gap(label) for label in ("base", coin)}
    return gaps, gain_verdict(levels["base"], levels[arm], levels[coin], [*gaps.values()])


def gain_verdict(base: Estimate, arm: Estimate, coin: Estimate, gaps: Sequence[Estimate]) -> str:
    """Judge an arm by its level, those of the base and the random reward, and its gaps to both."""
    if _out_of_range(base) or _out_of_range(arm, coin):
        return "withheld"
    if all(gap.low > 0 for gap in gaps):
        return "gain"
    if all(gap.high < 0 for gap in gaps):
        return "loss"
    return "no gain" if any(gap.high < NO_GAIN for gap in gaps) else "undecided"


def _share(case: _Case, levels: Levels) -> Judged:
    """Of the gain of another arm, where that one gains."""
    arm, other = case.question.arm, case.question.other
    rest = case.combined({arm: 1.0, other: -SHARE, "base": SHARE - 1})
    gaps = {"base": case.gap("base"), f"{SHARE:.0%} of {other}'s gain": rest}
    if _out_of_range(levels["base"]):
        return gaps, "withheld"
    if case.combined({other: 1, "base": -1}).low <= 0:
        return gaps, "undecided"
    return gaps, direction(rest, "yes", "no")


def _difference(case: _Case, levels: Levels) -> Judged:
    """To another arm, which may be the base."""
    arm, other = case.question.arm, case.question.other
    gap = case.gap(other)
    if case.question.column == "correct" and _out_of_range(levels[arm], levels[other]):
        return {other: gap}, "withheld"
    return {other: gap}, direction(gap)


_RULES = {"gain": _gain, "share": _share, "difference": _difference}


def direction(gap: Estimate, above: str = "higher", below: str = "lower") -> str:
    """On which side of 0 a difference lies with its whole interval."""
    return above if gap.low > 0 else below if gap.high < 0 else "undecided"


def _out_of_range(*levels: Estimate) -> bool:
    """Whether these accuracies are all below the floor, or all above the ceiling."""
    values = [level.value for level in levels]
    return max(values) < FLOOR or min(values) > CEILING


def question_text(entry: Mapping[str, Any]) -> str:
    """The question of an answer, with the profile's tests by their titles."""
    return _filled(QUESTIONS[entry["question"]].text, entry["profile"])


def _filled(text: str, profile: str) -> str:
    return text.format_map({name: test.title for name, test in SUITES[profile].items()})


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
    return value.text(sign="+") + alike


def differences_of(entry: Mapping[str, Any]) -> dict[str, str]:
    """The differences of an answer as text, by the arm they are to."""
    marked = entry.get("elsewhere", ())  # older records have no such list
    return {
        label: signed(restored(value)) + (" (other device)" if label in marked else "")
        for label, value in entry["differences"].items()
    }


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
            f"less {label}: {text}" for label, text in differences_of(entry).items()
        )
        size = f"{entry['n']} / {len(entry['seeds'])}"
        rows.append(
            [question_text(entry), entry["decoding"], levels, differences, size, entry["verdict"]]
        )
    header = ["question", "decoding", "measured", "difference", "n / seeds", "verdict"]
    return Table(header, rows, text or caption(answers))


INTERVALS = (
    "95 % intervals over seeds and problems, too narrow for two or three seeds; with one seed, "
    "over problems alone"
)


def caption(answers: Sequence[Mapping[str, Any]]) -> str:
    """What belongs to the numbers of some answers."""
    if not answers:
        return "No question could be answered."
    where = dict.fromkeys(f"profile {a['profile']}, {a['model']}" for a in answers)
    elsewhere = (
        " (other device): one side was trained or tested on a GPU, the other on a CPU, which alone "
        "moved accuracy by up to .03 for one seed, and is in no interval."
    )
    return (
        f"{'; '.join(where)}. Differences, of values not rounded, with {INTERVALS}. "
        "n: problems / seeds of training. "
        "Verdicts by docs/protocol.md." + elsewhere * any(a.get("elsewhere") for a in answers)
    )


def conclude(answers: Sequence[Mapping[str, Any]]) -> str:
    """Write the answers as Markdown: for each question its verdicts, with the numbers."""
    texts: dict[str, list[str]] = {}
    for entry in answers:
        question = QUESTIONS[entry["question"]]
        arm = restored(entry["levels"][question.arm])
        against = " and ".join(
            f"{text} to {label}" for label, text in differences_of(entry).items()
        )
        texts.setdefault(question_text(entry), []).append(
            f"{entry['decoding']} **{entry['verdict']}** "
            f"({question.arm} {arm.value:.2f}, {against})"
        )
    return "\n".join(f"- {text} {'; '.join(found)}." for text, found in texts.items())
