"""Check that a training fits the available memory, and advise which settings to lower."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import psutil
import torch
from accelerate.utils.memory import clear_device_cache

from ..policy.free_memory import free_gpu_bytes, free_ram_bytes
from ..policy.pretrained import Source, load_tokenizer
from ..policy.shapes import ARCHITECTURES, model_shape
from ..problems import Problem, conversation, prompt_token_ids
from ..recipe import InputError, Recipe, RecipeError
from ..store.processes import share_batch
from .memory import SKIP, MemoryEstimate, estimate_memory, gib

logger = logging.getLogger(__name__)


def advice(recipe: Recipe, budget: int, **about: Any) -> dict[str, int]:
    """Settings with which a training fits `budget` bytes, and its peak with them; empty if none do.

    They are those of `fitting`.
    """
    peaks = {}
    for lower in fitting(recipe, budget, **about):
        text = " ".join(
            f"{key}={str(value).lower() if isinstance(value, bool) else value}"
            for key, value in lower.changes(recipe).items()
        )
        peaks[text] = estimate_memory(lower, **about).total
    return peaks


def fitting(recipe: Recipe, budget: int, **about: Any) -> list[Recipe]:
    """Recipes near `recipe` whose training fits `budget` bytes, the nearest first.

    Settings that do not change the training, up to rounding, are lowered first, as little as
    necessary. Where they are not enough, each recipe changes one more: AdamW's moments to 8 bits,
    LoRA, length or model. `about` goes to `estimate_memory`.
    """

    def excess(changed: Recipe) -> int:
        made = estimate_memory(changed, **about)
        return sum(max(0, made.phase_total(phase) - budget) for phase in made.phases)

    def lowered(start: Recipe, values: Iterable[Mapping[str, Any]]) -> Recipe:
        recipes = [start]
        for lower in values:
            with contextlib.suppress(RecipeError):
                recipes.append(start.replace(**lower))
        return min(recipes, key=excess)

    same, others = _lower_values(recipe)
    start = recipe
    for values in same:
        start = lowered(start, values)
    found = [start] if not excess(start) else [lowered(start, values) for values in others]
    return [changed for changed in found if not excess(changed)]


def _lower_values(recipe: Recipe) -> tuple[list[Iterable[Mapping[str, Any]]], ...]:
    """Ever lower values of each setting that does not change the training, and of each other."""
    number, group = recipe.completions_per_step, recipe.num_generations
    rollouts = _halves(min(recipe.rollout_batch_size or number, number), 1)
    batches = [n for n in range(recipe.per_device_train_batch_size - 1, 0, -1) if number % n == 0]
    sizes = {name: sum(shape.parameters) for name, shape in ARCHITECTURES.items()}
    size = sum(model_shape(Source.of(recipe)).parameters)
    models = sorted((name for name in sizes if sizes[name] < size), key=lambda n: -sizes[n])
    return [
        ({"rollout_batch_size": n // group * group or n} for n in rollouts),  # whole groups
        (
            {"per_device_train_batch_size": n, "gradient_accumulation_steps": number // n}
            for n in batches
        ),
        [{"gradient_checkpointing": True}],
    ], [
        [{"optim": "paged_adamw_8bit"}],
        [{"use_lora": True}, {"use_lora": True, "quantization": "nf4"}],
        ({"max_completion_length": n} for n in _halves(recipe.max_completion_length, 64)),
        # An adapter belongs to its model.
        ({"model": n, "model_revision": None} for n in models if recipe.adapter is None),
    ]


def _halves(value: int, least: int) -> Iterator[int]:
    while value > least:
        value = max(least, value // 2)
        yield value


def total_memory(device: str) -> int:
    """Bytes of the GPU, or of RAM, whatever is in use."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[1]
    return psutil.virtual_memory().total


def available_memory(device: str) -> int:
    """Bytes that this process can still use, of the GPU or of RAM."""
    free = free_gpu_bytes(torch.device(device))
    return free_ram_bytes() if free is None else free


def require_memory(
    recipe: Recipe,
    *,
    device: str | None = None,
    problems: Sequence[Problem] | None = None,
    available: int | None = None,
    processes: int = 1,
) -> MemoryEstimate | None:
    """The estimate of a training that fits; refuses one that does not, before it loads anything.

    The process's current memory is not counted. If the longest prompt that the recipe allows does
    not fit, the longest of `problems` counts. A recipe that cannot be estimated passes with None,
    and so does every one with `INTUITOR_MEMORY_CHECK=0`. `available` is in bytes, by default
    `available_memory`. `processes` share an update and, on a CPU, the memory.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if os.environ.get(SKIP) == "0":
        return None
    measured, sharers = available is None, processes if device == "cpu" else 1
    if available is None:
        available = available_memory(device) // sharers
    if processes > 1:
        shared = share_batch(recipe, processes)
        with contextlib.suppress(RecipeError):
            recipe = recipe.replace(**shared)
    about: dict[str, Any] = {"device": device, "processes": processes}
    try:
        estimate = estimate_memory(recipe, **about)
    except (InputError, OSError, ValueError) as error:  # loading will report some of these
        logger.warning("memory was not estimated: %s: %s", type(error).__name__, error)
        return None
    used = estimate.parts["runtime"] if device == "cpu" else 0
    if estimate.total - used > available and measured:
        clear_device_cache(garbage_collection=True)  # a policy trained before holds itself
        available = available_memory(device) // sharers
    if estimate.total - used > available and problems is not None:
        about["prompt_tokens"] = longest_prompt(recipe, problems)
        estimate = estimate_memory(recipe, **about)
        used = estimate.parts["runtime"] if device == "cpu" else 0  # less, after the collection
    if estimate.total - used <= available:
        return estimate
    found = advice(recipe, available + used, **about)
    remedies = "; or ".join(f"{settings} ({gib(peak - used)})" for settings, peak in found.items())
    raise InputError(
        f"training {recipe.model} would take {gib(estimate.total - used)} more at its peak "
        f"({estimate.phase}), and {gib(available)} are free on {device}. "
        + (f"It fits with {remedies}" if found else "No setting lowers it enough")
        + f". `intuitor memory` lists the parts; {SKIP}=0 trains without this check"
    )


def longest_prompt(recipe: Recipe, problems: Sequence[Problem]) -> int | None:
    """Tokens of the longest prompt that is not dropped; None without a tokenizer."""
    try:
        tokenizer = load_tokenizer(Source.of(recipe))
        ids = prompt_token_ids(tokenizer, [conversation(p.prompt, recipe) for p in problems])
    except (OSError, ValueError):  # loading the policy will report it
        return None
    return max((len(row) for row in ids if len(row) <= recipe.max_prompt_length), default=None)
