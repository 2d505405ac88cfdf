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
    Table,
    alignment,
    auc_within_groups,
    combination_over_seeds,
    mean_over_problems,
)
from .plan import SEEDS, TASKS, Rows
from .results import result
from .trials import Trial, TrialStore
from .verdicts import estimate, gain_verdict, restored, signed, step_of
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
    samples: Samples
    base: Sequence[Trial]
    intuitor: Sequence[Trial]
    random: Sequence[Trial]

    def gain(self, test: str, *, step: int | None = None, over: str = "random") -> Estimate:
        """INTUITOR less the random reward or the base on a test, after a step or all of them.

        A single training is paired with every one of INTUITOR's.
        """
        other: Sequence[Trial] = getattr(self, over)
        sides = ((1.0, self.intuitor), (-1.0, other))
        tables = [(w, [t.rows(test, step_of(arm, step)) for t in arm]) for w, arm in sides]
        return combination_over_seeds(tables, "correct")

    def kept(self, test: str, steps: Sequence[int]) -> Estimate:
        """`gain` with either side at the last snapshot before its own first alarm without labels.

        Where no snapshot is before it, that is the base.
        """
        sides = ((1.0, self.intuitor), (-1.0, self.random))
        tables = [(w, [self._kept(trial, test, steps) for trial in arm]) for w, arm in sides]
        return combination_over_seeds(tables, "correct")

    def _kept(self, trial: Trial, test: str, steps: Sequence[int]) -> Rows:
        last = trial.recipe.max_steps
        step, _ = kept_step(trial, [*steps, last])
        if not step:
            return self.base[0].rows(test)
        return trial.rows(test, None if step == last else step)

    def verdict(self, test: str) -> str:
        """The verdict on a gain over the base and the random reward, by docs/protocol.md."""
        levels = [estimate(arm, test) for arm in (self.base, self.intuitor, self.random)]
        return gain_verdict(*levels, [self.gain(test, over=name) for name in ("base", "random")])

    def predictor(self, name: str, labels: bool = False) -> Estimate | None:
        """One of `PREDICTORS`, by the base's samples."""
        return PREDICTORS[name].measure(self.samples, labels)


def outcomes(
    trials: Mapping[str, Sequence[Trial]], samples: Mapping[str, Samples]
) -> dict[str, Outcome]:
    """Group collected trials by their task, in the order of `TASKS`."""
    arms: dict[str, dict[str, Sequence[Trial]]] = {}
    for several in trials.values():
        arm, _, task = several[0].arm.partition("/")
        arms.setdefault(task, {})[arm] = several
    return {name: Outcome(name, samples[name], **arms[name]) for name in TASKS if name in arms}


def tasks_table(found: Mapping[str, Outcome]) -> Table:
    """Tabulate the tasks: what the base and no skill at all reach on them, and the training."""
    rows = []
    for name, outcome in found.items():
        floors = outcome.base[0].baselines["own"]
        several = [*outcome.intuitor, *outcome.random]
        made = [trial.training for trial in several if trial.training]
        rated = outcome.base[0].rows("own_sampled")
        silent = sum(row["answer"] is None for row in rated) / len(rated)
        rows.append(
            [
                TASKS[name].title + " (held back)" * TASKS[name].held_back,
                *(estimate(outcome.base, test).text() for test in ("own", "own_sampled")),
                *(f"{floors[floor]['value']:.2f}" for floor in ("echo", "most frequent answer")),
                f"{silent:.0%}",
                f"{np.mean([row['tokens'] for row in rated]):.1f}",
                ", ".join(str(trial.seed) for trial in outcome.intuitor),
                f"{np.mean([training['seconds'] for training in made]):.0f}",
            ]
        )
    header = ["family", "base, greedy", "base, sampled", "echo", "most frequent answer"]
    header += ["no answer", "tokens", "seeds", "seconds of a training"]
    return Table(header, rows, "Held-out problems, 95 % intervals; the random reward has one seed.")


