"""What fits GPUs of common sizes, by estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..recipe.recipe import Recipe
from ..recipe.recipes import get_recipe
from .memory import estimate_memory, gib

__all__ = ["Fit", "fitting", "markdown"]

_MODELS = ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-7B")
_GPUS = (8, 12, 16, 24)
_LENGTHS = (3072, 2048, 1024, 512)
_TRAIN_BATCHES = (14, 7, 2, 1)
_ROLLOUT_BATCHES = (112, 56, 28, 14, 7)


@dataclass(frozen=True)
class Fit:
    """The largest sensible setting of a model on a GPU of `gpu_gib`; None where none fits.

    `total` is its estimated peak in bytes.
    """

    model: str
    gpu_gib: int
    recipe: Recipe | None
    total: int


def fitting() -> Iterator[Fit]:
    """For each model and GPU the setting with the most tokens in a batch of the update.

    NF4 + LoRA with gradient checkpointing, prompts of `max_prompt_length`, updates of 16 groups
    of 7 completions. Of equal ones the longer completions win; then as many completions are
    sampled at a time as fit.
    """
    for model in _MODELS:
        for gpu in _GPUS:
            yield _largest(model, gpu)


def _largest(model: str, gpu: int) -> Fit:
    budget = gpu * 2**30
    sizes = [(length, batch) for length in _LENGTHS for batch in _TRAIN_BATCHES]
    for length, batch in sorted(sizes, key=lambda size: (-size[0] * size[1], -size[0])):
        for rollouts in _ROLLOUT_BATCHES:
            recipe = get_recipe(
                "intuitor",
                "gpu-12gb",
                model=model,
                max_completion_length=length,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=112 // batch,
                rollout_batch_size=rollouts,
            )
            estimate = estimate_memory(recipe, device="cuda")
            if estimate.total <= budget:
                return Fit(model, gpu, recipe, estimate.total)
            others = [phase for phase in estimate.phases if phase != "rollout"]
            if any(estimate.phase_total(phase) > budget for phase in others):
                break  # sampling less at a time helps nothing
    return Fit(model, gpu, None, 0)


def markdown(fits: Iterator[Fit]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield (
        "| model | GPU | max_completion_length | per_device_train_batch_size | "
        "rollout_batch_size | estimated peak |"
    )
    yield "|---|---|---|---|---|---|"
    for fit in fits:
        if fit.recipe is None:
            cells = ["-", "-", "-", "nothing of these fits"]
        else:
            values = (
                fit.recipe.max_completion_length,
                fit.recipe.per_device_train_batch_size,
                fit.recipe.rollout_batch_size,
            )
            cells = [*map(str, values), gib(fit.total)]
        name = fit.model.rpartition("/")[2]
        yield f"| {name} | {fit.gpu_gib} GiB | {' | '.join(cells)} |"
