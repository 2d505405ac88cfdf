"""From a recipe to a trained run: GRPO with self-certainty as the reward, on TRL."""

from __future__ import annotations

import peft

from ..store.runs import Run
from .loading import Policy, load_policy

__all__ = ["load_run"]


def load_run(run: Run, *, step: int | None = None) -> Policy:
    """The trained policy of a finished run; its reference is the policy it started from.

    With `step`, as it was after that step, of which the run must have kept a snapshot
    (`snapshot_steps`).

    Raises:
        InputError: the run is not finished, or damaged, or has no such snapshot.
    """
    run.require_finished()
    run.require_whole()
    weights_of = run.weights(step)
    if not run.recipe.use_lora:
        return load_policy(run.recipe.replace(model=str(weights_of)))
    policy = load_policy(run.recipe)
    weights = peft.load_peft_weights(str(weights_of), device="cpu")
    peft.set_peft_model_state_dict(policy.model, weights)
    return policy
