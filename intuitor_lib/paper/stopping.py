"""When to stop without labels: signals of a training, and how close each stops to the best step."""

import types
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np

from ..report import Estimate, Table, mean_over_problems
from ..training.monitor import WINDOW
from .plan import Rows
from .trials import Trial
from .verdicts import estimate
from .views import kept_step

_CUTS = 24  # thresholds tried for a signal

SIGNALS: Mapping[str, tuple[str, Callable[[float, float], float]]] = types.MappingProxyType(
    {
        "entropy, of its start": ("entropy", lambda now, start: now / max(start, 1e-9)),
        "KL to the start": ("kl", lambda now, start: now),
        "distinct completions, of their start": (
            "completions/distinct",
            lambda now, start: now / max(start, 1e-9),
        ),
        "length, of its start": (
            "completions/mean_length",
            lambda now, start: now / max(start, 1e-9),
        ),
        "repetition, less its start": ("completions/repetition", lambda now, start: now - start),
        "self-certainty, less its start": (
            "rewards/self_certainty/mean",
            lambda now, start: now - start,
        ),
    }
)
"""Metrics of a training that need no labels, as functions of their mean now and at the start."""

SLOPE = "self-certainty, less that before"
"""The slope of self-certainty: its mean over the last steps less that over as many before."""


class Way:
    """What a training was worth at its snapshots, with its signals there, and its base."""

    def __init__(self, trial: Trial, base: Trial, test: str, steps: Sequence[int]) -> None:
        self.label, self.seed = trial.label, trial.seed
        self.steps = [*steps, trial.recipe.max_steps]
        self.levels = {step: estimate([trial], test, step=step).value for step in steps}
        self.levels |= {0: estimate([base], test).value}
        self.levels |= {trial.recipe.max_steps: estimate([trial], test).value}
        self.kept = kept_step(trial, self.steps)[0]
        at = [trial.metrics[:step] for step in self.steps]
        self.signals = {name: [_level(rows, name) for rows in at] for name in [*SIGNALS, SLOPE]}

    def regret(self, step: int) -> float:
        """How far the accuracy after a step, 0 for the base, is below that of the best one."""
        return max(self.levels.values()) - self.levels[step]

    def stop(self, signal: str, cut: float, above: bool) -> int:
        """The first snapshot at which a signal is beyond a threshold, else the last one."""
        values = self.signals[signal]
        beyond = (s for s, v in zip(self.steps, values, strict=True) if (v > cut) == above)
        return next(beyond, self.steps[-1])


def _level(rows: Rows, name: str) -> float:
    column = SIGNALS[name][0] if name in SIGNALS else "rewards/self_certainty/mean"
    values = [float(row[column]) for row in rows if row.get(column) is not None]
    if not values:
        return 0.0
    now = fmean(values[-WINDOW:])
    if name == SLOPE:
        return now - fmean(values[-2 * WINDOW : -WINDOW] or values[:1])
    return SIGNALS[name][1](now, fmean(values[:WINDOW]))


def _fitted(ways: Sequence[Way], signal: str) -> tuple[float, bool]:
    """The threshold and the side of it with the smallest mean regret."""
    every = np.concatenate([way.signals[signal] for way in ways])
    cuts = np.quantile(every, np.linspace(0, 1, _CUTS))
    rules = [(float(cut), above) for cut in cuts for above in (True, False)]
    return min(rules, key=lambda rule: fmean(w.regret(w.stop(signal, *rule)) for w in ways))


def ways_of(trials: Mapping[str, Sequence[Trial]], test: str, steps: Sequence[int]) -> list[Way]:
    """Every training among trials that have a base, with a test of its snapshots."""
    (base,) = trials["base"]
    return [
        Way(trial, base, test, steps)
        for several in trials.values()
        for trial in several
        if trial.training
    ]


def stopping_table(ways: Sequence[Way]) -> Table:
    """Tabulate how far below its best snapshot each rule stops a training, leaving it out.

    A threshold, and the best fixed step, are fitted to the other trainings. Without labels are all
    rows but the last one.

    Raises:
        ValueError: fewer than three trainings, or trainings with different steps.
    """
    if len(ways) < 3 or len({tuple(way.steps) for way in ways}) != 1:
        raise ValueError(f"{len(ways)} trainings: give at least three, with the same steps")
    steps = ways[0].steps
    stopped: dict[str, list[int]] = {
        "the last step": [way.steps[-1] for way in ways],
        "the monitor's alarms": [way.kept for way in ways],
        "a fixed step": [],
    }
    stopped |= {name: [] for name in [*SIGNALS, SLOPE]}
    for i, way in enumerate(ways):
        others = [*ways[:i], *ways[i + 1 :]]
        best = min([0, *steps], key=lambda s: (fmean(o.regret(s) for o in others), s))
        stopped["a fixed step"].append(best)
        for name in [*SIGNALS, SLOPE]:
            stopped[name].append(way.stop(name, *_fitted(others, name)))
    rows = []
    for name, chosen in stopped.items():
        regrets = [way.regret(step) for way, step in zip(ways, chosen, strict=True)]
        counts = ", ".join(f"{s}: {chosen.count(s)}" for s in sorted({*chosen}))
        rows.append([name, _over_trainings(ways, regrets).text(3), counts])
    rows.append(["the best step, by labels", "0", "-"])
    header = ["rule", "accuracy below the best snapshot", "stops at step: trainings"]
    caption = (
        f"{len(ways)} trainings with snapshots at {', '.join(map(str, steps))}, and their base. "
        "Mean over them, 95 % interval over trainings; thresholds are fitted to the other ones. "
        "The best one is the best by chance, too, so that no rule reaches 0."
    )
    return Table(header, rows, caption)


def _over_trainings(ways: Sequence[Way], values: Sequence[float]) -> Estimate:
    return mean_over_problems([f"{way.label}, {way.seed}" for way in ways], values)
