"""Check that a training fits the available memory, and advise which settings to lower."""

import contextlib
import functools
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from ..policy.pretrained import Source, load_tokenizer
from ..policy.shapes import ARCHITECTURES, model_shape
from ..problems import Problem, conversation, prompt_token_ids
from ..recipe import InputError, Recipe, RecipeError
from ..store.processes import share_batch
from .memory import SKIP, MemoryEstimate, estimate_memory, gib

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Advice:
    """Settings to change, the resulting peak and saving (bytes), and whether the training fits."""

    changes: Mapping[str, Any]
    total: int
    saves: int
    fits: bool

    def __str__(self) -> str:
        settings = " ".join(
            f"{key}={str(value).lower() if isinstance(value, bool) else value}"
            for key, value in self.changes.items()
        )
        verdict = "fits" if self.fits else "not enough"
        return f"{settings}: {gib(self.total)}, {gib(self.saves)} less ({verdict})"


def advice(
    recipe: Recipe, budget: int, *, device: str | None = None, prompt_tokens: int | None = None
) -> list[Advice]:
    """List settings to lower so that a training fits `budget` bytes; empty if it fits already.

    Each setting that saves memory has one entry, with the mildest value that fits, or else the
    nearest. Settings that do not change the training, up to rounding, come first. If none of these
    fits, the last entry combines several. Other arguments as for `estimate_memory`.
    """
    estimate = functools.partial(estimate_memory, device=device, prompt_tokens=prompt_tokens)

    def excess(changed: Recipe) -> int:
        made = estimate(changed)
        return sum(max(0, made.phase_total(phase) - budget) for phase in made.phases)

    def advise(changed: Recipe) -> Advice:
        old, total = recipe.to_dict(), estimate(changed).total
        changes = {key: value for key, value in changed.to_dict().items() if value != old[key]}
        return Advice(changes, total, before - total, total <= budget)

    before = estimate(recipe).total
    if before <= budget:
        return []
    alone = [advise(min(lower, key=excess, default=recipe)) for lower in _lowered(recipe)]
    found = [made for made in alone if made.saves > 0]
    combined = recipe
    for setting in range(len(alone)):
        combined = min([combined, *_lowered(combined)[setting]], key=excess)
    several = advise(combined)
    harmless_fits = any(made.fits for made in alone[:_HARMLESS])
    if several.saves > 0 and len(several.changes) > 1 and not harmless_fits:
        found.append(several)
    return found


_HARMLESS = 3  # of the settings of `_lowered`: they do not change the training


