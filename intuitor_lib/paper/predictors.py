"""What samples of the base say before a training, and whether it tells what the training gains.

Every predictor exists twice: with labels it asks whether a completion is right, without them
whether it gives the most frequent answer of its problem.
"""

import functools
import types
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.benchmarks.benchmarks import benchmark_of
from ..grading.answers import most_frequent
from ..problems import load_problems
from ..report import (
    Estimate,
    alignment,
    auc_within_groups,
    combination_over_seeds,
    mean_over_problems,
)
from .plan import SEEDS, Rows
from .results import result
from .trials import Trial, TrialStore
from .verdicts import step_of
from .views import kept_step

PRIMARY = "alignment"
"""The predictor that docs/protocol.md names, without labels; the others are exploratory."""

COOL = 0.3
"""The lower temperature at which the base is sampled, besides the recipe's."""

_RESAMPLES = 2000  # of a bootstrap over tasks
_PROBLEMS, _SAMPLES = {"smoke": 4}, {"smoke": 4}  # of a task's training problems; else 64 and 8

Samples = Mapping[str, Rows]  # "warm" at the recipe's temperature, and "cool"


def base_samples(
    task: str, profile: str, *, retrain: bool = False, runs: str | Path | None = None
) -> Samples:
    """Sample the base on some training problems of a task, at two temperatures.

    Rows are those of `measure_confidence`, with `voted`: the completion gives the most frequent
    answer of its problem. Read from the records where they are there.
    """
    base = TrialStore(f"base/{task}", profile, SEEDS[profile][0], retrain, runs)
    recipe = base.recipe
    n, group = _PROBLEMS.get(profile, 64), _SAMPLES.get(profile, recipe.num_generations)
    temperatures = {"warm": recipe.temperature, "cool": COOL}

    def make() -> dict[str, Any]:
        from ..evaluation.confidence import measure_confidence

        rows = []
        for name, temperature in temperatures.items():
            found = measure_confidence(
                {"base": base.subject(None)},
                {"base": ["base"]},
                benchmark_of(load_problems(recipe).train, recipe, "training"),
                n=n,
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
    """The rows with `voted`; of equally frequent answers the first one's."""
    votes = {id: most_frequent([r["cluster"] for r in own]) for id, own in _by_id(rows).items()}
    left = {id: iter(own) for id, own in votes.items()}
    return [{**row, "voted": next(left[row["id"]])} for row in rows]


def _by_id(rows: Rows) -> dict[Hashable, Rows]:
    found: dict[Hashable, Rows] = {}
    for row in rows:
        found.setdefault(row["id"], []).append(row)
    return found


def _over_problems(value: Callable[[Rows], float], rows: Rows) -> Estimate:
    values = {id: value(own) for id, own in _by_id(rows).items()}
    return mean_over_problems([*values], [*values.values()])


def _share(own: Rows, column: str = "correct") -> float:
    return float(np.mean([bool(row[column]) for row in own]))


def _elected(own: Rows) -> float:
    """Whether the most frequent answer is right."""
    return float(any(row["correct"] for row in own if row["voted"]))


def _agreement(own: Rows) -> float:
    """The chance that two of a problem's completions give the same answer."""
    votes = [row["cluster"] for row in own]
    pairs = [a is not None and a == b for i, a in enumerate(votes) for b in votes[:i]]
    return float(np.mean(pairs)) if pairs else 0.0


def _cooled(value: Callable[[Rows], float], samples: Samples) -> Estimate:
    """What a value gains from the lower temperature, paired by problem."""
    tables = [
        [{"id": id, "value": value(own)} for id, own in _by_id(samples[name]).items()]
        for name in ("cool", "warm")
    ]
    return combination_over_seeds([(1, [tables[0]]), (-1, [tables[1]])], "value")


def _as_labels(rows: Rows, labels: bool) -> Rows:
    """The rows with votes in the place of labels, unless there are `labels`."""
    return rows if labels else [{**row, "correct": row["voted"]} for row in rows]


def _within(column: str, sign: int, samples: Samples, labels: bool) -> Estimate | None:
    rows = [
        {**row, "value": None if row[column] is None else sign * row[column]}
        for row in _as_labels(samples["warm"], labels)
    ]
    return auc_within_groups(rows, "value")


def _alignment(samples: Samples, labels: bool) -> Estimate | None:
    return alignment(_as_labels(samples["warm"], labels), "self_certainty")


def _vote(samples: Samples, labels: bool) -> Estimate:
    def gap(own: Rows) -> float:
        return _elected(own) - _share(own) if labels else _share(own, "voted") - _agreement(own)

    return _over_problems(gap, samples["warm"])


def _cooling(samples: Samples, labels: bool) -> Estimate:
    return _cooled(_share if labels else _agreement, samples)


def _plurality(samples: Samples, labels: bool) -> Estimate:
    value = _elected if labels else functools.partial(_share, column="voted")
    return _over_problems(value, samples["warm"])


def _level(samples: Samples, labels: bool) -> Estimate:
    return _over_problems(_share if labels else _agreement, samples["warm"])


def _length(samples: Samples, labels: bool) -> Estimate:
    return _over_problems(lambda own: float(np.mean([r["tokens"] for r in own])), samples["warm"])


def _long_and_certain(samples: Samples, labels: bool) -> Estimate:
    return _over_problems(_rank_correlation_of_length, samples["warm"])


def _rank_correlation_of_length(own: Rows) -> float:
    pairs = [(r["tokens"], r["self_certainty"]) for r in own if r["self_certainty"] is not None]
    return spearman(*zip(*pairs, strict=True)) if len(pairs) > 1 else 0.0


@dataclass(frozen=True)
class Predictor:
    """What is measured of the base: its title, and `measure(samples, labels)`.

    `unlabelled` is the title without labels, None where labels make no difference.
    """

    title: str
    unlabelled: str | None
    measure: Callable[[Samples, bool], Estimate | None]


PREDICTORS: Mapping[str, Predictor] = types.MappingProxyType(
    {
        "alignment": Predictor(
            "self-certainty's advantage × right", "self-certainty's advantage × voted", _alignment
        ),
        "auc": Predictor(
            "AUC of self-certainty, right",
            "AUC of self-certainty, voted",
            functools.partial(_within, "self_certainty", 1),
        ),
        "auc-entropy": Predictor(
            "AUC of minus entropy, right",
            "AUC of minus entropy, voted",
            functools.partial(_within, "entropy", -1),
        ),
        "auc-log-prob": Predictor(
            "AUC of mean log-probability, right",
            "AUC of mean log-probability, voted",
            functools.partial(_within, "log_prob", 1),
        ),
        "vote": Predictor(
            "right by vote, less by one", "share that voted, less agreement of two", _vote
        ),
        "cooling": Predictor(
            "right at T = 0.3, less at 0.9", "agreement at T = 0.3, less at 0.9", _cooling
        ),
        "plurality": Predictor("problems whose vote is right", "share that voted", _plurality),
        "level": Predictor("right", "agreement of two", _level),
        "length": Predictor("tokens of a completion", None, _length),
        "length-certainty": Predictor(
            "rank correlation of length with self-certainty", None, _long_and_certain
        ),
    }
)
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
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(spearman(x, y), float(low), float(high), len(x), len(x))


def leave_one_out(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Mean absolute error of a line through the other tasks, and of the others' mean."""
    both: list[list[float]] = [[], []]
    for i in range(len(x)):
        others, values = np.delete(x, i), np.delete(y, i)
        flat = np.ptp(others) == 0
        line = values.mean() if flat else np.polyval(np.polyfit(others, values, 1), x[i])
        both[0].append(abs(float(line) - y[i]))
        both[1].append(abs(float(values.mean()) - y[i]))
    return float(np.mean(both[0])), float(np.mean(both[1]))


@dataclass(frozen=True)
class Outcome:
    """What training on a task gained: its trials by arm, the samples of the base before it."""

    task: str
    base: Sequence[Trial]
    intuitor: Sequence[Trial]
    random: Sequence[Trial]
    samples: Samples

    def gap(self, other: Sequence[Trial], test: str, step: int | None = None) -> Estimate:
        """INTUITOR less another arm on a test, or on its snapshots after a step.

        A single training is paired with every one of INTUITOR's.
        """
        sides = [
            (weight, [trial.rows(test, step_of(several, step)) for trial in several])
            for weight, several in ((1.0, self.intuitor), (-1.0, other))
        ]
        return combination_over_seeds(sides, "correct")

    def kept(self, test: str, steps: Sequence[int]) -> Estimate:
        """INTUITOR less the random reward, each where the monitor's alarms would have stopped it.

        Where that is before the first snapshot, it is the base.
        """
        sides = []
        for weight, several in ((1.0, self.intuitor), (-1.0, self.random)):
            tables = []
            for trial in several:
                step, _ = kept_step(trial, [*steps, trial.recipe.max_steps])
                last = step == trial.recipe.max_steps
                kept = trial.rows(test, None if last else step) if step else None
                tables.append(kept or self.base[0].rows(test, 0))
            sides.append((weight, tables))
        return combination_over_seeds(sides, "correct")


def outcomes(
    trials: Mapping[str, Sequence[Trial]], samples: Mapping[str, Samples]
) -> dict[str, Outcome]:
    """Group collected trials by their task."""
    found: dict[str, dict[str, Sequence[Trial]]] = {}
    for several in trials.values():
        arm, _, task = several[0].arm.partition("/")
        found.setdefault(task, {})[arm] = several
    return {task: Outcome(task, samples=samples[task], **arms) for task, arms in found.items()}
