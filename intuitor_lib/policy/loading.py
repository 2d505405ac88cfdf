"""Load models and their tokenizers: in 4 bits or not, with adapters or without."""

from __future__ import annotations

import contextlib
import time
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn

from ..problems.prompts import require_chat_template
from ..recipe import EMBEDDED_MODEL, InputError, Recipe
from ..report import quiet_transformers
from ..store.processes import join
from .adapters import add_adapter, ignore_renames, load_adapter
from .embedded import embedded_model_folder

__all__ = ["Policy", "compute_dtype", "describe_policy", "load_model", "load_policy"]


class Policy(NamedTuple):
    """A model and its tokenizer."""

    model: Any
    tokenizer: Any


def load_policy(recipe: Recipe) -> Policy:
    """The recipe's model and tokenizer, quantized and with LoRA adapters where the recipe has them.

    On the GPU of this process if there is one, else on the CPU. Under LoRA the base weights are
    frozen and the LoRA weights are fp32.

    Raises:
        InputError: prompt and completion do not fit the model's context; the tokenizer has no
            chat template or no token to pad with; the adapter or the model cannot be loaded.
    """
    trust = recipe.trust_remote_code
    config = _load(
        transformers.AutoConfig, recipe.model, recipe.model_revision, trust_remote_code=trust
    )
    _check_context(recipe, config)
    dtype = compute_dtype(recipe.dtype, join().device)
    model, tokenizer = _load_weights(
        recipe.model,
        recipe.model_revision,
        recipe.quantization,
        compute=dtype,
        # AdamW steps of 3e-6 round away in bf16, so weights that are all trained stay fp32.
        stored=dtype if recipe.use_lora else torch.float32,
        trust_remote_code=trust,
    )
    require_chat_template(tokenizer)
    if recipe.use_lora:
        with ignore_renames():
            model = add_adapter(model, recipe)
    return Policy(model.to(_device(recipe.quantization, model)), tokenizer)


def load_model(
    model: str,
    *,
    revision: str | None = None,
    adapter: str | None = None,
    quantization: str = "none",
    dtype: str = "auto",
) -> Policy:
    """A model to generate and score with, without trainable weights.

    Args:
        model: `EMBEDDED_MODEL`, a local folder or a name on the hub.
        revision: revision on the hub.
        adapter: folder or hub name of a PEFT adapter.
        quantization: "nf4" or "none".
        dtype: dtype of computing, as in a recipe.

    Raises:
        InputError: as `load_policy`, but the chat template is not required.
    """
    compute = compute_dtype(dtype, join().device)
    loaded, tokenizer = _load_weights(
        model, revision, quantization, compute=compute, stored=compute
    )
    if adapter is not None:
        with ignore_renames():
            loaded = load_adapter(loaded, adapter, model, trainable=False)
    loaded.requires_grad_(False)
    return Policy(loaded.to(_device(quantization, loaded)), tokenizer)


def _device(quantization: str, model: Any) -> torch.device:
    # 4-bit weights were put on their device while they were loaded.
    return join().device if quantization == "none" else model.device


def _load_weights(
    name: str,
    revision: str | None,
    quantization: str,
    *,
    compute: torch.dtype,
    stored: torch.dtype,
    trust_remote_code: bool = False,
) -> Policy:
    trust = {"trust_remote_code": trust_remote_code}
    tokenizer = _load(transformers.AutoTokenizer, name, revision, padding_side="left", **trust)
    _set_pad_token(tokenizer, name)
    device = join().device
    weights: dict[str, Any] = {"dtype": stored, **trust}
    if quantization == "nf4":
        weights["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    if device.type == "cuda":
        weights["device_map"] = {"": device}
    model = _load(transformers.AutoModelForCausalLM, name, revision, **weights)
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    _keep_4bit_weights_unpacked(model)
    return Policy(model, tokenizer)


def _load(auto: Any, name: str, revision: str | None, **kwargs: Any) -> Any:
    # Progress bars only for models that take long to load.
    embedded = name == EMBEDDED_MODEL
    source = embedded_model_folder() if embedded else name
    try:
        with quiet_transformers() if embedded else contextlib.nullcontext():
            return auto.from_pretrained(source, revision=revision, **kwargs)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise InputError(
            f"model={name!r} comes with code of its own, which is not run by default: read it, "
            "and set trust_remote_code=true if you trust it"
        ) from error
    except OSError as error:
        raise InputError(
            f"model={name!r} could not be loaded: {error}. Give a hub name that this "
            "machine can reach (log in for gated models), the path of a local folder, or "
            f"{EMBEDDED_MODEL!r}, which needs no hub (profiles smoke and cpu)."
        ) from error


def _check_context(recipe: Recipe, config: Any) -> None:
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    needed = recipe.max_prompt_length + recipe.max_completion_length
    if context is not None and needed > context:
        raise InputError(
            f"max_prompt_length={recipe.max_prompt_length} + max_completion_length="
            f"{recipe.max_completion_length} exceed the {context} tokens of {recipe.model}: "
            "lower one"
        )


def _set_pad_token(tokenizer: Any, name: str) -> None:
    if tokenizer.pad_token_id is not None:
        return
    if tokenizer.eos_token is None:
        raise InputError(
            f"the tokenizer of {name} has neither a pad nor an end-of-sequence token: set "
            "tokenizer.pad_token and tokenizer.eos_token in its folder"
        )
    # As in TRL. Masks are made from lengths, so an end token that is also padding still counts.
    tokenizer.pad_token = tokenizer.eos_token


def _keep_4bit_weights_unpacked(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking weights for AVX512-BF16 CPUs.

    It repacks in place at the first forward in eval mode; from then on the layer's input gets no
    gradient and its dequantized weights differ.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def describe_policy(model: Any) -> dict[str, Any]:
    """Device, precision, 4-bit layers, trainable and all parameters of a loaded model."""
    import bitsandbytes

    four_bit = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    first = next(model.parameters())
    # A 4-bit layer keeps two weights in a byte.
    total = sum(
        p.numel() * (2 if isinstance(p, bitsandbytes.nn.Params4bit) else 1)
        for p in model.parameters()
    )
    return {
        "device": str(first.device),
        "device_name": torch.cuda.get_device_name(first.device) if first.is_cuda else "CPU",
        "compute_dtype": str(four_bit[0].compute_dtype if four_bit else first.dtype).removeprefix(
            "torch."
        ),
        "quantization": "nf4" if four_bit else "none",
        "layers_4bit": len(four_bit),
        "parameters": total,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "memory_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
    }


def compute_dtype(name: str, device: torch.device | str) -> torch.dtype:
    """The torch dtype for a recipe's `dtype` on a device.

    "auto" is bf16 on GPUs that have it and on CPUs that multiply it faster than fp32, else fp32:
    a CPU without AVX512-BF16 or AMX multiplies bf16 matrices hundreds of times slower.
    """
    if name != "auto":
        return getattr(torch, name)
    device = torch.device(device)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = product_seconds(torch.bfloat16, device) < product_seconds(torch.float32, device)
    return torch.bfloat16 if fast else torch.float32


def product_seconds(dtype: torch.dtype, device: torch.device, size: int = 256) -> float:
    """Seconds of the product of two square matrices, the best of up to twenty.

    The first ones start threads, and other work on the machine slows some: neither may decide.
    """
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    seconds: list[float] = []
    while len(seconds) < 3 or (len(seconds) < 20 and sum(seconds) < 0.1):
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
