"""Whether a training fits the memory there is, and which settings to lower where it does not."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers

from ..policy import embedded_model_folder
from ..problems import Problem, conversation, prompt_token_ids
from ..recipe import EMBEDDED_MODEL, InputError, Recipe, RecipeError
from ..store.processes import share_batch
from .memory import ARCHITECTURES, SKIP, MemoryEstimate, estimate_memory, gib, model_shape

__all__ = ["Advice", "advice", "available_memory", "longest_prompt", "require_memory"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Advice:
    """Settings to change, what the peak is then (bytes), what that saves, and whether it fits."""

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
    """What to lower for a training to fit `budget` bytes; empty if it fits as it is.

    One for each setting that saves something: its mildest value that fits, else the one that comes
    nearest. Those that leave the training the same up to rounding come first. Where none of these
    fits, the last one is several together. Other arguments as for `estimate_memory`.
    """

    def estimate(changed: Recipe) -> MemoryEstimate:
        return estimate_memory(changed, device=device, prompt_tokens=prompt_tokens)

    def excess(changed: Recipe) -> int:
        made = estimate(changed)
        return sum(max(0, made.phase_total(phase) - budget) for phase in made.phases)

    def advise(changed: Recipe) -> Advice:
        old, new, total = recipe.to_dict(), changed.to_dict(), estimate(changed).total
        changes = {key: value for key, value in new.items() if value != old[key]}
        return Advice(changes, total, before - total, total <= budget)

    before = estimate(recipe).total
    if before <= budget:
        return []
    alone = [min(changed, key=excess, default=recipe) for changed in _lowered(recipe)]
    found = [advise(changed) for changed in alone]
    together = recipe
    for number in range(len(alone)):
        lowered = min(_lowered(together)[number], key=excess, default=together)
        if 0 < excess(together) > excess(lowered):
            together = lowered
    several = advise(together)
    singles = [made for made in found if made.saves > 0]
    enough = any(made.fits for made in found[:_HARMLESS])
    return singles + [several] * (not enough and several.saves > 0 and len(several.changes) > 1)


_HARMLESS = 3  # of the settings of `_lowered` that leave the training the same


def _lowered(recipe: Recipe) -> list[list[Recipe]]:
    """For each setting that can be lowered, recipes with ever lower values."""
    number, group = recipe.completions_per_step, recipe.num_generations
    rollouts = [min(recipe.rollout_batch_size or number, number)]
    while rollouts[-1] > 1 and recipe.rollout in ("auto", "grouped"):  # whole groups where it can
        rollouts.append(rollouts[-1] // 2 // group * group or rollouts[-1] // 2)
    batches = [n for n in range(recipe.per_device_train_batch_size - 1, 0, -1) if number % n == 0]
    lengths = [recipe.max_completion_length]
    while lengths[-1] > 64:
        lengths.append(max(64, lengths[-1] // 2))
    models: list[str] = []
    if recipe.adapter is None:  # which is made for its model
        size = sum(model_shape(recipe.model, recipe.model_revision).parameters)
        sizes = {name: sum(shape.parameters) for name, shape in ARCHITECTURES.items()}
        models = sorted((n for n in sizes if sizes[n] < size), key=lambda name: -sizes[name])
    lora = [{"use_lora": True}] * (not recipe.use_lora)
    packed = [{"use_lora": True, "quantization": "nf4"}] * (recipe.quantization == "none")
    settings: list[list[dict[str, Any]]] = [
        [{"rollout_batch_size": n} for n in rollouts[1:]],
        [
            {"per_device_train_batch_size": n, "gradient_accumulation_steps": number // n}
            for n in batches
        ],
        [{"gradient_checkpointing": True}] * (not recipe.gradient_checkpointing),
        [*lora, *packed],
        [{"max_completion_length": n} for n in lengths[1:]],
        [{"model": name, "model_revision": None} for name in models],
    ]
    recipes: list[list[Recipe]] = []
    for values in settings:
        recipes.append([])
        for changes in values:
            with contextlib.suppress(RecipeError):
                recipes[-1].append(recipe.replace(**changes))
    return recipes


def available_memory(device: str) -> int:
    """Bytes that this process can still get: of the current GPU, or of RAM within its cgroups."""
    if device == "cuda":
        cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return torch.cuda.mem_get_info()[0] + cached
    return min([psutil.virtual_memory().available, *_cgroup_room()])


def _cgroup_room(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """What is left below the limits of this process's memory cgroup and of those around it."""
    lines = groups.read_text(encoding="utf-8").splitlines() if groups.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        base, names = root, ("memory.max", "memory.current")
        if controllers:  # cgroup v1
            base, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if "memory" not in controllers.split(","):
                continue
        folder = base / path.strip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(base):
                break
            # A limit may be "max". In a container the path may be the host's, and only `base` here.
            with contextlib.suppress(OSError, ValueError):
                limit, used = (int((group / name).read_text(encoding="utf-8")) for name in names)
                stat = (group / "memory.stat").read_text(encoding="utf-8").split()
                pages = dict(zip(stat[::2], map(int, stat[1::2]), strict=True))
                # File pages are given up before memory runs out.
                freed = pages.get("total_inactive_file", pages.get("inactive_file", 0))
                yield max(0, limit - used + freed)


