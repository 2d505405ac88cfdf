"""Does a measurement separate right from wrong completions? Rank tests and AUC."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from .intervals import (
    PERCENTILES,
    Estimate,
    Rows,
    Values,
    agreement,
    combination_over_seeds,
    mean_over_problems,
)

_RESAMPLES = 1000  # of a bootstrap of ranks


def mann_whitney(right: Values, wrong: Values) -> dict[str, Any]:
    """Two-sided Mann-Whitney test between two samples, as in the paper's Figure 8.

    Returns:
        `U` of the first sample, `p`, the effect size `r` = Z / sqrt(N) with Z from the normal
        approximation with ties (positive where the first sample is larger).

    Raises:
        ValueError: an empty sample.
    """
    from scipy.stats import norm

    U, z = _rank_sum(np.asarray(right, float), np.asarray(wrong, float))
    n, m = len(right), len(wrong)
    p = float(2 * norm.sf(abs(z)))
    return {"U": U, "p": p, "r": z / math.sqrt(n + m)}


def _rank_sum(right: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    """U of the first sample and its z: normal approximation with ties, no continuity correction.

    scipy's test gives the same, but a bootstrap of it takes minutes.
    """
    from scipy.stats import rankdata

    n, m = len(right), len(wrong)
    if not n or not m:
        raise ValueError(f"{n} right and {m} wrong values: a comparison needs some of each")
    ranks = rankdata(np.concatenate([right, wrong]))
    U = float(ranks[:n].sum() - n * (n + 1) / 2)
    _, ties = np.unique(ranks, return_counts=True)
    total = n + m
    spread = n * m / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
    return U, float((U - n * m / 2) / math.sqrt(spread)) if spread > 0 else 0.0


def separation(rows: Rows, column: str) -> Estimate:
    """Effect size r of a column between right and wrong completions (`mann_whitney`).

    The bootstrap resamples problems, because the completions of one problem resemble each other.

    Raises:
        ValueError: all completions are right, or all wrong.
    """
    return separation_change(None, rows, column)


def separation_change(before: Rows | None, after: Rows, column: str) -> Estimate:
    """`separation` of `after` minus that of `before`, which may have the same problems.

    Raises:
        ValueError: on one side all completions are right, or all wrong.
    """
    sides = [_by_problem(rows, column) for rows in (before, after) if rows is not None]
    ids = sorted(set().union(*sides), key=str)
    draw = np.random.default_rng(0)

    def difference(chosen: Sequence[Any]) -> float:
        effects = []
        for groups in sides:
            picked = [groups[i] for i in chosen if i in groups]
            right = np.concatenate([group[0] for group in picked])
            wrong = np.concatenate([group[1] for group in picked])
            effects.append(_rank_sum(right, wrong)[1] / math.sqrt(len(right) + len(wrong)))
        return effects[-1] - (effects[0] if len(effects) > 1 else 0.0)

    value, drawn = difference(ids), []
    for _ in range(_RESAMPLES):
        try:
            drawn.append(difference([ids[i] for i in draw.integers(len(ids), size=len(ids))]))
        except ValueError:
            continue  # a draw with only right or only wrong completions
    count = sum(len(rows) for rows in (before, after) if rows is not None)
    same = bool(np.ptp([value, *drawn]) < 1e-9)  # one problem, or the same rows on both sides
    even = agreement(value, len(ids), difference=True)
    low, high = even if same else np.percentile(drawn, PERCENTILES)
    return Estimate(value, float(low), float(high), len(ids), count, same=same)


def _by_problem(rows: Rows, column: str) -> dict[Hashable, tuple[np.ndarray, np.ndarray]]:
    """Values of the right and of the wrong completions of each problem."""
    sides: dict[Hashable, tuple[list[float], list[float]]] = {}
    for row in rows:
        if row.get(column) is not None and row["correct"] is not None:
            right, wrong = sides.setdefault(row["id"], ([], []))
            (right if row["correct"] else wrong).append(float(row[column]))
    return {id: (np.array(right), np.array(wrong)) for id, (right, wrong) in sides.items()}


def auc_within_groups(rows: Rows, column: str) -> Estimate | None:
    """How often a column is larger for a right completion than for a wrong one of its problem.

    Mean over the problems that have both kinds, with a bootstrap interval over them; None if no
    problem has both. An update in groups can learn only from this.
    """
    both = {
        id: _rank_sum(right, wrong)[0] / (len(right) * len(wrong))
        for id, (right, wrong) in _by_problem(rows, column).items()
        if len(right) and len(wrong)
    }
    return mean_over_problems([*both], [*both.values()]) if both else None


def alignment(rows: Rows, column: str) -> Estimate | None:
    """The mean product of a column's advantage and being right, averaged over problems.

    The advantage is GRPO's: the value less the mean of the problem's completions, over their
    standard deviation. The product's mean is about a covariance, 0 where all completions of a
    problem are right, or all wrong. If each completion's probability grows in proportion to its
    advantage, accuracy grows in proportion to this. Unlike the AUC it counts how many problems
    have both kinds. None without rows.
    """
    values = [
        {"id": id, "value": _product(right, wrong)}
        for id, (right, wrong) in _by_problem(rows, column).items()
    ]
    return combination_over_seeds([(1.0, [values])], "value") if values else None


def _product(right: np.ndarray, wrong: np.ndarray) -> float:
    values = np.concatenate([right, wrong])
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    return float((right - values.mean()).sum() / spread / len(values)) if spread > 1e-9 else 0.0


def spearman(x: Any, y: Any) -> Any:
    """Spearman's rank correlation over the last axis, of any shape; 0 where a side is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(side, axis=-1) for side in (x, y)]
    a, b = (side - side.mean(axis=-1, keepdims=True) for side in ranks)
    lengths = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    found = (a * b).sum(axis=-1) / np.where(lengths > 0, lengths, 1.0)
    return float(found) if found.ndim == 0 else found