def _lowered(recipe: Recipe) -> list[list[Recipe]]:
    """For each setting that saves memory, valid recipes with ever lower values."""
    number, group = recipe.completions_per_step, recipe.num_generations
    rollouts = _halves(min(recipe.rollout_batch_size or number, number), 1)
    rollouts = rollouts if recipe.rollout in ("auto", "grouped") else iter(())
    batches = [n for n in range(recipe.per_device_train_batch_size - 1, 0, -1) if number % n == 0]
    sizes = {name: sum(shape.parameters) for name, shape in ARCHITECTURES.items()}
    size = sum(model_shape(Source.of(recipe)).parameters)
    models = sorted((name for name in sizes if sizes[name] < size), key=lambda n: -sizes[n])
    settings: list[Iterable[Mapping[str, Any]]] = [
        ({"rollout_batch_size": n // group * group or n} for n in rollouts),  # whole groups
        (
            {"per_device_train_batch_size": n, "gradient_accumulation_steps": number // n}
            for n in batches
        ),
        [{"gradient_checkpointing": True}],
        [{"use_lora": True}, {"use_lora": True, "quantization": "nf4"}],
        ({"max_completion_length": n} for n in _halves(recipe.max_completion_length, 64)),
        # An adapter belongs to its model.
        ({"model": n, "model_revision": None} for n in models if recipe.adapter is None),
    ]
    recipes: list[list[Recipe]] = [[] for _ in settings]
    for valid, values in zip(recipes, settings, strict=True):
        for changes in values:
            with contextlib.suppress(RecipeError):
                valid.append(recipe.replace(**changes))
    return recipes


def _halves(value: int, least: int) -> Iterator[int]:
    while value > least:
        value = max(least, value // 2)
        yield value


def available_memory(device: str) -> int:
    """Return the bytes that this process can still use, of the GPU or of RAM and its cgroups."""
    if device == "cuda":
        cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return torch.cuda.mem_get_info()[0] + cached
    return min([psutil.virtual_memory().available, *_cgroup_room()])


def _cgroup_room(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Bytes below the limit of this process's memory cgroup and of each of its parents."""
    lines = groups.read_text(encoding="utf-8").splitlines() if groups.exists() else []
    for _, version_1, path in (line.split(":", 2) for line in lines):
        folder = root / ("memory" if version_1 else "") / path.strip("/")
        limit, used = "memory.max", "memory.current"
        if version_1:
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        for group in (folder, *folder.parents):
            # A limit may be "max". In a container `path` may be the host's: only parents exist.
            with contextlib.suppress(OSError, ValueError):
                room = int((group / limit).read_text()) - int((group / used).read_text())
                pages = dict(map(str.split, (group / "memory.stat").read_text().splitlines()))
                # The kernel frees file pages before memory runs out.
                freed = pages.get("total_inactive_file", pages.get("inactive_file", 0))
                yield max(0, room + int(freed))


def require_memory(
    recipe: Recipe,
    *,
    device: str | None = None,
    problems: Sequence[Problem] | None = None,
    available: int | None = None,
    processes: int = 1,
) -> MemoryEstimate | None:
    """Check that a training fits, before it loads anything.

    The process's current memory is not counted. If the longest prompt that the recipe allows does
    not fit, the longest of `problems` counts. A recipe that cannot be estimated passes.

    Args:
        recipe: the training.
        device: "cuda" or "cpu"; by default, where this machine would train.
        problems: the training problems.
        available: bytes; by default, `available_memory`.
        processes: number of processes that share an update and, on a CPU, the memory.

    Returns:
        The estimate; None without one, or with `INTUITOR_MEMORY_CHECK=0`.

    Raises:
        InputError: the training does not fit; with the settings to lower.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if os.environ.get(SKIP) == "0" or device not in ("cuda", "cpu"):
        return None
    if available is None:
        available = available_memory(device) // (processes if device == "cpu" else 1)
    if processes > 1:
        batch, steps = share_batch(
            recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps, processes
        )
        with contextlib.suppress(RecipeError):
            recipe = recipe.replace(
                per_device_train_batch_size=batch, gradient_accumulation_steps=steps
            )
    try:
        estimate = estimate_memory(recipe, device=device)
    except (InputError, OSError, ValueError) as error:  # loading will report some of these
        logger.warning("memory was not estimated: %s: %s", type(error).__name__, error)
        return None
    used = estimate.parts["runtime"] if device == "cpu" else 0
    tokens = None
    if estimate.total - used > available and problems is not None:
        tokens = longest_prompt(recipe, problems)
        estimate = estimate_memory(recipe, device=device, prompt_tokens=tokens)
    if estimate.total - used <= available:
        return estimate
    found = advice(recipe, available + used, device=device, prompt_tokens=tokens)
    remedies = "; ".join(map(str, [made for made in found if made.fits] or found))
    raise InputError(
        f"training {recipe.model} would take {gib(estimate.total - used)} more at its peak "
        f"({estimate.phase}), and {gib(available)} are free on {device}. "
        + (f"Lower one of: {remedies}" if found else "No setting lowers it enough")
        + f". `intuitor memory` lists the parts; {SKIP}=0 trains without this check"
    )


def longest_prompt(recipe: Recipe, problems: Sequence[Problem]) -> int | None:
    """Return the tokens of the longest prompt that is not dropped; None without a tokenizer."""
    try:
        tokenizer = load_tokenizer(Source.of(recipe))
        ids = prompt_token_ids(tokenizer, [conversation(p.prompt, recipe) for p in problems])
    except (OSError, ValueError):  # loading the policy will report it
        return None
    return max((len(row) for row in ids if len(row) <= recipe.max_prompt_length), default=None)
