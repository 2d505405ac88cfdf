"""How much memory a training takes, by arithmetic on the model's shape.

No model is loaded and nothing is computed. The count covers the tensors that transformers, PEFT,
TRL and this library keep at the peak of each phase, for decoders built like Llama (Qwen2, Qwen3,
OLMo2).
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import NamedTuple

import peft
import psutil
import torch
import transformers

from ..certainty.head import CHUNK_LOGITS
from ..policy import compute_dtype
from ..policy.linear import UNPACKED_SHARE
from ..recipe import EMBEDDED_MODEL, InputError, Recipe
from ..rollouts.cache import room_for

__all__ = ["ARCHITECTURES", "SKIP", "MemoryEstimate", "estimate_memory", "gib", "model_shape"]

SKIP = "INTUITOR_MEMORY_CHECK"
"""`INTUITOR_MEMORY_CHECK=0` in the environment lets `require_memory` pass everything."""

CUDA_RUNTIME = 640 * 2**20
"""Assumed bytes of a GPU that the CUDA context, cuBLAS and loaded kernels take."""

FRAGMENTATION = 0.08
"""Assumed share by which torch's caching allocator holds more of a GPU than is in use."""

_TILE = (4096, 32768)  # tokens and vocabulary that TRL's fused LM head computes at a time


class Shape(NamedTuple):
    """Sizes of a decoder; `query` and `key` are all heads' together, `windows` sliding ones."""

    kind: str
    hidden: int
    intermediate: int
    layers: int
    query: int
    key: int
    vocabulary: int
    tied: bool
    windows: bool = False

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of one layer's linear layers."""
        hidden, middle, query, key = self.hidden, self.intermediate, self.query, self.key
        attention = {"q_proj": (hidden, query), "k_proj": (hidden, key), "v_proj": (hidden, key)}
        mlp = {"gate_proj": (hidden, middle), "up_proj": (hidden, middle)}
        return {**attention, "o_proj": (query, hidden), **mlp, "down_proj": (middle, hidden)}

    @property
    def parameters(self) -> tuple[int, int]:
        """Weights of the linear layers, and the others: embeddings, LM head, norms.

        Biases and norms of queries and keys, below .02 % together, are left out.
        """
        linear = self.layers * sum(a * b for a, b in self.linears.values())
        return linear, self.hidden * (self.vocabulary * (2 - self.tied) + 2 * self.layers + 1)


ARCHITECTURES: Mapping[str, Shape] = types.MappingProxyType(
    {
        EMBEDDED_MODEL: Shape("llama", 576, 1536, 30, 576, 192, 49152, True),
        "Qwen/Qwen2.5-1.5B": Shape("qwen2", 1536, 8960, 28, 1536, 256, 151936, True),
        "Qwen/Qwen2.5-3B": Shape("qwen2", 2048, 11008, 36, 2048, 256, 151936, True),
        "Qwen/Qwen2.5-7B": Shape("qwen2", 3584, 18944, 28, 3584, 512, 152064, False),
        "Qwen/Qwen2.5-14B": Shape("qwen2", 5120, 13824, 48, 5120, 1024, 152064, False),
        "Qwen/Qwen3-14B": Shape("qwen3", 5120, 17408, 40, 5120, 1024, 151936, False),
        "meta-llama/Llama-3.2-3B-Instruct": Shape(
            "llama", 3072, 8192, 28, 3072, 1024, 128256, True
        ),
        "allenai/OLMo-2-1124-7B-SFT": Shape("olmo2", 4096, 11008, 32, 4096, 4096, 100352, False),
    }
)
"""Shapes of the models that the recipes name, by their `config.json`; published in bf16."""


