"""Whether a training fits the memory there is, and what to lower where it does not."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers

from ..policy.embedded import embedded_model_folder
from ..problems.problems import Problem
from ..problems.prompts import conversation, prompt_token_ids
from ..recipe.constants import EMBEDDED_MODEL, InputError, RecipeError
from ..recipe.recipe import Recipe
from ..store.processes import share_batch
from .memory import MemoryEstimate, estimate_memory, gib
from .memory_configs import ARCHITECTURES, model_config

__all__ = ["SKIP", "Advice", "advice", "available_memory", "require_memory"]

logger = logging.getLogger(__name__)

SKIP = "INTUITOR_MEMORY_CHECK"
"""`INTUITOR_MEMORY_CHECK=0` in the environment lets `require_memory` pass everything."""


@dataclass(frozen=True)
class Advice:
    """Settings to change, what the peak is then (bytes), what that saves, and whether it fits."""

    changes: Mapping[str, Any]
    total: int
    saves: int
    fits: bool

    def __str__(self) -> str:
        settings = " ".join(
            f"{key}={str(value).lower()}" if isinstance(value, bool) else f"{key}={value}"
            for key, value in self.changes.items()
        )
        verdict = "fits" if self.fits else "not enough"
        return f"{settings}: {gib(self.total)}, {gib(self.saves)} less ({verdict})"


def advice(
    recipe: Recipe, budget: int, *, device: str | None = None, prompt_tokens: int | None = None
) -> list[Advice]:
    """What to lower for a training to fit, each estimated anew; empty if it fits as it is.

    One for each setting that saves something: its mildest value that fits, else its lowest. Those
    that leave the training the same come first, the ones that change it follow. Where no single
    setting is enough, the last one is several together.

    Args:
        recipe: what is trained.
        budget: bytes that it may take.
        device: as for `estimate_memory`.
        prompt_tokens: as for `estimate_memory`.
    """

    def estimate(changed: Recipe) -> MemoryEstimate:
        return estimate_memory(changed, device=device, prompt_tokens=prompt_tokens)

    before = estimate(recipe)
    if before.total <= budget:
        return []

    def advise(changed: Recipe) -> Advice:
        total = estimate(changed).total
        changes = {
            key: value for key, value in changed.to_dict().items() if value != recipe.to_dict()[key]
        }
        return Advice(changes, total, before.total - total, total <= budget)

    found = []
    for lever in _LEVERS:
        alone = _mildest(lever, recipe, estimate, budget)
        made = None if alone is None else advise(alone)
        if made is not None and made.saves > 0:
            found.append((lever, made))
    if any(made.fits and lever.harmless for lever, made in found):
        return [made for _, made in found]
    together = recipe
    for lever in _LEVERS:
        lowered = _mildest(lever, together, estimate, budget)
        if lowered is None or not _lowers(lever, estimate(together), estimate(lowered), budget):
            continue
        together = lowered
        if estimate(together).total <= budget:
            break
    last = advise(together)
    several = last.saves > 0 and len(last.changes) > 1
    return [made for _, made in found] + ([last] if several else [])


def _lowers(lever: _Lever, before: MemoryEstimate, after: MemoryEstimate, budget: int) -> bool:
    """Whether a lever lowers a phase that does not fit."""
    return any(
        before.phase_total(phase) > budget and after.phase_total(phase) < before.phase_total(phase)
        for phase in lever.phases
        if phase in before.phases
    )


@dataclass(frozen=True)
class _Lever:
    """Ever lower values of a setting, the phases whose peak they lower.

    A harmless one leaves the training the same up to rounding.
    """

    values: Callable[[Recipe], Iterator[dict[str, Any]]]
    phases: tuple[str, ...]
    harmless: bool = False


def _rollout_batches(recipe: Recipe) -> Iterator[dict[str, Any]]:
    size = min(
        recipe.rollout_batch_size or recipe.completions_per_step, recipe.completions_per_step
    )
    group = recipe.num_generations
    while recipe.rollout in ("auto", "grouped") and size > 1:
        size = size // 2 // group * group if size >= 2 * group else size // 2
        yield {"rollout_batch_size": size}


def _train_batches(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Smaller micro-batches of the same update."""
    number = recipe.completions_per_step
    for size in range(recipe.per_device_train_batch_size - 1, 0, -1):
        if number % size == 0:
            steps = number // size
            yield {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}


def _checkpointing(recipe: Recipe) -> Iterator[dict[str, Any]]:
    if not recipe.gradient_checkpointing:
        yield {"gradient_checkpointing": True}


def _quantized(recipe: Recipe) -> Iterator[dict[str, Any]]:
    if not recipe.use_lora:
        yield {"use_lora": True}
    if recipe.quantization == "none":
        yield {"use_lora": True, "quantization": "nf4"}


def _lengths(recipe: Recipe) -> Iterator[dict[str, Any]]:
    length = recipe.max_completion_length
    while length > 64:
        length = max(64, length // 2)
        yield {"max_completion_length": length}


def _smaller_models(recipe: Recipe) -> Iterator[dict[str, Any]]:
    if recipe.adapter is not None:  # made for this model
        return
    size = _parameters(recipe.model, recipe.model_revision)
    names = sorted((*ARCHITECTURES, EMBEDDED_MODEL), key=lambda m: -_parameters(m, None))
    for name in names:
        if _parameters(name, None) < size:
            yield {"model": name, "model_revision": None}


@functools.cache
def _parameters(model: str, revision: str | None) -> int:
    config = model_config(model, revision)
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in built.parameters())


