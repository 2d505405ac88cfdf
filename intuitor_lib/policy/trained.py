"""Load the trained policy of a finished run, to train further or to evaluate."""

from typing import Any

from ..recipe import Recipe
from ..store import Run
from .adapters import read_adapter_weights
from .loading import Policy, load_model, load_policy


def load_run(run: Run, *, step: int | None = None, frozen: bool = False) -> Policy:
    """Load the trained policy of a finished run; its reference is the policy training started from.

    With `step`, load the snapshot after that step (`snapshot_steps`). With `frozen`, load it
    without a reference and with no trainable weights.

    Raises:
        InputError: the run is not finished, is damaged, or has no such snapshot.
    """
    run.require_finished()
    run.require_whole()
    recipe = run.recipe
    if recipe.use_lora:
        run.require_same_base()
    weights = str(run.weights(step))
    if frozen and recipe.use_lora:
        return load_model(recipe.model, **base_settings(recipe) | {"adapter": weights})
    if frozen:
        return load_model(weights, **base_settings(recipe) | {"revision": None})
    if not recipe.use_lora:
        return load_policy(recipe.replace(model=weights))
    policy = load_policy(recipe)
    read_adapter_weights(policy.model, weights, recipe.model)
    return policy


def base_settings(recipe: Recipe) -> dict[str, Any]:
    """Arguments of `load_model` for the policy that training by this recipe starts from."""
    return {
        "adapter": recipe.adapter,
        "revision": recipe.model_revision,
        "quantization": recipe.quantization,
        "dtype": recipe.dtype if recipe.use_lora else "float32",
        "trust_remote_code": recipe.trust_remote_code,
    }
