"""Measured values and verdicts on the paper's claims, as entries of a notebook's record.

A record (`report.save_record`) holds under `paper` an entry for each table or figure it answers:
what was measured, and what was not tested, with the reason. Under `claims` it holds verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..report import Estimate, difference_over_seeds, mean_over_seeds
from .numbers import CLAIMS
from .trials import Trial

__all__ = [
    "NO_GPU",
    "VERDICTS",
    "answer",
    "change",
    "claim",
    "estimate",
    "measured",
    "not_tested",
    "policy_name",
    "verdict",
]

VERDICTS = ("same direction", "opposite", "undecided", "not tested here")

CLOSE = 0.1
"""Two accuracies are close if the interval of their difference lies within ± this."""

NO_GPU = (
    "needs this model and the benchmark's items, so a GPU and the hub; the profile was run without"
)

ONLY_SMOKE = "its notebook was executed at smoke only, which trains two steps"


def estimate(
    trials: Sequence[Trial], test: str, column: str = "correct", step: int | None = None
) -> Estimate:
    """Estimate the mean of a column of a test over the seeds of an arm, with a 95 % interval."""
    return mean_over_seeds([trial.rows(test, step) for trial in trials], column)


def change(
    before: Sequence[Trial],
    after: Sequence[Trial],
    test: str,
    column: str = "correct",
    *,
    step: int | None = None,
    step_before: int | None = None,
) -> Estimate:
    """Estimate the difference of two arms on the same items, with a 95 % interval."""
    return difference_over_seeds(
        [trial.rows(test, step_before) for trial in before],
        [trial.rows(test, step) for trial in after],
        column,
    )


def measured(
    what: str, value: Estimate, trials: Sequence[Trial], *, unit: str = "accuracy"
) -> dict[str, Any]:
    """Make a record's value: an estimate with its unit, seeds, profile and model."""
    return {
        "what": what,
        "unit": unit,
        **value.to_dict(),
        "seeds": [trial.seed for trial in trials],
        "profile": trials[0].profile,
        "model": policy_name(trials[0]),
    }


def answer(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make a record's entry for a table or figure from `measured` values.

    An entry of the profile `smoke` is marked as not tested.
    """
    entry: dict[str, Any] = {"measured": [dict(value) for value in values]}
    if any(value["profile"] == "smoke" for value in values):
        entry["not tested"] = [not_tested("this", ONLY_SMOKE)]
    return entry


def not_tested(what: str, reason: str) -> dict[str, str]:
    """Make a record's entry for something that was not tested, and the reason."""
    return {"what": what, "reason": reason}


def policy_name(trial: Trial) -> str:
    """The model of a trial, with its quantization and adapter."""
    recipe = trial.recipe
    weights = "not quantized" if recipe.quantization == "none" else recipe.quantization.upper()
    return f"{recipe.model.removeprefix('embedded:')} ({weights}{' + LoRA' * recipe.use_lora})"


def verdict(value: Estimate, expected: str) -> str:
    """Judge a claim by an interval.

    Args:
        value: a difference, or a shift from the value without effect.
        expected: by the claim, "higher" or "lower" than 0, or "close" to it (`CLOSE`).
    """
    if expected == "close":
        if value.low >= -CLOSE and value.high <= CLOSE:
            return "same direction"
        return "opposite" if value.low > CLOSE or value.high < -CLOSE else "undecided"
    sign = {"higher": 1, "lower": -1}[expected]
    low, high = sorted((sign * value.low, sign * value.high))
    return "same direction" if low > 0 else "opposite" if high < 0 else "undecided"


def claim(
    id: str,
    what: str,
    value: Estimate,
    expected: str,
    trials: Sequence[Trial],
    *,
    unit: str = "accuracy",
    note: str = "",
) -> dict[str, Any]:
    """Make a record's entry for a claim: the measured value and the verdict.

    A claim is not tested under the profile `smoke`, whose trainings take two steps.

    Raises:
        KeyError: the claim is unknown.
    """
    known = [claim.id for claim in CLAIMS]
    if id not in known:
        raise KeyError(f"no claim {id!r}: choose from {', '.join(known)}")
    entry = {**measured(what, value, trials, unit=unit), "expected": expected, "note": note}
    if trials[0].profile == "smoke":
        return entry | {"verdict": "not tested here", "reason": ONLY_SMOKE}
    return entry | {"verdict": verdict(value, expected)}
