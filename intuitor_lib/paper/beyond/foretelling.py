"""Whether what the base says before a training tells what the training gains."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from ...report import Estimate, Table, spearman
from ...report.intervals import PERCENTILES
from ..plan import TASKS
from ..verdicts import restored, signed
from .outcomes import Outcomes
from .predictors import PREDICTORS, PRIMARY

_RESAMPLES = 2000  # of a bootstrap over tasks
_KNOWN = ("products", "differences")  # a gain on these was known before the protocol
_TASKS_AT_LEAST = 5  # fewer say nothing of a rank correlation


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Spearman's rank correlation over tasks, with a bootstrap interval over them.

    The interval takes tasks as drawn apart from each other; where they resemble each other it is
    too narrow. With nine, it begins to lie above 0 at a correlation of .65 to .7.

    Raises:
        ValueError: fewer than five tasks, or not as many of both.
    """
    if len(x) != len(y) or len(x) < _TASKS_AT_LEAST:
        raise ValueError(
            f"{len(x)} and {len(y)} values: give as many of both, at least {_TASKS_AT_LEAST}"
        )
    draw, values = np.random.default_rng(0), np.array([x, y], float)
    picked = draw.integers(len(x), size=(_RESAMPLES, len(x)))
    picked = picked[[len({*i}) > 2 for i in picked]]
    low, high = np.percentile(spearman(*values[:, picked]), PERCENTILES)
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


def predictors_table(found: Outcomes) -> Table:
    """Tabulate how each predictor goes with the outcome over the tasks that are not held back."""
    rows, mean, by_mean = [], None, None
    for name, predictor in PREDICTORS.items():
        kinds = [(False, predictor.unlabelled or predictor.title)]
        kinds += [(True, predictor.title)] * bool(predictor.unlabelled)
        for labels, title in kinds:
            primary = " (primary)" * (name == PRIMARY and not labels)
            cells = ["-"] * 5
            if pairs := _pairs(found, name, labels):
                x, y = zip(*pairs.values(), strict=True)
                line, mean = leave_one_out(x, y)
                cells[:3] = [f"{min(x):.2f} to {max(x):.2f}", rank_correlation(x, y).text()]
                cells[2] = f"{line:.3f}"
                if held_back := _pairs(found, name, labels, held_back=True):
                    later, gains = zip(*held_back.values(), strict=True)
                    slope, intercept = line_through(x, y)
                    errors = [abs(slope * a + intercept - b) for a, b in held_back.values()]
                    by_mean = fmean(abs(fmean(y) - gain) for gain in gains)
                    cells[3:] = [f"{fmean(errors):.3f}", f"{spearman(x + later, y + gains):.2f}"]
            rows.append([title + primary, "yes" if labels else "no", *cells])
    header = ["predictor, before training", "labels", "its smallest and largest value"]
    header += ["rank correlation with the gain", "mean error for a left-out family"]
    header += ["for those held back", "rank correlation over all"]
    number = sum(not TASKS[name].held_back for name in found)
    caption = (
        f"{number} families, and {len(found) - number} that were held back; the gain is INTUITOR "
        "less the random reward, sampled, stopped without labels. One of "
        f"{len(rows)} predictors is primary, the others are exploratory: nothing is corrected for "
        "their number. Error: of the gain by a line through the other families"
        + (f"; by their mean it is {mean:.3f}" if mean is not None else "")
        + (f", for those held back {by_mean:.3f}" if by_mean is not None else "")
        + ". Intervals: bootstrap over families; families that resemble each other make them too "
        "narrow, and the chance of a predictor's own samples is in none. -: without a value on "
        f"some family, or fewer than {_TASKS_AT_LEAST} families."
    )
    return Table(header, rows, caption)


def _pairs(
    found: Outcomes, name: str, labels: bool = False, *, held_back: bool = False
) -> dict[str, tuple[float, float]]:
    """A predictor and the outcome of each task, held back or not; none if one has no value."""
    known = {task: o for task, o in found.items() if TASKS[task].held_back == held_back}
    values = {task: outcome.predictors[name, labels] for task, outcome in known.items()}
    pairs = {
        task: (value.value, known[task].outcome.value)
        for task, value in values.items()
        if value is not None
    }
    least = 1 if held_back else _TASKS_AT_LEAST
    return pairs if len(pairs) == len(known) >= least else {}


