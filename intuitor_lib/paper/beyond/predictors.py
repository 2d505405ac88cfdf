"""What samples of the base say before a training.

A predictor asks with labels whether completions are right, and without them how far they agree.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from ...evaluation.benchmarks.benchmarks import benchmark_of
from ...grading import in_plurality
from ...problems import load_problems
from ...report import (
    Estimate,
    alignment,
    auc_within_groups,
    by_problem,
    combination_over_seeds,
    spearman,
)
from ..plan import SEEDS, Rows
from ..results import result
from ..trials import TrialStore

PRIMARY = "alignment"
"""The predictor that docs/protocol.md names, without labels; the others are exploratory."""

COOL = 0.3
"""The lower temperature at which the base is sampled, besides the recipe's."""

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
    n, group = (4, 4) if profile == "smoke" else (64, recipe.num_generations)
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
    for own in by_problem(rows).values():
        voted = in_plurality([row["cluster"] for row in own])
        made += [{**row, "voted": vote} for row, vote in zip(own, voted, strict=True)]
    return made


def _mean(value: Callable[[Rows], float], rows: Rows, less: Rows | None = None) -> Estimate:
    """A value of a problem's rows, averaged over problems; less that of other rows, paired."""
    terms = [
        (weight, [[{"id": id, "value": value(own)} for id, own in by_problem(side).items()]])
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


def _of_problems(
    labelled: Callable[[Rows], float], other: Callable[[Rows], float], *, cooled: bool = False
) -> "Measure":
    """Of a problem's rows, with labels and without; `cooled`: at `COOL`, less at the training's."""
    sides = ("cool", "warm") if cooled else ("warm",)
    return lambda samples, labels: _mean(
        labelled if labels else other, *(samples[side] for side in sides)
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
        "AUC of self-certainty, right answers",
        "AUC of self-certainty, voted answers",
        _auc("self_certainty"),
    ),
    "auc-entropy": Predictor(
        "AUC of minus entropy, right answers",
        "AUC of minus entropy, voted answers",
        _auc("entropy", -1),
    ),
    "auc-log-prob": Predictor(
        "AUC of log-probability, right answers",
        "AUC of log-probability, voted answers",
        _auc("log_prob"),
    ),
    "vote": Predictor(
        "accuracy of a vote of 8, less that of one sample",
        "share of the most frequent answer, less the chance that two samples agree",
        _of_problems(
            lambda own: _right_by_vote(own) - _right(own),
            lambda own: _largest(own) - _agreement(own),
        ),
    ),
    "cooling": Predictor(
        "accuracy at T = 0.3, less that at the training's T",
        "chance that two samples agree at T = 0.3, less that at the training's T",
        _of_problems(_right, _agreement, cooled=True),
    ),
    "plurality": Predictor(
        "accuracy of a vote of 8",
        "share of the most frequent answer",
        _of_problems(_right_by_vote, _largest),
    ),
    "level": Predictor(
        "accuracy", "chance that two samples agree", _of_problems(_right, _agreement)
    ),
    "length": Predictor("tokens of a completion", None, _of_problems(_tokens, _tokens)),
    "length-certainty": Predictor(
        "rank correlation of length with self-certainty",
        None,
        _of_problems(_long_and_certain, _long_and_certain),
    ),
}
"""The predictors by name."""
