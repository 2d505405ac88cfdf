"""Estimates with 95 % intervals, from rows with one result each.

A row has the `id` of its problem and its measurements as columns.
"""

import functools
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

Values = Sequence[float] | np.ndarray
Rows = Sequence[Mapping[str, Any]]
Row = TypeVar("Row", bound=Mapping[str, Any])

RESAMPLES = 4000  # of a bootstrap
PERCENTILES = [2.5, 97.5]
_Z = 1.959963984540054  # of a normal distribution, at its 97.5th percentile


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, over `n` problems and `samples` values in all.

    `trainings`: the seeds that the values are of; 0 if that is unknown. `same`: all problems have
    the same value, so that the interval is no bootstrap's (`agreement`).
    """

    value: float
    low: float
    high: float
    n: int
    samples: int
    trainings: int = 0
    same: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)

    def text(self, digits: int = 2, sign: str = "") -> str:
        """`0.41 [0.30, 0.53]`; with `sign="+"`, of a difference, `+0.41 [+0.30, +0.53]`."""
        form = f"{sign}.{digits}f"
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


def proportion(successes: int, n: int) -> Estimate:
    """Share of successes with Wilson's score interval.

    Raises:
        ValueError: n < 1, or successes outside of 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no proportion: give 0 <= successes <= n, n >= 1")
    share = successes / n
    return Estimate(share, *wilson(share, n), n, n, same=share in (0, 1))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's score interval for a share of `n`."""
    half = _Z / (n + _Z * _Z) * math.sqrt(n * share * (1 - share) + _Z * _Z / 4)
    centre = (n * share + _Z * _Z / 2) / (n + _Z * _Z)
    return min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share)


def agreement(
    value: float, n: int, *, difference: bool = False, spread: float = 0.0
) -> tuple[float, float]:
    """An interval for `n` problems that all have the same value, where a bootstrap has no width.

    For a share it is Wilson's. A difference, or a number outside of 0..1, has no such interval. For
    these it is the value plus and minus w times `spread`, the range of what was measured, at least
    1; w is Wilson's upper bound for 0 of `n`, about 4 / n. So up to a share w of all problems may
    differ from these, each by as much as the measured values do, in either direction.
    """
    if not difference and 0 <= value <= 1:
        return wilson(value, n)
    width = wilson(0, n)[1] * max(spread, 1.0)
    return value - width, value + width


def mean_over_problems(
    problems: Sequence[Hashable],
    values: Sequence[float],
    *,
    difference: bool = False,
    seed: int = 0,
) -> Estimate:
    """Mean of values, by default shares, with a percentile bootstrap interval.

    The bootstrap resamples problems, because the values of one problem resemble each other. If all
    problems have the same mean, as where every value is 1, the interval is that of `agreement`.
    `problems` has the problem of each value; `difference`: values are differences, or lengths.

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
    about = {"counts": counts, "seed": seed, "spread": np.ptp(numbers), "difference": difference}
    return replace(_over_both((sums / counts)[None], len(numbers), **about), trainings=0)


def difference_over_problems(before: Rows, after: Rows, column: str) -> Estimate:
    """Mean of a column in `after` minus its mean in `before`, paired by problem."""
    return combination_over_seeds([(1, [after]), (-1, [before])], column)


def mean_over_seeds(tables: Sequence[Rows], column: str) -> Estimate:
    """Mean of a column over several trainings, each with a table of the same problems.

    The bootstrap resamples trainings and problems, so the interval covers both sources of chance.
    With three seeds it is still too narrow, as three values hardly show their spread. If all
    problems have the same mean in all trainings, the interval is that of `agreement`.

    Raises:
        ValueError: no table, or tables with different problems.
    """
    matrix, _ = _per_seed(tables, column)
    return _over_both(matrix, sum(len(rows) for rows in tables))


def combination_over_seeds(terms: Sequence[tuple[float, Sequence[Rows]]], column: str) -> Estimate:
    """A weighted sum of the means of a column over several arms, paired by seed and problem.

    Each term is a weight and the tables of an arm, which are paired by their order; a single table
    (the base) is paired with every table of the others. The interval is that of `mean_over_seeds`.
    If all sums are equal, as where both sides of a difference have the same verdicts, it is that of
    `agreement`, around the value. Two tables of one answer for each problem have that of Bonett and
    Price (2012): a bootstrap takes four problems of a hundred, all won, for a difference, where
    McNemar's exact test asks for six.

    Raises:
        ValueError: numbers of tables that cannot be paired, or different problems.
    """
    matrices = [_per_seed(tables, column) for _, tables in terms]
    ids, counts = matrices[0][1], [len(matrix) for matrix, _ in matrices]
    for _, others in matrices[1:]:
        if ids != others:
            odd = sorted(set(ids) ^ set(others), key=str)[:5]
            raise ValueError(
                f"a paired difference needs the same problems; only one side has {odd}"
            )
    if any(count not in (1, max(counts)) for count in counts):
        raise ValueError(f"{' and '.join(map(str, counts))} tables do not pair up")
    total = sum(weight * matrix for (weight, _), (matrix, _) in zip(terms, matrices, strict=True))
    values = sum(len(rows) for _, tables in terms for rows in tables)
    spread = float(np.ptp(np.concatenate([matrix for matrix, _ in matrices])))
    spread *= sum(abs(weight) for weight, _ in terms) / 2  # 1 for a difference
    found = _over_both(np.asarray(total), values, difference=True, spread=spread)
    answers = [matrix for matrix, _ in matrices if len(matrix) == 1 and {*matrix.flat} <= {0, 1}]
    if found.same or len(answers) < len(terms) or sorted(w for w, _ in terms) != [-1, 1]:
        return found
    low, high = _paired_shares(np.asarray(total))
    return replace(found, low=low, high=high)


def _paired_shares(gaps: np.ndarray) -> tuple[float, float]:
    """Bonett and Price's interval for gaps of -1, 0 and 1: one more counts as won, one as lost."""
    n = gaps.size + 2
    won, lost = (((gaps == side).sum() + 1) / n for side in (1, -1))
    half = _Z * math.sqrt((won + lost - (won - lost) ** 2) / n)
    return max(won - lost - half, -1.0), min(won - lost + half, 1.0)