def outcomes_table(found: Mapping[str, Outcome], steps: Sequence[int]) -> Table:
    """Tabulate what training gained, sampled and greedy, where it stopped and at snapshots."""
    rows = []
    for name, outcome in found.items():
        cells = [signed(outcome.kept(test, steps)) for test in ("own_sampled", "own")]
        cells += [
            signed(outcome.gain(test, step=step))
            for step in steps
            for test in ("own_sampled", "own")
        ]
        over = [signed(outcome.gain(test, over="base")) for test in ("own_sampled", "own")]
        said = "; ".join(
            f"{how} {outcome.verdict(test)}"
            for how, test in (("sampled", "own_sampled"), ("greedy", "own"))
        )
        title = TASKS[name].title + " (held back)" * TASKS[name].held_back
        rows.append([title, *cells, *over, said])
    header = ["family", "stopped without labels, sampled", "greedy"]
    header += [f"step {step}, {how}" for step in steps for how in ("sampled", "greedy")]
    header += ["over the base, sampled", "greedy", "verdict at the end"]
    caption = (
        "INTUITOR less the random reward, but where it says over the base; 95 % intervals over "
        "seeds and problems. Verdicts by docs/protocol.md: over the base and the random reward."
    )
    return Table(header, rows, caption)


def predictors_table(found: Mapping[str, Outcome], steps: Sequence[int]) -> Table:
    """Tabulate how each predictor goes with the gain over the tasks that are not held back."""
    known = _not_held_back(found)
    gains = [outcome.kept("own_sampled", steps).value for outcome in known]
    rows = []
    for name, predictor in PREDICTORS.items():
        kinds = [(False, predictor.unlabelled or predictor.title)]
        kinds += [(True, predictor.title)] * bool(predictor.unlabelled)
        for labels, title in kinds:
            values = [outcome.predictor(name, labels) for outcome in known]
            x = [value.value for value in values if value is not None]
            if len(x) < max(len(values), 3):
                rows.append([title, "yes" if labels else "no", "-", "-", "-"])
                continue
            line, mean = leave_one_out(x, gains)
            shown = f"{rank_correlation(x, gains).text()}"
            primary = " (primary)" * (name == PRIMARY and not labels)
            span = f"{min(x):.2f} to {max(x):.2f}"
            errors = f"{line:.3f} / {mean:.3f}"
            rows.append([title + primary, "yes" if labels else "no", span, shown, errors])
    header = ["predictor, before training", "labels", "over the families"]
    header += ["rank correlation with the gain", "error left out: line / mean"]
    caption = (
        f"{len(known)} families; the gain is INTUITOR less the random reward, sampled, stopped "
        "without labels. Intervals: bootstrap over families, too narrow for so few."
    )
    return Table(header, rows, caption)


def against_the_gain(
    found: Mapping[str, Outcome], steps: Sequence[int], name: str, *, labels: bool = False
) -> dict[str, tuple[Estimate, Estimate]]:
    """A predictor and the gain of each task, by title, for `estimates_against`."""
    pairs = {}
    for task, outcome in found.items():
        value = outcome.predictor(name, labels)
        if value is not None:
            title = TASKS[task].title + " (held back)" * TASKS[task].held_back
            pairs[title] = (value, outcome.kept("own_sampled", steps))
    return pairs


EXPECTED = 0.03
"""A predicted gain from which on a gain is expected (docs/protocol.md)."""


def foretold(found: Mapping[str, Outcome], steps: Sequence[int]) -> dict[str, Any]:
    """The rule of docs/protocol.md for the primary predictor, as JSON-ready values.

    Returns:
        `correlation` with its interval and `errors` left out (line, mean) over the tasks that are
        not held back; `recommended`: whether the rule makes it a recommendation; `line`, its slope
        and intercept; and `held_back`, the tasks that were: `predicted` and `measured` gain, and
        whether that was `right`. Empty with fewer than three tasks.
    """
    known = _not_held_back(found)
    pairs = [(outcome.predictor(PRIMARY), outcome.kept("own_sampled", steps)) for outcome in known]
    both = [(x.value, y.value) for x, y in pairs if x is not None]
    if len(both) < 3:
        return {}
    x, y = zip(*both, strict=True)
    correlation, errors = rank_correlation(x, y), leave_one_out(x, y)
    slope, intercept = (float(value) for value in np.polyfit(x, y, 1))
    held_back = {}
    for name, outcome in found.items():
        value = outcome.predictor(PRIMARY)
        if TASKS[name].held_back and value is not None:
            gain, predicted = outcome.kept("own_sampled", steps), slope * value.value + intercept
            right = (predicted >= EXPECTED) == (gain.low > 0)
            held_back[name] = {
                "predictor": value.to_dict(),
                "predicted": predicted,
                "measured": gain.to_dict(),
                "right": right,
            }
    return {
        "correlation": correlation.to_dict(),
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


def _not_held_back(found: Mapping[str, Outcome]) -> list[Outcome]:
    return [outcome for name, outcome in found.items() if not TASKS[name].held_back]