def model_shape(model: str, revision: str | None = None) -> Shape:
    """The shape of a model: from `ARCHITECTURES`, a local folder, the hub's cache, or the hub.

    Raises:
        InputError: none of these has it, or it is not of Llama's kind.
    """
    if model in ARCHITECTURES:
        return ARCHITECTURES[model]
    load = functools.partial(transformers.AutoConfig.from_pretrained, model, revision=revision)
    try:
        try:
            config = load(local_files_only=True)
        except (OSError, ValueError):
            config = load()
    except (OSError, ValueError) as error:
        raise InputError(
            f"the configuration of model={model!r} could not be had: {error}. Give a local folder, "
            f"a hub name that this machine can reach, or one of {', '.join(ARCHITECTURES)}"
        ) from error
    text = config.get_text_config()
    experts = ("num_experts", "num_local_experts", "n_routed_experts")
    needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes = [n for n in (getattr(text, name, None) for name in needed) if isinstance(n, int)]
    if len(sizes) < len(needed) or any(getattr(text, name, None) for name in experts):
        raise InputError(
            f"model={model!r} ({text.model_type}): the memory of models that are not built as "
            f"Llama is not known; {SKIP}=0 trains without an estimate"
        )
    hidden, middle, layers, heads = sizes
    width = getattr(text, "head_dim", None) or hidden // heads
    keys = getattr(text, "num_key_value_heads", None) or heads
    attention = (heads * width, keys * width, text.vocab_size, bool(config.tie_word_embeddings))
    windows = any(kind != "full_attention" for kind in getattr(text, "layer_types", None) or ())
    return Shape(text.model_type, hidden, middle, layers, *attention, windows)


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of a training on one device, in bytes.

    `phases` has for "loading", "rollout", "reference" and "update" what is alive at the phase's
    peak, by part: "weights", "unpacked weights", "merged weights", "reference model", "adapter",
    "gradients", "optimizer", "cache" (keys and values of rollouts), "activations", "logits",
    "checkpoint file", "runtime" (Python and torch, or the CUDA context) and "fragmentation".
    `assumptions` says what does not follow from the shape.
    """

    device: str
    dtype: str
    prompt_tokens: int
    phases: Mapping[str, Mapping[str, int]]
    assumptions: tuple[str, ...] = ()

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
        parts = dict.fromkeys(part for phase in self.phases.values() for part in phase)
        rows = [["", *self.phases]]
        for part in parts:
            sizes = [phase.get(part, 0) for phase in self.phases.values()]
            rows.append([part, *(gib(size) if size else "-" for size in sizes)])
        rows.append(["all", *(gib(self.phase_total(name)) for name in self.phases)])
        lines = [
            f"peak {gib(self.total)} ({self.phase}) on {self.device}, computing in {self.dtype}, "
            f"prompts of {self.prompt_tokens} tokens; GiB by phase:",
            *(f"{row[0]:<17}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows),
            *(f"assumed: {text}" for text in self.assumptions),
        ]
        return "\n".join(lines)


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
        InputError: the model's shape is not known (`model_shape`); an unknown device.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cuda", "cpu"):
        raise InputError(f"device={device!r}: memory is estimated for 'cuda' or 'cpu'")
    training = _Training(recipe, device, prompt_tokens or recipe.max_prompt_length)
    phases = training.phases()
    assumptions = []
    runtime = psutil.Process().memory_info().rss
    if device == "cuda":
        runtime = 0 if torch.cuda.is_available() and torch.cuda.is_initialized() else CUDA_RUNTIME
        assumptions.append(f"{gib(CUDA_RUNTIME)} for the CUDA context")
        assumptions.append(f"{FRAGMENTATION:.0%} lost to the allocator's fragmentation")
    if training.shape.kind not in ("llama", "mistral", "qwen2", "qwen3", "olmo2"):
        assumptions.append(f"layers of {training.shape.kind} take what Llama's do")
    if recipe.rollout in ("vllm", "continuous_batching"):
        assumptions.append(f"rollout={recipe.rollout!r} has memory of its own, not counted")
    for parts in phases.values():
        lost = int(FRAGMENTATION * sum(parts.values())) if device == "cuda" else 0
        parts |= {"fragmentation": lost, "runtime": runtime}
    known = {
        phase: types.MappingProxyType({part: size for part, size in parts.items() if size})
        for phase, parts in phases.items()
    }
    return MemoryEstimate(
        *(device, str(training.dtype).removeprefix("torch."), training.prompt),
        *(types.MappingProxyType(known), tuple(assumptions)),
    )


_fastest_dtype = functools.cache(compute_dtype)  # which times products


class _Batch(NamedTuple):
    """A micro-batch: its rows, and tokens of prompts computed once, fed, and attended to."""

    rows: int
    prompts: int
    tokens: int
    attended: int


class _Training:
    """Bytes of one training; `width` is those of a number that is computed with."""

    def __init__(self, recipe: Recipe, device: str, prompt: int) -> None:
        self.recipe, self.prompt, self.cuda = recipe, prompt, device == "cuda"
        self.shape = shape = model_shape(recipe.model, recipe.model_revision)
        imagined = self.cuda and recipe.dtype == "auto" and not torch.cuda.is_available()
        self.dtype = torch.bfloat16 if imagined else _fastest_dtype(recipe.dtype, device)
        self.width = width = self.dtype.itemsize
        stored = width if recipe.use_lora else 4  # weights that are trained are in fp32
        self.ranks = _lora_ranks(recipe, shape)
        lora = shape.layers * sum(r * sum(shape.linears[name]) for name, r in self.ranks.items())
        self.adapter = 4 * lora * (1 if recipe.adapter is None else 2)  # with a frozen copy
        self.trained = lora if recipe.use_lora else sum(shape.parameters)
        # A trained LM head and layers with windows are computed in TRL's way.
        self.grouped_update = recipe.update != "plain" and recipe.use_lora
        self.grouped_rollout = recipe.rollout in ("auto", "grouped") and not shape.windows
        self.sped_up = not self.cuda and (self.grouped_update or self.grouped_rollout)
        linear, others = (stored * weights for weights in shape.parameters)
        self.packed, self.unpacked = recipe.quantization == "nf4", 0
        if self.packed:
            free = UNPACKED_SHARE * psutil.virtual_memory().available
            self.unpacked = linear if self.sped_up and linear <= free else 0
            linear = shape.layers * sum(_nf4_bytes(a * b) for a, b in shape.linears.values())
        self.weights = linear + others
        # The largest weight while it is out of 4 bits for a product.
        is_packed = self.packed and not self.unpacked
        self.out_of_4_bits = width * shape.hidden * shape.intermediate * is_packed
        # Trained weights in lower precision, which autocast keeps; the LM head's in rollouts.
        self.casts = 2 * (lora if recipe.use_lora else shape.parameters[0]) * (width < 4)
        self.head_cast = 2 * shape.vocabulary * shape.hidden * (width < stored)
        # A token's keys and values in a layer; but in OLMo2, fp32 weights give fp32 keys.
        self.cached = shape.key * (width + (width if shape.kind == "olmo2" else stored))
        self.residual = shape.hidden * stored

    def phases(self) -> dict[str, dict[str, int]]:
        """What is alive at the peak of each phase, by part."""
        recipe, weights = self.recipe, self.weights
        copies = 0 if recipe.use_lora else bool(recipe.beta) + (recipe.annotator == "offline")
        held = {"weights": weights, "unpacked weights": self.unpacked, "adapter": self.adapter}
        held |= {"reference model": copies * weights, "optimizer": 8 * self.trained}
        loading = {"weights": weights}
        if not self.cuda:  # the files are mapped into memory while weights are made of them
            files = [*Path(recipe.model).glob("*.safetensors")]
            size = sum(file.stat().st_size for file in files) or 2 * sum(self.shape.parameters)
            loading |= {"checkpoint file": size, "reference model": weights * min(1, copies)}
            # And stay so where embeddings are taken from them as they are.
            held["checkpoint file"] = size * (self.packed and self.dtype == torch.bfloat16)
        found = {"loading": loading}
        if recipe.rollout not in ("vllm", "continuous_batching"):
            found["rollout"] = held | max(self.rollout(), key=_sum)
        if recipe.beta or recipe.annotator == "offline":
            found["reference"] = held | max(self.reference(), key=_sum)
        return found | {"update": held | max(self.update(), key=_sum)}

    def rollout(self) -> Iterator[dict[str, int]]:
        """The prompts; a step that moves keys and values to their last room; the draw after it."""
        recipe, shape, width = self.recipe, self.shape, self.width
        rows, end = recipe.completions_per_step, self.prompt + recipe.max_completion_length - 1
        if self.grouped_rollout:
            rows = min(rows, recipe.rollout_batch_size or rows)
            prompts = ceil(rows / recipe.num_generations) * self.prompt
            room, before = self.prompt, 0
            while room < end:
                room, before = room_for(room, room + 1), room
            # fp32 beside what the product gave or exponentials; sorted: values, places and sums.
            logits = 8 if recipe.temperature != 1 else 6 if width < 4 else 4
            logits = 24 if recipe.top_k or recipe.top_p < 1 else logits
        else:
            prompts, room, before = rows * self.prompt, end, end - 1
            logits = 12 + width  # as they are, in fp32, divided by the temperature, probabilities
        merged = 0
        if self.sped_up and width == 4 and (self.unpacked or not self.packed):
            sizes = [shape.linears[name] for name in self.ranks]
            merged = 4 * shape.layers * sum(a * b for a, b in sizes)
        casts, cache = self.casts + self.head_cast, shape.layers * self.cached * rows * room
        held = {"merged weights": merged, "activations": casts + self.passing(prompts, prompts)}
        yield held | {"cache": shape.layers * self.cached * prompts}
        held["activations"] = casts + self.passing(rows)
        yield held | {"cache": cache + self.cached * rows * before}
        yield held | {"cache": cache, "logits": logits * rows * shape.vocabulary}

    def reference(self) -> Iterator[dict[str, int]]:
        """Log-probabilities without a backward pass: the layers, then the LM head."""
        batch = self.batch(checkpointed=False)
        cache = self.shape.layers * self.cached * (batch.prompts and batch.prompts + batch.attended)
        layer = self.passing(batch.tokens, batch.attended) + self.mask(batch)
        yield {"activations": self.casts + cache + layer}
        states, logits = self.head(batch, backward=False)
        yield {"activations": self.casts + states, "logits": logits}

    def update(self) -> Iterator[dict[str, int]]:
        """The forward pass, the LM head, both ends of the backward pass, the optimizer's step."""
        recipe, shape, width = self.recipe, self.shape, self.width
        checkpointed = recipe.gradient_checkpointing
        batch = self.batch(checkpointed=checkpointed)
        tokens = batch.tokens + batch.prompts
        # Under a mask keys and values are repeated for all heads of a group.
        groups = batch.rows > recipe.num_generations
        layer = tokens * self.kept() + self.mask(batch)
        layer += 2 * width * batch.attended * (shape.query if batch.rows > 1 else shape.key)
        layer += 2 * width * batch.prompts * (shape.query if groups else shape.key)
        kept = shape.layers * (tokens * self.residual if checkpointed else layer)
        kept += 4 * tokens * shape.hidden  # the last norm's input
        # Gradients of gate and up and of the residual; what was not kept is computed again.
        back = batch.tokens * width * (2 * shape.intermediate + shape.hidden) + self.out_of_4_bits
        again, casts = (layer, 0) if checkpointed else (0, self.casts)
        gradients = 4 * self.trained
        before = gradients if recipe.gradient_accumulation_steps > 1 else 0
        # The ones that were repeated are held as well until the forward pass ends.
        repeated = batch.attended if batch.prompts and shape.query > shape.key else 0
        copies = self.casts + shape.layers * self.cached * repeated
        states, logits = self.head(batch, backward=True)
        # AdamW's square roots: of all weights on a GPU, else of one after the other, twice.
        largest = max(shape.vocabulary, shape.intermediate) * shape.hidden
        roots = self.trained if self.cuda else 2 * min(largest, self.trained)
        yield {"gradients": before, "activations": kept + copies}
        yield {"gradients": before, "activations": kept + self.casts + states, "logits": logits}
        yield {"gradients": before, "activations": kept + casts + again + back}
        yield {"gradients": gradients, "activations": casts + layer + back}
        yield {"gradients": gradients, "activations": 4 * roots}

    def batch(self, *, checkpointed: bool) -> _Batch:
        """The micro-batch as `forward.completion_states` or, with the last token, TRL feeds it."""
        recipe, rows = self.recipe, self.recipe.per_device_train_batch_size
        groups = ceil(rows / recipe.num_generations)
        fed = rows * (recipe.max_completion_length - self.grouped_update)
        attended = rows * self.prompt + fed
        shared = self.grouped_update and not checkpointed and not self.shape.windows
        if shared and 2 * groups <= rows:
            return _Batch(rows, groups * self.prompt, fed, attended)
        return _Batch(rows, 0, attended, attended)

    def mask(self, batch: _Batch) -> int:
        """Attention's masks as numbers, one for each layer, where rows differ in length."""
        across = batch.tokens * batch.attended // batch.rows if batch.rows > 1 else 0
        groups = batch.rows > self.recipe.num_generations
        return self.width * (across + batch.prompts * self.prompt * groups)

    def passing(self, tokens: int, repeated: int = 0) -> int:
        """What one layer makes and drops without a backward pass, `repeated` keys and values.

        Residual and norm, and either gate, up, what LoRA adds to it and their sum, or queries,
        their rotation and attention's output.
        """
        shape = self.shape
        mlp = 4 * shape.intermediate * tokens
        attention = shape.query * (3 * tokens + 2 * repeated * (shape.query > shape.key))
        return self.width * (2 * tokens * shape.hidden + max(mlp, attention)) + self.out_of_4_bits

    def kept(self) -> int:
        """Per token, what one layer keeps for the backward pass, but keys and values.

        Attention keeps queries and output, SiLU its input, the product of gate and up both. Norms
        keep their input in fp32. LoRA keeps its input, its product with A and what dropout left.
        """
        shape, width = self.shape, self.width
        normed = 2 * shape.hidden
        normed += (shape.query + shape.key) * (shape.kind in ("qwen3", "olmo2"))
        common = 4 * normed + width * (3 * shape.intermediate + 2 * shape.query)
        if not self.recipe.use_lora:  # a norm's result, too; autocast casts each product's input
            inputs = shape.hidden * (5 if width < 4 else 2) + shape.intermediate
            return common + 4 * normed + width * inputs
        inputs_of = {name: shape.linears[name][0] for name in self.ranks}
        dropped = (width + 1) * sum(inputs_of.values()) * bool(self.recipe.lora_dropout)
        if width == 4 or (self.packed and self.cuda):  # else each casts its own input
            same = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
            inputs_of = {same.get(name, name): size for name, size in inputs_of.items()}
            inputs_of.pop("o_proj", 0)
        return common + width * (sum(inputs_of.values()) + sum(self.ranks.values())) + dropped

    def head(self, batch: _Batch, *, backward: bool) -> tuple[int, int]:
        """Hidden states at the LM head, and logits."""
        shape, width = self.shape, self.width
        tokens = batch.rows * self.recipe.max_completion_length
        if self.grouped_update:
            # States are gathered and put in order; gradients are those of each chunk, and of all.
            states = tokens * shape.hidden * (3 * width + 8 * backward)
            return states, 12 * min(tokens * shape.vocabulary, CHUNK_LOGITS)  # fp32, with exp
        tokens = tokens if self.cuda else batch.tokens  # without Triton, prompts are scored too
        logits = min(tokens, _TILE[0]) * min(shape.vocabulary, _TILE[1])
        logits *= width if self.cuda else width + (28 if backward else 12)  # operation by operation
        if backward and not self.recipe.use_lora:  # the head's gradient
            logits += 4 * shape.vocabulary * shape.hidden
        return tokens * shape.hidden * (width + 8 * backward), logits


def _sum(parts: Mapping[str, int]) -> int:
    return sum(parts.values())


def _nf4_bytes(weights: int) -> int:
    """Half a byte each, a byte for 64, four for 256 of these, and the codes of both."""
    blocks = ceil(weights / 64)
    return ceil(weights / 2) + blocks + 4 * ceil(blocks / 256) + 4 * (16 + 256 + 1)


def _lora_ranks(recipe: Recipe, shape: Shape) -> dict[str, int]:
    """LoRA's rank on the linear layers that have it; an expression for them counts as all."""
    rank, targets = recipe.lora_r, recipe.lora_target_modules
    if recipe.adapter is not None:
        config = peft.PeftConfig.from_pretrained(recipe.adapter)
        rank, targets = config.r, config.target_modules
    if isinstance(targets, str):
        targets = tuple(shape.linears)
    ends = {target.rpartition(".")[2] for target in targets} if recipe.use_lora else set()
    return {name: rank for name in shape.linears if name in ends}