_LEVERS = (
    _Lever(_rollout_batches, ("rollout",), harmless=True),
    _Lever(_train_batches, ("reference", "update"), harmless=True),
    _Lever(_checkpointing, ("update",), harmless=True),
    _Lever(_quantized, ("loading", "rollout", "reference", "update")),
    _Lever(_lengths, ("rollout", "reference", "update")),
    _Lever(_smaller_models, ("loading", "rollout", "reference", "update")),
)


def _mildest(
    lever: _Lever, recipe: Recipe, estimate: Callable[[Recipe], MemoryEstimate], budget: int
) -> Recipe | None:
    """The recipe with the first value at which the lever's phases fit, else the last value."""
    changed = [*_valid(recipe, lever.values(recipe))]
    low, high = 0, len(changed)
    while low < high:  # values fall, and so does what they take
        middle = (low + high) // 2
        made = estimate(changed[middle])
        if all(made.phase_total(p) <= budget for p in lever.phases if p in made.phases):
            high = middle
        else:
            low = middle + 1
    return changed[min(low, len(changed) - 1)] if changed else None


def _valid(recipe: Recipe, values: Iterator[dict[str, Any]]) -> Iterator[Recipe]:
    for changes in values:
        try:
            yield recipe.replace(**changes)
        except RecipeError:
            continue


def available_memory(device: str) -> int:
    """Bytes that this process can still get: of the current GPU, or of RAM within its cgroup."""
    if device == "cuda":
        cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return torch.cuda.mem_get_info()[0] + cached
    return min([psutil.virtual_memory().available, *_cgroup_room()])


def _groups() -> list[tuple[str, str]]:
    """Controllers ("" for cgroup v2) and path of the cgroups of this process."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [(controllers, path) for _, controllers, path in (line.split(":", 2) for line in lines)]


def _cgroup_room(root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """What is left below the memory limits of this process's cgroup and those around it."""
    for controllers, path in _groups():
        if controllers and "memory" not in controllers.split(","):
            continue
        base, names = root, ("memory.max", "memory.current")
        if controllers:
            base, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        folder = base / path.strip("/")
        # In a container the path may be one of the host's, and the limit at the top.
        for group in (folder, *folder.parents):
            if group != base and base not in group.parents:
                break
            limit, used = (_number(group / name) for name in names)
            if limit is not None and used is not None and limit < 2**60:
                yield max(0, limit - used + _reclaimable(group))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # "max"
        return None


def _reclaimable(group: Path) -> int:
    """File pages that the kernel gives up before it runs out."""
    try:
        lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    values = dict(line.split() for line in lines)
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))


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
    allows does not fit, the longest one of the problems counts. What cannot be estimated passes:
    a model of unknown architecture, or one that loading will refuse.

    Args:
        recipe: what is trained.
        device: "cuda" or "cpu"; where this machine would train it, by default.
        problems: what is trained on.
        available: bytes; what `available_memory` says, by default.
        processes: that train together: they share an update, and on a CPU its memory.

    Returns:
        The estimate; None where there is none, or `INTUITOR_MEMORY_CHECK=0` is set.

    Raises:
        InputError: it does not fit; the message says what was needed, what there is and what to
            lower.
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
    except Exception as error:  # of models that do not compute without contents
        logger.warning("memory was not estimated: %s: %s", type(error).__name__, error)
        return None
    if _asked(estimate) <= available:
        return estimate
    tokens = None if problems is None else _longest_prompt(recipe, problems)
    if tokens is not None:
        estimate = estimate_memory(recipe, device=device, prompt_tokens=tokens)
        if _asked(estimate) <= available:
            return estimate
    runtime = estimate.total - _asked(estimate)
    found = advice(recipe, available + runtime, device=device, prompt_tokens=tokens)
    remedies = [*filter(lambda a: a.fits, found)] or found
    raise InputError(
        f"training {recipe.model} would take {gib(_asked(estimate))} more at its peak "
        f"({estimate.phase}), and {gib(available)} are free on {device}. "
        + ("Lower one of: " if remedies else "No setting lowers it enough. ")
        + "; ".join(map(str, remedies))
        + f". `intuitor memory` shows it part by part; {SKIP}=0 trains without this check"
    )


def _asked(estimate: MemoryEstimate) -> int:
    """What a training needs beyond what its process has."""
    own = estimate.parts.get("runtime", 0) if estimate.device == "cpu" else 0
    return estimate.total - own


def _longest_prompt(recipe: Recipe, problems: Sequence[Problem]) -> int | None:
    """Tokens of the longest prompt that is not dropped; None without a tokenizer at hand."""
    source = embedded_model_folder() if recipe.model == EMBEDDED_MODEL else recipe.model
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source, revision=recipe.model_revision
        )
        ids = prompt_token_ids(tokenizer, [conversation(p.prompt, recipe) for p in problems])
    except (OSError, ValueError):  # told when the policy is loaded
        return None
    lengths = [len(row) for row in ids if len(row) <= recipe.max_prompt_length]
    return max(lengths, default=None)
