"""Ours beside the paper: measured values, verdicts on its claims, and the summary of both.

A notebook's record (`report.save_record`) carries, under `paper`, an entry for each table or
figure it answers: what was measured, with profile, n, seeds and interval, and what was not tested
here, with the reason. Under `claims` it carries verdicts. The summary reads these records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..report.intervals import Estimate, difference_over_seeds, mean_over_seeds
from .numbers import CLAIMS
from .trials import Trial

__all__ = ["NO_GPU", "answer", "change", "claim", "estimate", "measured", "not_tested", "verdict"]

VERDICTS = ("same direction", "opposite", "undecided", "not tested here")

CLOSE = 0.1
"""Two accuracies are called close if the interval of their difference lies within this."""

NO_GPU = (
    "needs this model and the benchmark's items, so a GPU and the hub; the profile was run without"
)

ONLY_SMOKE = "its notebook was executed at smoke only, which trains two steps"


def estimate(
    trials: Sequence[Trial], test: str, column: str = "correct", step: int | None = None
) -> Estimate:
    """Mean of a column of a test over the seeds of an arm, with its 95 % interval."""
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
    """Difference of two arms on the same items, with its 95 % interval."""
    return difference_over_seeds(
        [trial.rows(test, step_before) for trial in before],
        [trial.rows(test, step) for trial in after],
        column,
    )


def measured(
    what: str, value: Estimate, trials: Sequence[Trial], *, unit: str = "accuracy"
) -> dict[str, Any]:
    """A value for a record, with everything that must stand beside a number of ours."""
    first = trials[0]
    return {
        "what": what,
        "unit": unit,
        **value.to_dict(),
        "seeds": [trial.seed for trial in trials],
        "profile": first.profile,
        "model": policy_name(first),
    }


def answer(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An entry of a record for a table or figure: what was `measured` of it here.

    Under `smoke` it says that this is no result.
    """
    entry: dict[str, Any] = {"measured": [dict(value) for value in values]}
    if any(value["profile"] == "smoke" for value in values):
        entry["not tested"] = [not_tested("this", ONLY_SMOKE)]
    return entry


def not_tested(what: str, reason: str) -> dict[str, str]:
    """What is missing, and why."""
    return {"what": what, "reason": reason}


def policy_name(trial: Trial) -> str:
    recipe = trial.recipe
    weights = "not quantized" if recipe.quantization == "none" else recipe.quantization.upper()
    return f"{recipe.model.removeprefix('embedded:')} ({weights}{' + LoRA' * recipe.use_lora})"


def verdict(value: Estimate, expected: str) -> str:
    """What an interval says of a claim.

    Args:
        value: a difference, or a shift from what no effect would give.
        expected: what the claim says: "higher" or "lower" than 0, or "close" to it (`CLOSE`).
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
    """A claim's entry in a record: what was measured of it here, and the verdict.

    Under `smoke`, whose trainings are two steps, a claim is not tested.

    Raises:
        KeyError: no such claim.
    """
    if id not in {known.id for known in CLAIMS}:
        raise KeyError(f"no claim {id!r}: choose from {', '.join(c.id for c in CLAIMS)}")
    entry = {**measured(what, value, trials, unit=unit), "expected": expected, "note": note}
    if trials[0].profile == "smoke":
        return entry | {"verdict": "not tested here", "reason": ONLY_SMOKE}
    return entry | {"verdict": verdict(value, expected)}
