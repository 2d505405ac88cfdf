"""Estimate a training's peak memory from the model's shape, without loading the model.

The formulas count the tensors that transformers, PEFT, TRL and this library keep at the peak of
each phase, for decoders built like Llama (Qwen2, Qwen3, OLMo2). Small parts are left out.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import psutil
import torch

from ..certainty.head import CHUNK_LOGITS
from ..policy import compute_dtype
from ..policy.adapters import load_adapter_config
from ..policy.linear import has_room_unpacked
from ..policy.pretrained import Source
from ..policy.shapes import Shape, model_shape
from ..recipe import InputError, Recipe
from ..rollouts.cache import room_for

SKIP = "INTUITOR_MEMORY_CHECK"  # environment variable; 0 turns `require_memory` off
CUDA_RUNTIME = 640 * 2**20  # assumed bytes of the CUDA context, cuBLAS and loaded kernels
MOMENTS = {"adamw_torch": 8, "paged_adamw_8bit": 2}  # bytes of a weight's two, by `optim`
FRAGMENTATION = 0.08  # assumed share that torch's allocator holds beyond the memory in use
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)  # per weight: 4 bits and two levels of scales
TRL_TILE = (4096, 32768)  # tokens and vocabulary that TRL's fused LM head computes at a time


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of a training on one device, in bytes.

    `phases` maps "loading", "rollout", "reference" and "update" to the parts alive at their peak.
    `assumptions` lists numbers that do not follow from the model's shape.
    """

    device: str
    dtype: str
    prompt_tokens: int
    phases: Mapping[str, Mapping[str, int]]
    assumptions: tuple[str, ...] = ()

    @property
    def phase(self) -> str:
        """The phase with the highest peak."""
        return max(self.phases, key=self.phase_total)

    @property
    def parts(self) -> Mapping[str, int]:
        """Bytes by part at the peak of the training."""
        return self.phases[self.phase]

    @property
    def total(self) -> int:
        """Bytes at the peak of the training."""
        return self.phase_total(self.phase)

    def phase_total(self, phase: str) -> int:
        """Bytes at the peak of a phase."""
        return sum(self.phases[phase].values())

    def __str__(self) -> str:
        rows = [["", *self.phases]]
        for part in dict.fromkeys(part for parts in self.phases.values() for part in parts):
            sizes = [parts.get(part, 0) for parts in self.phases.values()]
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
    """Format bytes as "1.23 GiB"."""
    return f"{size / 2**30:.2f} GiB"