def against_the_gain(
    found: Outcomes, name: str, *, labels: bool = False
) -> dict[str, tuple[Estimate, Estimate]]:
    """A predictor and the outcome of each task that it has a value on, for `estimates_against`."""
    values = {o.title: (o.predictors[name, labels], o.outcome) for o in found.values()}
    return {title: (x, y) for title, (x, y) in values.items() if x is not None}


EXPECTED = 0.03
"""A predicted gain from which on a gain is expected (docs/protocol.md)."""


def foretold(found: Outcomes) -> dict[str, Any]:
    """The rule of docs/protocol.md for the primary predictor, as JSON-ready values.

    Returns:
        `correlation` with its interval and `errors` left out (line, mean) over the tasks that are
        not held back; `without_products` and `without_known`, that without products and without
        differences too, on which a gain was known before; `over_base`, that with the gain over the
        base instead of the random reward; `recommended`: whether the rule makes it a
        recommendation; `line`, its slope and intercept; and `held_back`, the tasks that were:
        `predicted` and `measured` gain, and whether that was `right`. Empty with too few tasks.
    """
    pairs = _pairs(found, PRIMARY)
    if len(pairs) < _TASKS_AT_LEAST + len(_KNOWN):
        return {}
    others = [
        rank_correlation(*zip(*(p for task, p in pairs.items() if task not in out), strict=True))
        for out in (_KNOWN[:1], _KNOWN)
    ]
    x, y = zip(*pairs.values(), strict=True)
    correlation, errors = rank_correlation(x, y), leave_one_out(x, y)
    slope, intercept = line_through(x, y)
    held_back = {}
    for name, outcome in found.items():
        value = outcome.predictors[PRIMARY, False]
        if TASKS[name].held_back and value is not None:
            gain, predicted = outcome.outcome, slope * value.value + intercept
            held_back[name] = {
                "predictor": value.to_dict(),
                "predicted": predicted,
                "measured": gain.to_dict(),
                "right": (predicted >= EXPECTED) == (gain.low > 0),
            }
    over_base = [found[task].gain("own_sampled", over="base", kept=True).value for task in pairs]
    return {
        "correlation": correlation.to_dict(),
        "without_products": others[0].to_dict(),
        "without_known": others[1].to_dict(),
        "over_base": rank_correlation(x, over_base).to_dict(),
        "errors": errors,
        "recommended": correlation.low > 0 and errors[0] < errors[1],
        "line": [slope, intercept],
        "held_back": held_back,
    }


def in_words(rule: Mapping[str, Any]) -> str:
    """What `foretold` found, in sentences."""
    correlations = {
        name: restored(rule[name]).text()
        for name in ("correlation", "without_products", "without_known", "over_base")
    }
    line, mean = rule["errors"]
    right = sum(one["right"] for one in rule["held_back"].values())
    verdict = "is a recommendation" if rule["recommended"] else "is no recommendation"
    return (
        f"The primary predictor ({PREDICTORS[PRIMARY].unlabelled}), on the base without labels: "
        f"rank correlation with the gain {correlations['correlation']}, without products "
        f"{correlations['without_products']}, without differences too "
        f"{correlations['without_known']}, with the gain over the base instead "
        f"{correlations['over_base']}. For a family left out a line errs by {line:.3f}, the mean "
        f"of the others by {mean:.3f}. By the protocol it {verdict}. Of the families that were "
        f"held back, its forecast was right on {right} of {len(rule['held_back'])}; to say *no "
        f"gain* of each is right on {_without_gain(rule)}."
    )


def _without_gain(rule: Mapping[str, Any]) -> int:
    return sum(restored(one["measured"]).low <= 0 for one in rule["held_back"].values())


def foretold_table(rule: Mapping[str, Any]) -> Table:
    """Tabulate what `foretold` says of the tasks that were held back."""
    rows = [
        [
            TASKS[name].title,
            restored(one["predictor"]).text(),
            f"{one['predicted']:+.4f}",
            "gain" if one["predicted"] >= EXPECTED else "no gain",
            signed(restored(one["measured"])),
            "right" if one["right"] else "wrong",
        ]
        for name, one in rule.get("held_back", {}).items()
    ]
    header = ["family, held back", "primary predictor", "gain by the line", "forecast"]
    header += ["gain measured", "the forecast was"]
    caption = (
        f"A gain is forecast from {EXPECTED} on. That is right if the measured interval lies above "
        "0; no gain is right if it does not, be it undecided or below."
    )
    return Table(header, rows, caption)
