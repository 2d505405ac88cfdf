"""Choose one of N sampled answers by confidence, by vote, or by both (arXiv 2502.18581).

Works on stored rows with `id` of the problem, `correct`, `cluster` (shared by equal answers; None
has no vote) and `self_certainty`, the confidence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..report import Estimate, by_problem, mean_over_problems

SELECTORS = ("one sample", "self-certainty", "Borda vote", "majority", "any of them")
"""Ways to select; "any of them" counts a problem as solved if one of the N is right."""


def best_of_n(
    rows: Sequence[Mapping[str, Any]], n: int, selector: str, *, draws: int = 32, seed: int = 0
) -> Estimate:
    """Accuracy of the answer selected among `n` completions of each problem.

    The mean over problems, with a bootstrap interval over them. Each problem's value is the mean
    over `draws` subsets of n of its completions (one subset if n is their number).

    Args:
        rows: at least `n` completions of every problem.
        selector: one of `SELECTORS`. "self-certainty" takes the most confident completion;
            "majority" the most frequent answer, and among equals the one with the higher sum of
            confidences; "Borda vote" gives the answer of the k-th most confident of n completions
            n - k + 1 votes.

    Raises:
        ValueError: an unknown selector, or a problem with fewer than `n` completions.
    """
    if selector not in SELECTORS:
        raise ValueError(f"selector={selector!r}: choose from {', '.join(SELECTORS)}")
    groups = by_problem(rows)
    fewest = min(map(len, groups.values()), default=0)
    if not 1 <= n <= fewest:
        raise ValueError(f"n={n}: choose from 1 to the {fewest} completions of each problem")
    draw = np.random.default_rng(seed)
    values = []
    for group in groups.values():
        once = n == len(group)
        chosen = [draw.permutation(len(group))[:n] for _ in range(1 if once else draws)]
        picks = [[group[i] for i in indices] for indices in chosen]
        right = [_right(pick, selector) for pick in picks]
        values.append(sum(right) / len(right))
    return mean_over_problems([*groups], values, seed=seed)


def _right(pick: Sequence[Mapping[str, Any]], selector: str) -> float:
    if selector == "one sample":
        return float(np.mean([bool(row["correct"]) for row in pick]))
    if selector == "any of them":
        return float(any(row["correct"] for row in pick))
    order = sorted(pick, key=lambda row: -_confidence(row))
    if selector == "self-certainty":
        return float(bool(order[0]["correct"]))
    votes: dict[Any, list[float]] = {}
    for rank, row in enumerate(order):
        if row["cluster"] is not None:
            weight = float(len(order) - rank) if selector == "Borda vote" else 1.0
            tally = votes.setdefault(row["cluster"], [0.0, 0.0])
            tally[0] += weight
            tally[1] += _confidence(row)
    if not votes:
        return 0.0
    elected = max(votes, key=lambda cluster: tuple(votes[cluster]))
    return float(next(bool(row["correct"]) for row in order if row["cluster"] == elected))


def _confidence(row: Mapping[str, Any]) -> float:
    value = row.get("self_certainty")
    return -np.inf if value is None else float(value)