def _per_seed(tables: Sequence[Rows], column: str) -> tuple[np.ndarray, list[Hashable]]:
    """Means (tables, problems) of a column, and the problems."""
    means = [_mean_per_problem(rows, column) for rows in tables]
    if not means or not means[0] or any(m.keys() != means[0].keys() for m in means):
        raise ValueError(
            f"{len(means)} tables with {[len(m) for m in means]} problems: give at least one, all "
            "of the same problems"
        )
    ids = sorted(means[0], key=str)
    return np.array([[m[i] for i in ids] for m in means]), ids


def _over_both(
    matrix: np.ndarray, values: int, *, counts: Any = 1, seed: int = 0, **about: Any
) -> Estimate:
    """Mean of a matrix (trainings, problems), with an interval that resamples both.

    `counts` weighs the problems; `about` goes to `agreement`.
    """
    trainings, problems = matrix.shape
    weights = np.ones(problems) * counts
    value = float((matrix * weights).sum() / (trainings * weights.sum()))
    same = bool(np.ptp(matrix) <= 1e-9 * max(1.0, np.abs(matrix).max()))
    if same:
        low, high = agreement(value, problems, **about)
    else:
        rows, columns = _drawn(trainings, problems, seed)
        columns = columns * weights
        means = ((rows @ matrix) * columns).sum(axis=1) / (trainings * columns.sum(axis=1))
        low, high = np.percentile(means, PERCENTILES)
    return Estimate(value, float(low), float(high), problems, values, trainings, same)


@functools.lru_cache(maxsize=4)  # a report has many estimates over as many problems
def _drawn(trainings: int, problems: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each training and each problem is drawn: (RESAMPLES, trainings or problems)."""
    draw = np.random.default_rng(seed)
    first, second = (
        draw.multinomial(size, [1 / size] * size, size=RESAMPLES).astype("int32")
        for size in (trainings, problems)
    )
    first.flags.writeable = second.flags.writeable = False
    return first, second


def pass_at_k(rows: Rows, k: int) -> Estimate:
    """Chance that at least one of `k` completions of a problem is correct, from n >= k of each.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) with c correct completions (arXiv 2107.03374,
    eq. 1); the bootstrap resamples problems.

    Raises:
        ValueError: a problem has fewer than `k` completions, or k < 1.
    """
    total = Counter(row["id"] for row in rows)
    correct = Counter(row["id"] for row in rows if row["correct"])
    fewest = min(total.values(), default=0)
    if not 1 <= k <= fewest:
        raise ValueError(f"pass@{k} needs {k} completions of each problem, one has {fewest}")
    chances = [1 - math.comb(n - correct[i], k) / math.comb(n, k) for i, n in total.items()]
    return mean_over_problems(list(total), chances)


def mcnemar(before: Rows, after: Rows) -> dict[str, Any]:
    """Exact McNemar test on the same problems, with one completion of each.

    Returns:
        `lost` (correct before, wrong after), `won` (the reverse) and the two-sided p-value `p` of
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


def by_problem(rows: Iterable[Row]) -> dict[Hashable, list[Row]]:
    """The rows of each problem, by its `id`."""
    found: dict[Hashable, list[Row]] = {}
    for row in rows:
        found.setdefault(row["id"], []).append(row)
    return found


def _mean_per_problem(rows: Rows, column: str) -> dict[Hashable, float]:
    values: dict[Hashable, list[float]] = {}
    for row in rows:
        if row[column] is not None:
            values.setdefault(row["id"], []).append(float(row[column]))
    return {problem: float(np.mean(numbers)) for problem, numbers in values.items()}


def summarize(rows: Rows) -> dict[str, Estimate]:
    """Estimates from the rows of an evaluation, for every measurement that they have.

    Accuracy with one completion per problem has Wilson's interval; all others are bootstrapped
    over problems.
    """
    estimates: dict[str, Estimate] = {}
    for name in ("accuracy", "self_certainty", "tokens", "clipped"):
        column = "correct" if name == "accuracy" else name
        known = [row for row in rows if row.get(column) is not None]
        if not known:
            continue
        ids = [row["id"] for row in known]
        values = [float(row[column]) for row in known]
        if name == "accuracy" and len(set(ids)) == len(ids):
            estimates[name] = proportion(int(sum(values)), len(values))
        else:
            is_share = name in ("accuracy", "clipped")
            estimates[name] = mean_over_problems(ids, values, difference=not is_share)
    return estimates