def require_memory(
    recipe: Recipe,
    *,
    device: str | None = None,
    problems: Sequence[Problem] | None = None,
    available: int | None = None,
    processes: int = 1,
) -> MemoryEstimate | None:
    """Check that a training fits, before anything of it is loaded.

    What the process takes already is not asked for again. If the longest prompt that the recipe
    allows does not fit, the longest one of the problems counts. What cannot be estimated passes.

    Args:
        recipe: what is trained.
        device: "cuda" or "cpu"; where this machine would train it, by default.
        problems: what is trained on.
        available: bytes; what `available_memory` says, by default.
        processes: that train together: they share an update, and on a CPU its memory.

    Returns:
        The estimate; None where there is none, or `INTUITOR_MEMORY_CHECK=0` is set.

    Raises:
        InputError: it does not fit; with what is needed, what there is and what to lower.
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
        shared = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
        with contextlib.suppress(RecipeError):
            recipe = recipe.replace(**shared)
    try:
        estimate = estimate_memory(recipe, device=device)
    except (InputError, OSError, ValueError) as error:  # some of which loading will refuse
        logger.warning("memory was not estimated: %s: %s", type(error).__name__, error)
        return None
    own = estimate.parts["runtime"] if device == "cpu" else 0
    tokens = None
    if estimate.total - own > available and problems is not None:
        tokens = longest_prompt(recipe, problems)
        estimate = estimate_memory(recipe, device=device, prompt_tokens=tokens)
    if estimate.total - own <= available:
        return estimate
    found = advice(recipe, available + own, device=device, prompt_tokens=tokens)
    remedies = [made for made in found if made.fits] or found
    raise InputError(
        f"training {recipe.model} would take {gib(estimate.total - own)} more at its peak "
        f"({estimate.phase}), and {gib(available)} are free on {device}. "
        + ("Lower one of: " if remedies else "No setting lowers it enough. ")
        + "; ".join(map(str, remedies))
        + f". `intuitor memory` shows it part by part; {SKIP}=0 trains without this check"
    )


def longest_prompt(recipe: Recipe, problems: Sequence[Problem]) -> int | None:
    """Tokens of the longest prompt that is not dropped; None without a tokenizer at hand."""
    source = embedded_model_folder() if recipe.model == EMBEDDED_MODEL else recipe.model
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source, revision=recipe.model_revision
        )
        ids = prompt_token_ids(tokenizer, [conversation(p.prompt, recipe) for p in problems])
    except (OSError, ValueError):  # told when the policy is loaded
        return None
    return max((len(row) for row in ids if len(row) <= recipe.max_prompt_length), default=None)
