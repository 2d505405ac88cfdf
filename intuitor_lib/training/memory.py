"""How much memory a training takes at its peak, part by part.

Nothing is fitted: the model is built from its configuration without weights, and the training's
own code runs on it (`memory_trace`). What is assumed, for a GPU only, is `CUDA_RUNTIME` and
`FRAGMENTATION`.
"""

from __future__ import annotations

import copy
import functools
import types
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
import transformers

from ..policy.linear import UNPACKED_SHARE
from ..policy.precision import compute_dtype
from ..recipe.constants import InputError
from ..recipe.recipe import Recipe
from .memory_configs import checkpoint_bytes, model_config
from .memory_meta import build, decoder_layers, stored_tensors, unpack
from .memory_trace import trace_phase

__all__ = [
    "CUDA_RUNTIME",
    "FRAGMENTATION",
    "MemoryEstimate",
    "estimate_memory",
    "gib",
]

CUDA_RUNTIME = 640 * 2**20
"""Assumed bytes of a GPU that the CUDA context, cuBLAS and loaded kernels take."""

FRAGMENTATION = 0.08
"""Assumed share by which torch's caching allocator holds more of a GPU than is in use."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of a training on one device, in bytes.

    `phases` has for "loading", "rollout", "reference" and "update" what is alive at the phase's
    peak, by part: "weights", "unpacked weights", "merged weights", "reference model", "adapter",
    "gradients", "optimizer", "cache" (keys and values of rollouts), "activations", "logits",
    "checkpoint file", "runtime" (Python and torch, or the CUDA context) and "fragmentation".
    `assumptions` says what was not computed.
    """

    device: str
    dtype: str
    prompt_tokens: int
    phases: Mapping[str, Mapping[str, int]]
    assumptions: tuple[str, ...] = field(default=())

    @property
    def phase(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=self.phase_total)

    @property
    def parts(self) -> Mapping[str, int]:
        """What is alive at the peak of the training."""
        return self.phases[self.phase]

    @property
    def total(self) -> int:
        """Bytes at the peak of the training."""
        return self.phase_total(self.phase)

    def phase_total(self, phase: str) -> int:
        """Bytes at the peak of a phase."""
        return sum(self.phases[phase].values())

    def __str__(self) -> str:
        names = list(self.phases)
        parts = [*dict.fromkeys(part for phase in self.phases.values() for part in phase)]
        rows = [["", *names]]
        for part in parts:
            sizes = [self.phases[name].get(part, 0) for name in names]
            rows.append([part, *(gib(size) if size else "-" for size in sizes)])
        rows.append(["all", *(gib(self.phase_total(name)) for name in names)])
        lines = [f"{row[0]:<17}" + "".join(f"{value:>12}" for value in row[1:]) for row in rows]
        return "\n".join(
            [
                f"peak {gib(self.total)} ({self.phase}) on {self.device}, computing in "
                f"{self.dtype}, prompts of {self.prompt_tokens} tokens; GiB by phase:",
                *lines,
                *(f"assumed: {text}" for text in self.assumptions),
            ]
        )


def gib(size: float) -> str:
    """Bytes as "1.23 GiB"."""
    return f"{size / 2**30:.2f} GiB"