def estimate_memory(
    recipe: Recipe,
    *,
    device: str | None = None,
    prompt_tokens: int | None = None,
    processes: int = 1,
) -> MemoryEstimate:
    """Estimate a training's peak memory on one device, every completion at its full length.

    Args:
        recipe: the training; of several processes, the share of one.
        device: "cuda" or "cpu"; by default, where this machine would train.
        prompt_tokens: length of the longest prompt; by default, `max_prompt_length`.
        processes: how many share the training; several keep the gradients twice (DDP).

    Raises:
        InputError: an unknown device, or the model's shape is not known (`model_shape`).
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cuda", "cpu"):
        raise InputError(f"device={device!r}: memory is estimated for 'cuda' or 'cpu'")
    training = _Training(recipe, device, prompt_tokens or recipe.max_prompt_length, processes)
    if device == "cpu":
        importlib.import_module("..training", __name__)  # what a training imports counts
    runtime, lost, assumptions = psutil.Process().memory_info().rss, 0.0, []
    if device == "cuda":
        started = torch.cuda.is_available() and torch.cuda.is_initialized()
        runtime, lost = 0 if started else CUDA_RUNTIME, FRAGMENTATION
        assumptions = [f"{gib(CUDA_RUNTIME)} for the CUDA context"]
        assumptions += [f"{FRAGMENTATION:.0%} lost to the allocator's fragmentation"]
    if training.shape.kind not in ("llama", "mistral", "qwen2", "qwen3", "olmo2"):
        assumptions.append(f"layers of {training.shape.kind} take what Llama's do")
    if recipe.rollout == "vllm" and not training.vllm():
        assumptions.append("rollout='vllm' has memory of its own, not counted")
    phases = {}
    for phase, parts in training.phases().items():
        sizes = {**parts, "fragmentation": lost * sum(parts.values()), "runtime": runtime}
        phases[phase] = {part: int(size) for part, size in sizes.items() if size}
    dtype = str(training.dtype).removeprefix("torch.")
    return MemoryEstimate(device, dtype, training.prompt, phases, tuple(assumptions))


class _Training:
    """Sizes in bytes of the parts of one training; tokens and parameters are numbers."""

    def __init__(self, recipe: Recipe, device: str, prompt: int, processes: int = 1) -> None:
        self.recipe, self.cuda, self.several = recipe, device == "cuda", processes > 1
        self.shape = shape = model_shape(Source.of(recipe))
        other_gpu = self.cuda and recipe.dtype == "auto" and not torch.cuda.is_available()
        self.dtype = torch.bfloat16 if other_gpu else compute_dtype(recipe.dtype, device)
        self.width = self.dtype.itemsize  # bytes of a computed number
        self.nf4, self.lora = recipe.quantization == "nf4", recipe.use_lora
        self.stored = self.width if self.lora else 4  # bytes of a weight; trained: fp32
        self.rank, self.targets = _lora_layers(recipe, shape)
        adapter = self.rank * shape.layers * sum(a + b for a, b in self.targets)
        self.trained = adapter if self.lora else sum(shape.parameters)
        self.casts = 2 * self.trained * (self.width < 4)  # autocast's copies of these in bf16
        # TRL's own code computes a trained LM head and layers with windows.
        self.grouped_update = recipe.update != "plain" and self.lora
        self.grouped_rollout = recipe.rollout in ("auto", "grouped") and not shape.windows
        self.paged = recipe.optim == "paged_adamw_8bit"
        self.rows = recipe.per_device_train_batch_size  # of a micro-batch, `length` tokens each
        self.prompt, self.length = prompt, prompt + recipe.max_completion_length

    def phases(self) -> dict[str, dict[str, float]]:
        """Parts alive at the peak of each phase."""
        recipe, weights, (unpacked, merged) = self.recipe, self.weights(), self.cpu_weights()
        references = 0 if self.lora else (recipe.beta > 0) + (recipe.annotator == "offline")
        file = 0 if self.cuda else 2 * sum(self.shape.parameters)  # in bf16, mapped to memory
        held = {
            "weights": weights,
            "unpacked weights": unpacked,
            "reference model": references * weights,
            "adapter": 4 * self.trained * self.lora * (1 if recipe.adapter is None else 2),
            "optimizer": self.moments(),
            "DDP's buckets": 4 * self.trained * self.several,
            "vLLM": self.vllm(),
            "checkpoint file": file * (self.nf4 and self.width == 2),  # embeddings stay in it
        }
        found = {"loading": {"weights": weights, "checkpoint file": file}}
        if recipe.rollout != "vllm":
            found["rollout"] = held | {"merged weights": merged} | self.rollout()
        if recipe.beta or recipe.annotator == "offline":
            found["reference"] = held | self.reference()
        return found | {"update": held | self.update()}

    def rollout(self) -> dict[str, float]:
        """Peak of a layer that computes the prompts, or of drawing the last token."""
        recipe, room = self.recipe, self.length
        number = recipe.completions_per_step
        rows = groups = min(number, recipe.rollout_batch_size or number)
        if self.grouped_rollout:  # the prompt once per group, in a cache that grows
            groups, room = ceil(rows / recipe.num_generations), self.prompt
            while room < self.length - 1:
                room = room_for(room, room + 1)
        prompts = groups * self.prompt
        prefill = self.casts + self.layer_forward(prompts)
        # fp32 logits and one copy; sorting them takes more.
        logits = rows * self.shape.vocabulary * (24 if recipe.top_k or recipe.top_p < 1 else 8)
        return _peak(
            {"cache": self.cache(prompts), "activations": prefill},
            {"cache": self.cache(rows * room), "activations": self.casts, "logits": logits},
        )

    def reference(self) -> dict[str, float]:
        """A layer and the LM head without backward pass; with shared prompts, their cache."""
        tokens, logits = self.tokens(share=True), self.head()[1]
        cache = self.cache(self.rows * self.length) * (tokens < self.rows * self.length)
        activations = self.casts + cache + self.layer_forward(tokens)
        return {"activations": activations, "logits": logits}

    def update(self) -> dict[str, float]:
        """Peak of the LM head, a layer's (recomputed if checkpointed) backward pass, or AdamW."""
        shape, checkpointed = self.shape, self.recipe.gradient_checkpointing
        tokens, (states, logits) = self.tokens(share=not checkpointed), self.head()
        layer = self.layer_kept(tokens)
        inputs = tokens * shape.hidden * self.stored  # of a layer
        kept = self.casts + shape.layers * (inputs if checkpointed else layer)
        backward = tokens * self.width * (shape.hidden + 2 * shape.intermediate)  # gradients
        gradients = 4 * self.trained
        earlier = gradients * (self.recipe.gradient_accumulation_steps > 1)
        return _peak(
            {"gradients": earlier, "activations": kept + states, "logits": logits},
            {"gradients": earlier, "activations": kept + layer * checkpointed + backward},
            # On a GPU, torch's AdamW makes the square roots for all weights at once.
            {"gradients": gradients, "activations": gradients * (self.cuda and not self.paged)},
        )

    def vllm(self) -> float:
        """What vLLM takes of this machine's GPU."""
        recipe = self.recipe
        here = recipe.rollout == "vllm" and recipe.vllm_mode == "colocate" and self.cuda
        if not here or not torch.cuda.is_available():
            return 0
        return recipe.vllm_gpu_memory_utilization * torch.cuda.mem_get_info()[1]

    def moments(self) -> float:
        """AdamW's, of the trained weights; transformers keeps those of embeddings in fp32."""
        embeddings = self.shape.vocabulary * self.shape.hidden * (not self.lora)
        size = MOMENTS[self.recipe.optim]
        return size * self.trained + (MOMENTS["adamw_torch"] - size) * embeddings

    def weights(self) -> float:
        """Weights of linear layers, in NF4 or not, and all other weights."""
        linear, others = self.shape.parameters
        return linear * (NF4_BYTES if self.nf4 else self.stored) + others * self.stored

    def cpu_weights(self) -> tuple[float, float]:
        """On a CPU: NF4 weights unpacked; for rollouts, copies that hold the adapter."""
        if self.cuda or not (self.grouped_update or self.grouped_rollout):
            return 0, 0
        unpacked = self.width * self.shape.parameters[0] * self.nf4
        if not has_room_unpacked(unpacked):
            return 0, 0
        beside = self.rank if self.width == 2 else 0
        merged = self.width * sum((a + beside) * b for a, b in self.targets)
        return unpacked, merged * self.shape.layers * self.lora

    def tokens(self, *, share: bool) -> int:
        """Number of tokens in a micro-batch; shared prompts count once per group."""
        groups = ceil(self.rows / self.recipe.num_generations)
        can_share = self.grouped_update and not self.shape.windows and 2 * groups <= self.rows
        prompts = groups if share and can_share else self.rows
        return prompts * self.prompt + self.rows * self.recipe.max_completion_length

    def cache(self, tokens: int) -> float:
        """Keys and values of all layers; with fp32 weights the rotated keys are fp32."""
        key_width = self.width if self.shape.kind == "olmo2" else self.stored
        return tokens * self.shape.layers * self.shape.key * (key_width + self.width)

    def layer_forward(self, tokens: int) -> float:
        """One layer without backward pass: residual, norm, four tensors of the MLP, mask."""
        shape = self.shape
        return tokens * self.width * (2 * shape.hidden + 4 * shape.intermediate + self.length)

    def layer_kept(self, tokens: int) -> float:
        """Tensors that one layer keeps for the backward pass."""
        shape, width = self.shape, self.width
        hidden, middle, query = shape.hidden, shape.intermediate, shape.query
        # Norms keep their inputs in fp32, trained norms their results, too.
        norms = 2 * hidden + (query + shape.key) * (shape.kind in ("qwen3", "olmo2"))
        kept = norms * (4 if self.lora else 8)
        # Attention keeps queries and its result, the MLP gate, SiLU and up.
        kept += width * (2 * query + 3 * middle)
        # LoRA and trained linears keep their inputs: shared ones, or autocast's copy for each.
        copies = 5 * hidden + query + middle
        fused = self.lora and not self.recipe.lora_dropout
        fused &= self.grouped_update or self.grouped_rollout
        shares = width == 4 or fused or (self.nf4 and self.cuda)
        inputs = width * (2 * hidden + middle if shares else copies)
        if self.lora and self.recipe.lora_dropout:  # results and masks
            inputs += (width + 1) * copies
        kept += inputs * len(self.targets) // len(shape.linears)
        if self.rows == 1:
            return tokens * (kept + 2 * width * shape.key)
        # Several rows need a mask, and with it keys and values for every query head.
        keys = 2 * width * query * self.rows * self.length
        return tokens * (kept + width * self.length) + keys

    def head(self) -> tuple[float, float]:
        """Hidden states at the LM head with copies and gradients, and logits, chunk by chunk."""
        shape, width = self.shape, self.width
        tokens = self.rows * self.recipe.max_completion_length
        if self.grouped_update:  # fp32 logits, exponentials and gradients
            logits = 12 * min(tokens * shape.vocabulary, CHUNK_LOGITS)
        else:  # TRL; without Triton it scores prompts too, one tensor per operation
            tokens = tokens if self.cuda else self.rows * self.length
            logits = min(tokens, TRL_TILE[0]) * min(shape.vocabulary, TRL_TILE[1])
            logits *= width if self.cuda else width + 28
        head_gradient = 0 if self.lora else 4 * shape.vocabulary * shape.hidden
        return tokens * shape.hidden * (3 * width + 8), logits + head_gradient


def _peak(*moments: dict[str, float]) -> dict[str, float]:
    return max(moments, key=lambda parts: sum(parts.values()))


def _lora_layers(recipe: Recipe, shape: Shape) -> tuple[int, list[tuple[int, int]]]:
    """LoRA's rank, and the sizes of a layer's linears that have it; a pattern counts as all."""
    rank, targets = recipe.lora_r, recipe.lora_target_modules
    if recipe.adapter is not None:
        config = load_adapter_config(recipe.adapter)
        # Other kinds than LoRA have no rank, and some no targets.
        rank, targets = getattr(config, "r", 1), getattr(config, "target_modules", None) or ""
    if isinstance(targets, str) or not recipe.use_lora:
        return rank, [*shape.linears.values()]
    ends = {target.rpartition(".")[2] for target in targets}
    return rank, [sizes for name, sizes in shape.linears.items() if name in ends]
