"""When to stop without labels: signals of a training, and how close each stops to the best step."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np

from ...report import Estimate, Table, mean_over_problems
from ...training.monitor import WINDOW
from ..trials import Trial
from ..verdicts import direction, estimate

_CUTS = 24  # thresholds tried for a signal

Values = Sequence[float]


def _of_its_start(values: Values) -> float:
    return fmean(values[-WINDOW:]) / max(fmean(values[:WINDOW]), 1e-9)


def _less_its_start(values: Values) -> float:
    return fmean(values[-WINDOW:]) - fmean(values[:WINDOW])


def _less_before(values: Values) -> float:
    return fmean(values[-WINDOW:]) - fmean(values[-2 * WINDOW : -WINDOW] or values[:1])


SIGNALS: Mapping[str, tuple[str, Callable[[Values], float]]] = {
    "entropy, of its start": ("entropy", _of_its_start),
    "KL to the start": ("kl", lambda values: fmean(values[-WINDOW:])),
    "distinct completions, of their start": ("completions/distinct", _of_its_start),
    "length, of its start": ("completions/mean_length", _of_its_start),
    "repetition, less its start": ("completions/repetition", _less_its_start),
    "self-certainty, less its start": ("rewards/self_certainty/mean", _less_its_start),
    "self-certainty, its slope": ("rewards/self_certainty/mean", _less_before),
}
"""Functions of a metric's values so far; none needs labels. Means are over a few steps."""

ALARMS = "the monitor's alarms"


class Way:
    """What a training was worth at its base, its snapshots and its end, with its signals there."""

    def __init__(self, trial: Trial, base: Trial, test: str, steps: Sequence[int]) -> None:
        self.arm, last = trial.label, trial.recipe.max_steps
        self.steps = [*steps, last]
        self.levels = {0: estimate([base], test).value, last: estimate([trial], test).value}
        self.levels |= {step: estimate([trial], test, step=step).value for step in steps}
        self.kept = trial.kept(self.steps)
        self.signals = {name: [_signal(trial, name, s) for s in self.steps] for name in SIGNALS}

    def regret(self, step: int) -> float:
        """How far the accuracy after a step, 0 for the base, is below that of the best one."""
        return max(self.levels.values()) - self.levels[step]

    def stop(self, signal: str, cut: float, above: bool) -> int:
        """The step before the first one whose signal is beyond a threshold, else the last."""
        kept = 0
        for step, value in zip(self.steps, self.signals[signal], strict=True):
            if (value > cut) == above:
                break
            kept = step
        return kept


def _signal(trial: Trial, name: str, step: int) -> float:
    column, value = SIGNALS[name]
    seen = [row[column] for row in trial.metrics[:step] if row.get(column) is not None]
    return value(seen) if seen else 0.0


def ways_of(trials: Mapping[str, Sequence[Trial]], test: str, steps: Sequence[int]) -> list[Way]:
    """Every training among trials that have a base, with a test of its snapshots."""
    (base,) = trials["base"]
    several = [trial for arm in trials.values() for trial in arm if trial.training]
    return [Way(trial, base, test, steps) for trial in several]


def _fitted(ways: Sequence[Way], signal: str) -> tuple[float, bool]:
    """The threshold and the side of it with the smallest mean regret, of equals the latest stop."""
    every = np.concatenate([way.signals[signal] for way in ways])
    cuts = np.quantile(every, np.linspace(0, 1, _CUTS))
    rules = [(float(cut), above) for cut in cuts for above in (True, False)]

    def cost(rule: tuple[float, bool]) -> tuple[float, float]:
        stops = [way.stop(signal, *rule) for way in ways]
        return _mean_regret(ways, stops), -fmean(stops)

    return min([(math.inf, True), *rules], key=cost)  # the first never stops


def _mean_regret(ways: Sequence[Way], steps: Sequence[int]) -> float:
    return round(fmean(way.regret(step) for way, step in zip(ways, steps, strict=True)), 9)


def stopping_table(ways: Sequence[Way]) -> Table:
    """Tabulate how far below its best snapshot each rule stops a training, leaving it out.

    A threshold, and the best fixed step, are fitted to the other trainings.

    Raises:
        ValueError: fewer than three trainings, or trainings with different steps.
    """
    if len(ways) < 3 or len({tuple(way.steps) for way in ways}) != 1:
        raise ValueError(f"{len(ways)} trainings: give at least three, with the same steps")
    steps = ways[0].steps
    stopped: dict[str, list[int]] = {
        ALARMS: [way.kept for way in ways],
        "the last step": [steps[-1]] * len(ways),
    }
    others = [[*ways[:i], *ways[i + 1 :]] for i in range(len(ways))]
    stopped["a fixed step"] = [_best_step(rest) for rest in others]
    for name in SIGNALS:
        pairs = zip(ways, others, strict=True)
        stopped[name] = [way.stop(name, *_fitted(rest, name)) for way, rest in pairs]
    rows = []
    for name, chosen in stopped.items():
        if name == ALARMS:
            less = "-"
        elif chosen == stopped[ALARMS]:
            less = "stops as they do"
        else:
            gap = _over_arms(ways, chosen, stopped[ALARMS])
            less = f"{gap.text(3, '+')}, {direction(gap)}"
        counts = ", ".join(f"{s}: {chosen.count(s)}" for s in sorted({*chosen}))
        rows.append([name, _over_arms(ways, chosen).text(3), less, counts])
    header = ["rule", "accuracy below the best", "less that of the alarms", "step: trainings"]
    improvable = sum(way.regret(steps[-1]) > 0 for way in ways)
    arms = len({way.arm for way in ways})
    caption = (
        f"{len(ways)} trainings of {arms} arms, snapshots at {', '.join(map(str, steps))}; step 0 "
        "is the base. Means with 95 % intervals over arms; thresholds, the side that stops, "
        "and the fixed step are fitted to the other trainings, further seeds of the same arm among "
        f"them. In {improvable} trainings the last step is not the best; the best one is so by "
        f"chance, too, so that no rule reaches 0. {len(SIGNALS)} signals were tried."
    )
    return Table(header, rows, caption)


def _best_step(ways: Sequence[Way]) -> int:
    """The step with the smallest mean regret, of equals the last."""
    return min(ways[0].levels, key=lambda step: (_mean_regret(ways, [step] * len(ways)), -step))


def _over_arms(ways: Sequence[Way], steps: Sequence[int], less: Sequence[int] = ()) -> Estimate:
    """The mean regret of a step for each training, less that of another one, resampled by arm."""
    values = [way.regret(step) for way, step in zip(ways, steps, strict=True)]
    if less:
        values = [v - w.regret(step) for v, w, step in zip(values, ways, less, strict=True)]
    return mean_over_problems([way.arm for way in ways], values, difference=True)
