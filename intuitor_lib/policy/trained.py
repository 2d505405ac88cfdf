"""Load the trained policy of a finished run, to train further or to evaluate."""

from pathlib import Path
from typing import Any

from ..recipe import Recipe
from ..store import Run
from .adapters import read_adapter_weights
from .loading import Policy, load_model, load_policy


def load_run(run: Run, *, step: int | None = None) -> Policy:
    """Load the trained policy of a finished run; its reference is the policy training started from.

    With `step`, load the snapshot after that step (`snapshot_steps`).

    Raises:
        InputError: the run is not finished, is damaged, or has no such snapshot.
    """
    weights = _checked_weights(run, step)
    if not run.recipe.use_lora:
        return load_policy(run.recipe.replace(model=str(weights)))
    policy = load_policy(run.recipe)
    read_adapter_weights(policy.model, str(weights), run.recipe.model)
    return policy


def load_run_frozen(run: Run, *, step: int | None = None) -> Policy:
    """Load the same policy as `load_run` without a reference, with no trainable weights."""
    weights = str(_checked_weights(run, step))
    settings = base_settings(run.recipe)
    if run.recipe.use_lora:
        return load_model(run.recipe.model, **settings | {"adapter": weights})
    return load_model(weights, **settings | {"revision": None})


def base_settings(recipe: Recipe) -> dict[str, Any]:
    """Arguments of `load_model` for the policy that training by this recipe starts from."""
    return {
        "adapter": recipe.adapter,
        "revision": recipe.model_revision,
        "quantization": recipe.quantization,
        "dtype": recipe.dtype if recipe.use_lora else "float32",
        "trust_remote_code": recipe.trust_remote_code,
    }


def _checked_weights(run: Run, step: int | None) -> Path:
    run.require_finished()
    run.require_whole()
    if run.recipe.use_lora:
        run.require_same_base()
    return run.weights(step)
