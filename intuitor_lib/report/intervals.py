"""Estimates with 95 % intervals, from per-item results."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = [
    "Estimate",
    "difference_over_problems",
    "difference_over_seeds",
    "mcnemar",
    "mean_over_problems",
    "mean_over_seeds",
    "pass_at_k",
    "proportion",
    "summarize",
]

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval.

    `n` counts problems; `samples` all values, several of which may belong to one problem.
    """

    value: float
    low: float
    high: float
    n: int
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)

    def text(self, digits: int = 2) -> str:
        """`0.41 [0.30, 0.53]`."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def proportion(successes: int, n: int) -> Estimate:
    """Share of successes with its Wilson score interval.

    Raises:
        ValueError: n < 1, or successes outside of 0..n.
    """
    from scipy.stats import binomtest

    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no proportion: give 0 <= successes <= n, n >= 1")
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return Estimate(successes / n, interval.low, interval.high, n, n)


def mean_over_problems(
    problems: Sequence[Hashable], values: Sequence[float], *, resamples: int = 4000, seed: int = 0
) -> Estimate:
    """Mean of values with a percentile bootstrap interval that resamples whole problems.

    Samples of one problem resemble each other, so they are drawn together.

    Raises:
        ValueError: no values, or not one problem per value.
    """
    if len(problems) != len(values) or not len(values):
        raise ValueError(
            f"{len(problems)} problems for {len(values)} values: give one each, at least one"
        )
    numbers = np.asarray(values, dtype=float)
    _, index = np.unique(np.asarray([str(p) for p in problems]), return_inverse=True)
    sums, counts = np.bincount(index, numbers), np.bincount(index)
    drawn = np.random.default_rng(seed).integers(len(counts), size=(resamples, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(numbers.mean()), float(low), float(high), len(counts), len(numbers))


def difference_over_problems(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    column: str,
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> Estimate:
    """Mean of a column in the rows `after` minus that in the rows `before`, on the same problems.

    Each problem (`id`) is compared with itself, and the bootstrap resamples problems.

    Raises:
        ValueError: the two hold different problems.
    """
    means = [_mean_per_problem(rows, column) for rows in (before, after)]
    if means[0].keys() != means[1].keys():
        odd = sorted(means[0].keys() ^ means[1].keys(), key=str)[:5]
        raise ValueError(f"a paired difference needs the same problems; only one side has {odd}")
    ids = list(means[0])
    changes = [means[1][i] - means[0][i] for i in ids]
    return mean_over_problems(ids, changes, resamples=resamples, seed=seed)


def mean_over_seeds(
    tables: Sequence[Sequence[Mapping[str, Any]]],
    column: str,
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> Estimate:
    """Mean of a column over several trainings measured on the same problems, a table for each.

    The bootstrap resamples trainings and problems (`id`), so the interval has both sources of
    chance; that of three seeds is still optimistic, as three values hardly show their spread.
    `n` counts problems, `samples` all values. One table gives the interval over problems. Where
    every value is 0, or every one 1, no resampling can differ: then it is Wilson's, over problems.

    Raises:
        ValueError: no table, or tables of different problems.
    """
    matrix, ids = _per_seed(tables, column)
    values = sum(len(rows) for rows in tables)
    if matrix.min() == matrix.max() and matrix.flat[0] in (0, 1):
        share = proportion(int(matrix.flat[0]) * len(ids), len(ids))
        return Estimate(share.value, share.low, share.high, len(ids), values)
    return _over_both(matrix, len(ids), values, resamples, seed)


def difference_over_seeds(
    before: Sequence[Sequence[Mapping[str, Any]]],
    after: Sequence[Sequence[Mapping[str, Any]]],
    column: str,
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> Estimate:
    """Mean of a column in the tables `after` minus that in `before`, on the same problems.

    Tables pair up by their order, as seeds do; a single table on one side (the base) is paired
    with every one of the other. Each problem is compared with itself. The interval is that of
    `mean_over_seeds`.

    Raises:
        ValueError: numbers of tables that do not pair up, or different problems.
    """
    matrices = [_per_seed(tables, column) for tables in (before, after)]
    (first, ids), (second, others) = matrices
    if ids != others:
        odd = sorted(set(ids) ^ set(others), key=str)[:5]
        raise ValueError(f"a paired difference needs the same problems; only one side has {odd}")
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        raise ValueError(f"{len(first)} tables before and {len(second)} after do not pair up")
    values = sum(len(rows) for rows in (*before, *after))
    return _over_both(second - first, len(ids), values, resamples, seed)


def _per_seed(
    tables: Sequence[Sequence[Mapping[str, Any]]], column: str
) -> tuple[np.ndarray, list[Hashable]]:
    """Means (tables, problems) of a column, and the problems."""
    means = [
        _mean_per_problem([r for r in rows if r[column] is not None], column) for rows in tables
    ]
    if not means or not means[0] or any(m.keys() != means[0].keys() for m in means):
        raise ValueError(
            f"{len(means)} tables with {[len(m) for m in means]} problems: give at least one, all "
            "of the same problems"
        )
    ids = sorted(means[0], key=str)
    return np.array([[m[i] for i in ids] for m in means]), ids


def _over_both(
    matrix: np.ndarray, problems: int, values: int, resamples: int, seed: int
) -> Estimate:
    draw = np.random.default_rng(seed)
    # How often each training and each problem is drawn.
    rows = draw.multinomial(len(matrix), [1 / len(matrix)] * len(matrix), size=resamples)
    columns = draw.multinomial(problems, [1 / problems] * problems, size=resamples)
    means = ((rows @ matrix) * columns).sum(axis=1) / (len(matrix) * problems)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(matrix.mean()), float(low), float(high), problems, values)


def pass_at_k(rows: Sequence[Mapping[str, Any]], k: int) -> Estimate:
    """Chance that at least one of `k` completions of a problem is right, from n >= k of each.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) with c right ones (arXiv 2107.03374, eq. 1);
    the bootstrap resamples problems.

    Raises:
        ValueError: a problem has fewer than `k` completions, or k < 1.
    """
    counts: dict[Hashable, list[int]] = {}
    for row in rows:
        total = counts.setdefault(row["id"], [0, 0])
        total[0] += 1
        total[1] += bool(row["correct"])
    fewest = min((n for n, _ in counts.values()), default=0)
    if not 1 <= k <= fewest:
        raise ValueError(f"pass@{k} needs {k} completions of each problem, one has {fewest}")
    chances = [1 - math.comb(n - c, k) / math.comb(n, k) for n, c in counts.values()]
    return mean_over_problems(list(counts), chances)


def mcnemar(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Exact McNemar test on the same problems, one completion of each.

    Returns:
        `lost` (right before, wrong after), `won` (the reverse) and the two-sided p-value `p` of
        the hypothesis that both are equally likely.

    Raises:
        ValueError: different problems, or several completions of one.
    """
    from scipy.stats import binomtest

    sides = [{row["id"]: bool(row["correct"]) for row in rows} for rows in (before, after)]
    if sides[0].keys() != sides[1].keys() or not len(before) == len(sides[0]) == len(after):
        raise ValueError("McNemar's test needs the same problems on both sides, each once")
    lost = sum(sides[0][i] and not sides[1][i] for i in sides[0])
    won = sum(sides[1][i] and not sides[0][i] for i in sides[0])
    p = binomtest(won, won + lost).pvalue if won + lost else 1.0
    return {"lost": lost, "won": won, "p": float(p)}


def _mean_per_problem(rows: Sequence[Mapping[str, Any]], column: str) -> dict[Hashable, float]:
    values: dict[Hashable, list[float]] = {}
    for row in rows:
        values.setdefault(row["id"], []).append(float(row[column]))
    return {problem: float(np.mean(numbers)) for problem, numbers in values.items()}


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """Estimates with 95 % intervals from the rows of `evaluation.measure`.

    Those of accuracy, self_certainty, tokens, clipped and kl that the rows hold. Accuracy of one
    completion per problem has Wilson's interval, everything else a bootstrap over problems.
    """
    estimates = {}
    for name, column in (
        ("accuracy", "correct"),
        ("self_certainty", "self_certainty"),
        ("tokens", "tokens"),
        ("clipped", "clipped"),
        ("kl", "kl"),
    ):
        known = [row for row in rows if row.get(column) is not None]
        if not known:
            continue
        ids = [row["id"] for row in known]
        values = [float(row[column]) for row in known]
        if column == "correct" and len(set(ids)) == len(ids):
            estimates[name] = proportion(int(sum(values)), len(values))
        else:
            estimates[name] = mean_over_problems(ids, values)
    return estimates