def estimate_memory(
    recipe: Recipe, *, device: str | None = None, prompt_tokens: int | None = None
) -> MemoryEstimate:
    """What a training takes at its peak on one device, every completion at its full length.

    Args:
        recipe: what is trained.
        device: "cuda" or "cpu"; where this machine would train it, by default.
        prompt_tokens: length of the longest prompt; `max_prompt_length` by default.

    Raises:
        InputError: the model's configuration cannot be had; an unknown device.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cuda", "cpu"):
        raise InputError(f"device={device!r}: memory is estimated for 'cuda' or 'cpu'")
    tokens = prompt_tokens or recipe.max_prompt_length
    dtype = _dtype(recipe, device)
    stored = dict(_stored(_only_model(recipe), device, dtype, unpacked=_unpacks(recipe, device)))
    phases = {"loading": _loading(recipe, device, stored)}
    copies = int(not recipe.use_lora) * (bool(recipe.beta) + (recipe.annotator == "offline"))
    for phase in ("rollout", "reference", "update"):
        traced = _phase(phase, recipe, device, dtype, tokens)
        if traced is not None:
            held = {**stored, "reference model": copies * stored["weights"]}
            phases[phase] = {**held, **traced}
    assumptions = []
    if device == "cuda":
        runtime = 0 if torch.cuda.is_available() and torch.cuda.is_initialized() else CUDA_RUNTIME
        assumptions = [
            f"{gib(CUDA_RUNTIME)} for the CUDA context",
            f"{FRAGMENTATION:.0%} lost to the allocator's fragmentation",
        ]
        for parts in phases.values():
            parts["fragmentation"] = int(FRAGMENTATION * sum(parts.values()))
    else:
        runtime = psutil.Process().memory_info().rss
    if recipe.rollout in ("vllm", "continuous_batching"):
        assumptions.append(f"rollout={recipe.rollout!r} has memory of its own, not counted")
    return MemoryEstimate(
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        prompt_tokens=tokens,
        phases=types.MappingProxyType(
            {
                phase: types.MappingProxyType(
                    {k: v for k, v in {**parts, "runtime": runtime}.items() if v}
                )
                for phase, parts in phases.items()
            }
        ),
        assumptions=tuple(assumptions),
    )


def _dtype(recipe: Recipe, device: str) -> torch.dtype:
    if device == "cuda" and recipe.dtype == "auto" and not torch.cuda.is_available():
        return torch.bfloat16
    return _measured_dtype(recipe.dtype, device)


_measured_dtype = functools.cache(compute_dtype)


def _loading(recipe: Recipe, device: str, stored: Mapping[str, int]) -> dict[str, int]:
    """Weights as they are made from the files, which a CPU maps into memory meanwhile."""
    parts = {"weights": stored["weights"]}
    if device == "cpu":
        parts["checkpoint file"] = checkpoint_bytes(recipe.model) or 0
        if not recipe.use_lora and recipe.beta:  # the reference, from the same files
            parts["reference model"] = stored["weights"]
    return parts


def _unpacks(recipe: Recipe, device: str) -> bool:
    """Whether 4-bit weights are unpacked, which `linear` decides by the memory that is free."""
    if device != "cpu" or (recipe.rollout == "generate" and recipe.update == "plain"):
        return False
    dtype = _dtype(recipe, device)
    unpacked = _stored(_only_model(recipe), device, dtype, unpacked=True).get("unpacked weights", 0)
    return unpacked <= UNPACKED_SHARE * psutil.virtual_memory().available


# Depths at which a model of equal layers is traced; what a deeper one takes is linear in them.
_DEPTHS = (3, 4)


@functools.lru_cache(maxsize=256)
def _stored(
    recipe: Recipe, device: str, dtype: torch.dtype, *, unpacked: bool
) -> Mapping[str, int]:
    """Bytes of what the model holds at rest, by kind."""

    def count(config: Any) -> dict[str, int]:
        model = build(recipe, config, dtype)
        if unpacked:
            unpack(model)
        sizes: Counter[str] = Counter()
        seen = set()
        for kind, tensor in stored_tensors(model):
            storage = tensor.untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                sizes[kind] += storage.nbytes()
        return sizes

    return _by_depth(recipe, count)


def _phase(
    phase: str, recipe: Recipe, device: str, dtype: torch.dtype, prompt_tokens: int
) -> Mapping[str, int] | None:
    """What a phase adds to what is stored, at its peak, by kind; None where there is no such phase.

    Settings that change nothing of the phase are set aside, so that it is traced once.
    """
    changes: dict[str, Any] = {"rollout_batch_size": None}
    if phase == "rollout":
        if recipe.rollout in ("vllm", "continuous_batching"):
            return None
        number = recipe.completions_per_step
        if recipe.rollout_batch_size is not None and recipe.rollout != "generate":
            changes["rollout_batch_size"] = min(number, recipe.rollout_batch_size)
            group = recipe.num_generations
            number = -(-changes["rollout_batch_size"] // group) * group
        changes |= {"per_device_train_batch_size": number, "gradient_accumulation_steps": 1}
        changes["gradient_checkpointing"] = False
    elif phase == "reference":
        if not recipe.beta and recipe.annotator != "offline":
            return None
        changes["gradient_checkpointing"] = False
    reduced = _kept(recipe, _MODEL_SETTINGS + _PHASE_SETTINGS, **changes)
    return _traced(phase, reduced, device, dtype, prompt_tokens, _unpacks(recipe, device))


@functools.lru_cache(maxsize=256)
def _traced(
    phase: str,
    recipe: Recipe,
    device: str,
    dtype: torch.dtype,
    prompt_tokens: int,
    unpacked: bool,
) -> Mapping[str, int]:
    def trace(config: Any) -> dict[tuple[str, str], int]:
        model = build(recipe, config, dtype)
        if unpacked:
            unpack(model)
        moments = trace_phase(
            phase, model, recipe, device=device, dtype=dtype, prompt_tokens=prompt_tokens
        )
        return {(m, kind): size for m, parts in moments.items() for kind, size in parts.items()}

    moments: dict[str, dict[str, int]] = {}
    for (moment, kind), size in _by_depth(recipe, trace).items():
        moments.setdefault(moment, {})[kind] = size
    return max(moments.values(), key=lambda parts: sum(parts.values()))


def _by_depth(recipe: Recipe, measure: Any) -> dict[Any, int]:
    """What `measure(config)` says; from two shallow models where all layers are alike."""
    config = model_config(recipe.model, recipe.model_revision)
    depth = config.get_text_config().num_hidden_layers
    if depth <= _DEPTHS[1] or not _layers_are_alike(recipe.model, recipe.model_revision):
        return measure(config)
    few, more = (measure(_with_depth(config, n)) for n in _DEPTHS)
    return {
        key: few.get(key, 0) + (more.get(key, 0) - few.get(key, 0)) * (depth - _DEPTHS[0])
        for key in {**few, **more}
    }


def _with_depth(config: Any, layers: int) -> Any:
    config = copy.deepcopy(config)
    text = config.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return config


@functools.cache
def _layers_are_alike(model: str, revision: str | None) -> bool:
    config = model_config(model, revision)
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(config)
    layers = decoder_layers(built.base_model)
    if (
        layers is None
        or len({*(getattr(config.get_text_config(), "layer_types", None) or [0])}) > 1
    ):
        return False
    shapes = {
        tuple((name, parameter.shape) for name, parameter in layer.named_parameters())
        for layer in layers
    }
    return len(shapes) == 1


# What the model depends on, and what its phases do besides.
_MODEL_SETTINGS = (
    *("model", "model_revision", "adapter", "dtype", "quantization", "use_lora"),
    *("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"),
)
_PHASE_SETTINGS = (
    *("num_generations", "per_device_train_batch_size", "gradient_accumulation_steps", "beta"),
    *("annotator", "max_prompt_length", "max_completion_length", "temperature", "top_p", "top_k"),
    *("gradient_checkpointing", "rollout", "rollout_batch_size", "update"),
)


def _kept(recipe: Recipe, names: Sequence[str], **changes: Any) -> Recipe:
    """A recipe of some settings, so that recipes alike in them share an estimate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # beta=0 would warn each time
        return Recipe(name="memory", **{n: getattr(recipe, n) for n in names} | changes)


def _only_model(recipe: Recipe) -> Recipe:
    return _kept(recipe, _MODEL_SETTINGS, max_prompt_length=1, max_completion_length=1)
