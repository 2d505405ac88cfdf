"""What samples of the base say before a training, and whether it tells what the training gains.

A predictor asks with labels whether completions are right, and without them how far they agree.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from ...evaluation.benchmarks.benchmarks import benchmark_of
from ...grading import in_plurality
from ...problems import load_problems
from ...report import Estimate, Table, alignment, auc_within_groups, combination_over_seeds
from ...report.intervals import PERCENTILES
from ..plan import SEEDS, TASKS, Rows
from ..results import result
from ..trials import Trial, TrialStore
from ..verdicts import estimate, gain_verdict, restored, signed, step_of
from ..views import kept_step

PRIMARY = "alignment"
"""The predictor that docs/protocol.md names, without labels; the others are exploratory."""

COOL = 0.3
"""The lower temperature at which the base is sampled, besides the recipe's."""

_RESAMPLES = 2000  # of a bootstrap over tasks
_PROBLEMS, _SAMPLES = {"smoke": 4}, {"smoke": 4}  # of a task; else 64, and those of a group

Samples = Mapping[str, Rows]  # "warm" at the recipe's temperature, and "cool"


def base_samples(
    task: str, profile: str, *, retrain: bool = False, runs: str | Path | None = None
) -> Samples:
    """Sample the base on some training problems of a task, at two temperatures.

    Rows are those of `measure_confidence`, with `voted`: the answer is among the most frequent ones
    of its problem. Read from the records where they are there.
    """
    base = TrialStore(f"base/{task}", profile, SEEDS[profile][0], retrain, runs)
    recipe = base.recipe
    n, group = _PROBLEMS.get(profile, 64), _SAMPLES.get(profile, recipe.num_generations)
    temperatures = {"warm": recipe.temperature, "cool": COOL}

    def make() -> dict[str, Any]:
        from ...evaluation.confidence import measure_confidence

        rows, problems = [], load_problems(recipe).train
        number = min(n, len(problems))  # spread over them, as a file may be sorted
        chosen = [problems[i * len(problems) // number] for i in range(number)]
        for name, temperature in temperatures.items():
            found = measure_confidence(
                {"base": base.subject(None)},
                {"base": ["base"]},
                benchmark_of(chosen, recipe, "training"),
                n=None,
                num_samples=group,
                temperature=temperature,
                max_new_tokens=recipe.max_completion_length,
            )
            rows += [{"at": name, **row} for row in found["rows"]["base → base"]]
        return {"rows": rows}

    key = {"recipe": recipe.digest, "n": n, "samples": group, "temperatures": temperatures}
    stored = result(f"{base.folder}/samples", make, key=key, **base.where)
    return {name: _voted([r for r in stored["rows"] if r["at"] == name]) for name in temperatures}


def _voted(rows: Rows) -> Rows:
    """The rows with `voted`: the answer is among the most frequent ones of its problem."""
    made = []
    for own in _by_id(rows).values():
        voted = in_plurality([row["cluster"] for row in own])
        made += [{**row, "voted": vote} for row, vote in zip(own, voted, strict=True)]
    return made


def _by_id(rows: Rows) -> dict[Hashable, Rows]:
    found: dict[Hashable, Rows] = {}
    for row in rows:
        found.setdefault(row["id"], []).append(row)
    return found


def _mean(value: Callable[[Rows], float], rows: Rows, less: Rows | None = None) -> Estimate:
    """A value of a problem's rows, averaged over problems; less that of other rows, paired."""
    terms = [
        (weight, [[{"id": id, "value": value(own)} for id, own in _by_id(side).items()]])
        for weight, side in ((1.0, rows), (-1.0, less))
        if side is not None
    ]
    return combination_over_seeds(terms, "value")


def _right(own: Rows) -> float:
    return fmean(bool(row["correct"]) for row in own)


def _right_by_vote(own: Rows) -> float:
    """The chance that the most frequent answer is right, one of equally frequent ones by lot."""
    voted = [row for row in own if row["voted"]]
    return _right(voted) if voted else 0.0


def _largest(own: Rows) -> float:
    """The share of completions with the most frequent answer."""
    return max(_votes(own).values(), default=0) / len(own)


def _agreement(own: Rows) -> float:
    """The chance that two of a problem's completions give the same answer."""
    pairs = sum(math.comb(n, 2) for n in _votes(own).values())
    return pairs / math.comb(len(own), 2) if len(own) > 1 else 0.0


def _votes(own: Rows) -> Counter[Any]:
    return Counter(row["cluster"] for row in own if row["cluster"] is not None)


def _tokens(own: Rows) -> float:
    return fmean(row["tokens"] for row in own)


def _long_and_certain(own: Rows) -> float:
    """The rank correlation of length and self-certainty."""
    pairs = [(r["tokens"], r["self_certainty"]) for r in own if r["self_certainty"] is not None]
    return spearman(*zip(*pairs, strict=True)) if len(pairs) > 1 else 0.0


def _signal(samples: Samples, labels: bool, column: str, sign: int) -> Rows:
    """Rows with the `value` of a column, and with votes in the place of labels without them."""
    return [
        {
            **row,
            "correct": row["correct" if labels else "voted"],
            "value": None if row[column] is None else sign * row[column],
        }
        for row in samples["warm"]
    ]


def _auc(column: str, sign: int = 1) -> "Measure":
    return lambda samples, labels: auc_within_groups(
        _signal(samples, labels, column, sign), "value"
    )


def _of_problems(labelled: Callable[[Rows], float], other: Callable[[Rows], float]) -> "Measure":
    return lambda samples, labels: _mean(labelled if labels else other, samples["warm"])


def _cooled(labelled: Callable[[Rows], float], other: Callable[[Rows], float]) -> "Measure":
    return lambda samples, labels: _mean(
        labelled if labels else other, samples["cool"], samples["warm"]
    )


Measure = Callable[[Samples, bool], Estimate | None]
"""What samples of the base say, with labels or without."""


class Predictor(NamedTuple):
    """What is measured of the base: its title with labels and, if it differs, without them."""

    title: str
    unlabelled: str | None
    measure: Measure


PREDICTORS: Mapping[str, Predictor] = {
    "alignment": Predictor(
        "self-certainty's advantage × right",
        "self-certainty's advantage × voted",
        lambda samples, labels: alignment(_signal(samples, labels, "self_certainty", 1), "value"),
    ),
    "auc": Predictor(
        "AUC of self-certainty, right", "AUC of self-certainty, voted", _auc("self_certainty")
    ),
    "auc-entropy": Predictor(
        "AUC of minus entropy, right", "AUC of minus entropy, voted", _auc("entropy", -1)
    ),
    "auc-log-prob": Predictor(
        "AUC of log-probability, right", "AUC of log-probability, voted", _auc("log_prob")
    ),
    "vote": Predictor(
        "right by vote, less by one",
        "share of the most frequent answer, less agreement",
        _of_problems(
            lambda own: _right_by_vote(own) - _right(own),
            lambda own: _largest(own) - _agreement(own),
        ),
    ),
    "cooling": Predictor(
        "right at T = 0.3, less at 0.9",
        "agreement at T = 0.3, less at 0.9",
        _cooled(_right, _agreement),
    ),
    "plurality": Predictor(
        "right by vote", "share of the most frequent answer", _of_problems(_right_by_vote, _largest)
    ),
    "level": Predictor("right", "agreement of two", _of_problems(_right, _agreement)),
    "length": Predictor("tokens of a completion", None, _of_problems(_tokens, _tokens)),
    "length-certainty": Predictor(
        "rank correlation of length with self-certainty",
        None,
        _of_problems(_long_and_certain, _long_and_certain),
    ),
}
"""The predictors by name."""


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(side) for side in (x, y)]
    if any(np.ptp(side) == 0 for side in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Spearman's rank correlation over tasks, with a bootstrap interval over them.

    With eight to ten tasks the interval is wide, and still too narrow.

    Raises:
        ValueError: fewer than three tasks, or not as many of both.
    """
    if len(x) != len(y) or len(x) < 3:
        raise ValueError(f"{len(x)} and {len(y)} values: give as many of both, at least three")
    draw, values = np.random.default_rng(0), np.array([x, y], float)
    picked = draw.integers(len(x), size=(_RESAMPLES, len(x)))
    drawn = [spearman(*values[:, i]) for i in picked if len({*i}) > 2]
    low, high = np.percentile(drawn, PERCENTILES)
    return Estimate(spearman(x, y), float(low), float(high), len(x), len(x))


def line_through(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept of the least-squares line; slope 0 where x is constant."""
    if np.ptp(x) == 0:
        return 0.0, fmean(y)
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept)


def leave_one_out(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Mean absolute error of a line through the other tasks, and of the others' mean."""
    errors = []
    for i, (at, true) in enumerate(zip(x, y, strict=True)):
        others, values = [*x[:i], *x[i + 1 :]], [*y[:i], *y[i + 1 :]]
        slope, intercept = line_through(others, values)
        errors.append((abs(slope * at + intercept - true), abs(fmean(values) - true)))
    line, mean = zip(*errors, strict=True)
    return fmean(line), fmean(mean)


@dataclass(frozen=True)
class Outcome:
    """What training on a task gained: its trials by arm, the samples of the base before it.

    `steps` are those of the snapshots that were tested.
    """

    task: str
    samples: Samples
    steps: Sequence[int]
    base: Sequence[Trial]
    intuitor: Sequence[Trial]
    random: Sequence[Trial]

    @property
    def title(self) -> str:
        """For tables and figures."""
        return TASKS[self.task].title + " (held back)" * TASKS[self.task].held_back

    def gain(self, test: str, *, step: int | None = None, over: str = "random") -> Estimate:
        """INTUITOR less the random reward or the base on a test, after a step or all of them.

        The other side's single training, or the base, is compared with each of INTUITOR's, so that
        the chance of one random training is in no interval.
        """
        return self._less(test, getattr(self, over), lambda trial: step)

    @functools.cached_property
    def kept(self) -> dict[str, Estimate]:
        """`gain` by test, with either side where its own alarms, which need no labels, stop it.

        That is the last snapshot before the first alarm, or the base where there is none.
        """
        return {test: self._less(test, self.random, self._stop) for test in ("own_sampled", "own")}

    def _stop(self, trial: Trial) -> int | None:
        """The step after which a training is kept, None for its end."""
        last = trial.recipe.max_steps
        step = kept_step(trial, [*self.steps, last])[0]
        return None if step == last else step

    def _less(
        self, test: str, other: Sequence[Trial], at: Callable[[Trial], int | None]
    ) -> Estimate:
        """INTUITOR less other trials, each after the step that `at` says; step 0 is the base."""

        def rows(trial: Trial) -> Rows:
            step = at(trial)
            of = self.base[0] if step == 0 else trial
            return of.rows(test, step_of([of], step))

        sides = ((1.0, self.intuitor), (-1.0, other))
        return combination_over_seeds([(w, [rows(t) for t in arm]) for w, arm in sides], "correct")

    def verdict(self, test: str) -> str:
        """The verdict on a gain over the base and the random reward, by docs/protocol.md."""
        base, arm, coin = (estimate(a, test) for a in (self.base, self.intuitor, self.random))
        gaps = [self.gain(test, over=name) for name in ("base", "random")]
        return gain_verdict(base, arm, coin, gaps)

    def predictor(self, name: str, labels: bool = False) -> Estimate | None:
        """One of `PREDICTORS`, by the base's samples."""
        return PREDICTORS[name].measure(self.samples, labels)


Outcomes = Mapping[str, Outcome]


def outcomes(
    trials: Mapping[str, Sequence[Trial]], samples: Mapping[str, Samples], steps: Sequence[int]
) -> dict[str, Outcome]:
    """Group collected trials by their task, in the order of `TASKS`; `steps` of the snapshots."""
    arms: dict[str, dict[str, Sequence[Trial]]] = {}
    for several in trials.values():
        arm, _, task = several[0].arm.partition("/")
        arms.setdefault(task, {})[arm] = several
    return {
        name: Outcome(name, samples[name], steps, **arms[name]) for name in TASKS if name in arms
    }


def tasks_table(found: Outcomes) -> Table:
    """Tabulate the tasks: what the base and no skill at all reach on them, and the training."""
    rows = []
    for outcome in found.values():
        floors, sampled = outcome.base[0].baselines["own"], outcome.base[0].rows("own_sampled")
        made = [t.training["seconds"] for t in (*outcome.intuitor, *outcome.random) if t.training]
        rows.append(
            [
                outcome.title,
                *(estimate(outcome.base, test).text() for test in ("own", "own_sampled")),
                *(f"{floors[floor]['value']:.2f}" for floor in ("echo", "most frequent answer")),
                f"{fmean(row['answer'] is None for row in sampled):.0%}",
                f"{fmean(row['tokens'] for row in sampled):.1f}",
                ", ".join(str(trial.seed) for trial in outcome.intuitor),
                f"{fmean(made):.0f}",
            ]
        )
    header = ["family", "base, greedy", "base, sampled", "echo", "most frequent answer"]
    header += ["no answer", "tokens", "seeds", "seconds of a training"]
    return Table(header, rows, "Held-out problems, 95 % intervals; the random reward has one seed.")


def outcomes_table(found: Outcomes) -> Table:
    """Tabulate what training gained, sampled and greedy, at snapshots, at the end and kept."""
    steps = next(iter(found.values())).steps
    rows = []
    for outcome in found.values():
        cells = [
            *(signed(outcome.kept[test]) for test in ("own_sampled", "own")),
            *(
                signed(outcome.gain(test, step=step))
                for step in (*steps, None)
                for test in ("own_sampled", "own")
            ),
            *(signed(outcome.gain(test, over="base")) for test in ("own_sampled", "own")),
            f"sampled {outcome.verdict('own_sampled')}; greedy {outcome.verdict('own')}",
        ]
        rows.append([outcome.title, *cells])
    header = ["family", "stopped without labels: sampled", "greedy"]
    header += [f"step {step}: sampled" if i else "greedy" for step in steps for i in (1, 0)]
    header += ["end: sampled", "greedy", "end, over the base: sampled", "greedy", "verdict, end"]
    caption = (
        "INTUITOR less the random reward, or less the base where it says so; 95 % intervals over "
        "INTUITOR's seeds and problems, the chance of the one random training not in them. "
        "Verdicts by docs/protocol.md: over the base and the random reward."
    )
    return Table(header, rows, caption)


def predictors_table(found: Outcomes) -> Table:
    """Tabulate how each predictor goes with the gain over the tasks that are not held back."""
    rows = []
    for name, predictor in PREDICTORS.items():
        kinds = [(False, predictor.unlabelled or predictor.title)]
        kinds += [(True, predictor.title)] * bool(predictor.unlabelled)
        for labels, title in kinds:
            primary = " (primary)" * (name == PRIMARY and not labels)
            cells = ["-", "-", "-"]
            if pairs := _pairs(found, name, labels):
                x, y = zip(*pairs, strict=True)
                line, mean = leave_one_out(x, y)
                cells = [f"{min(x):.2f} to {max(x):.2f}", rank_correlation(x, y).text()]
                cells.append(f"{line:.3f} / {mean:.3f}")
            rows.append([title + primary, "yes" if labels else "no", *cells])
    header = ["predictor, before training", "labels", "over the families"]
    header += ["rank correlation with the gain", "error left out: line / mean"]
    number = sum(not TASKS[name].held_back for name in found)
    caption = (
        f"{number} families; the gain is INTUITOR less the random reward, sampled, stopped "
        "without labels. Intervals: bootstrap over families, too narrow for so few."
    )
    return Table(header, rows, caption)


def _pairs(found: Outcomes, name: str, labels: bool = False) -> list[tuple[float, float]]:
    """A predictor and the gain of each task that is not held back; none if one has no value."""
    known = [outcome for outcome in found.values() if not TASKS[outcome.task].held_back]
    values = [outcome.predictor(name, labels) for outcome in known]
    gains = [outcome.kept["own_sampled"].value for outcome in known]
    pairs = [(x.value, y) for x, y in zip(values, gains, strict=True) if x is not None]
    return pairs if len(pairs) == len(known) > 2 else []


def against_the_gain(
    found: Outcomes, name: str, *, labels: bool = False
) -> dict[str, tuple[Estimate, Estimate]]:
    """A predictor and the gain of each task, by title, for `estimates_against`."""
    values = {o.title: (o.predictor(name, labels), o.kept["own_sampled"]) for o in found.values()}
    return {title: (x, y) for title, (x, y) in values.items() if x is not None}


EXPECTED = 0.03
"""A predicted gain from which on a gain is expected (docs/protocol.md)."""


def foretold(found: Outcomes) -> dict[str, Any]:
    """The rule of docs/protocol.md for the primary predictor, as JSON-ready values.

    Returns:
        `correlation` with its interval and `errors` left out (line, mean) over the tasks that are
        not held back; `without_products`: the correlation without that task, on which a gain was
        known before; `recommended`: whether the rule makes it a recommendation; `line`, its slope
        and intercept; and `held_back`, the tasks that were: `predicted` and `measured` gain, and
        whether that was `right`. Empty with fewer than four tasks.
    """
    pairs = _pairs(found, PRIMARY)
    others = _pairs({k: o for k, o in found.items() if k != "products"}, PRIMARY)
    if not pairs or not others:
        return {}
    x, y = zip(*pairs, strict=True)
    correlation, errors = rank_correlation(x, y), leave_one_out(x, y)
    slope, intercept = line_through(x, y)
    held_back = {}
    for name, outcome in found.items():
        value = outcome.predictor(PRIMARY)
        if TASKS[name].held_back and value is not None:
            gain, predicted = outcome.kept["own_sampled"], slope * value.value + intercept
            held_back[name] = {
                "predictor": value.to_dict(),
                "predicted": predicted,
                "measured": gain.to_dict(),
                "right": (predicted >= EXPECTED) == (gain.low > 0),
            }
    return {
        "correlation": correlation.to_dict(),
        "without_products": rank_correlation(*zip(*others, strict=True)).to_dict(),
        "errors": errors,
        "recommended": correlation.low > 0 and errors[0] < errors[1],
        "line": [slope, intercept],
        "held_back": held_back,
    }


def foretold_table(rule: Mapping[str, Any]) -> Table:
    """Tabulate what `foretold` says of the tasks that were held back."""
    rows = [
        [
            TASKS[name].title,
            restored(one["predictor"]).text(),
            f"{one['predicted']:+.2f}",
            signed(restored(one["measured"])),
            "right" if one["right"] else "wrong",
        ]
        for name, one in rule.get("held_back", {}).items()
    ]
    header = ["family, held back", "primary predictor", "gain by the line", "gain measured", ""]
    return Table(
        header, rows, f"A gain is expected from {EXPECTED} on; measured: interval above 0."
    )
