"""Load the policy that a run trained."""

from __future__ import annotations

import peft

from ..store.runs import Run
from .loading import Policy, load_policy

__all__ = ["load_run"]


def load_run(run: Run, *, step: int | None = None) -> Policy:
    """The trained policy of a finished run; its reference is the policy it started from.

    Args:
        run: a run of the store.
        step: load the snapshot after this step (`snapshot_steps`) instead of the result.

    Raises:
        InputError: the run is not finished, or damaged, or has no such snapshot.
    """
    run.require_finished()
    run.require_whole()
    folder = str(run.weights(step))
    if not run.recipe.use_lora:
        return load_policy(run.recipe.replace(model=folder))
    policy = load_policy(run.recipe)
    peft.set_peft_model_state_dict(policy.model, peft.load_peft_weights(folder, device="cpu"))
    return policy
