"""Rollouts by vLLM: what they need, and the weights that vLLM is sent.

TRL sends vLLM a LoRA policy by merging the adapter into the base weights and unmerging it after
(`VLLMGeneration.sync_weights`). In bf16 this leaves rounding errors in the frozen base at every
step; in 4 bits it quantizes the base twice a step, and sends packed bytes without their scales.
`send_merged_weights` merges into copies, layer by layer, and does not change the base.
"""

import importlib.util
from collections.abc import Iterator
from typing import Any

import bitsandbytes
import peft
import torch
from peft.tuners.lora import LoraLayer

from ..policy.linear import unpacked
from ..recipe import InputError, Recipe


def check_rollout(recipe: Recipe, device: torch.device) -> None:
    """Refuse a rollout that cannot work on this machine, before anything is loaded."""
    if recipe.rollout != "vllm":
        return
    instead = "or take rollout='auto', which needs no server and no GPU"
    if device.type != "cuda":
        raise InputError(
            f"rollout='vllm' on the device {device}: it needs an NVIDIA GPU; use one, {instead}"
        )
    if importlib.util.find_spec("vllm") is None:
        raise InputError(  # TRL warns of a version that it does not support
            "rollout='vllm' and vllm cannot be imported: pip install 'vllm>=0.22.0,<=0.31.0', "
            + instead
        )
    if recipe.vllm_mode == "colocate" and recipe.quantization != "none":
        raise InputError(
            f"rollout='vllm' with quantization={recipe.quantization!r} and vllm_mode='colocate': "
            "vLLM would load the base in 4 bits and cannot be sent an adapter merged into it. Set "
            "quantization='none', or vllm_mode='server' with a server of the same model in bf16, "
            f"{instead}"
        )


def send_merged_weights(generation: Any, model: Any) -> None:
    """Make TRL's `VLLMGeneration` send `merged_weights(model)` instead of merging in place."""
    if isinstance(model, peft.PeftModel):
        generation._iter_named_params = lambda: merged_weights(model)


def merged_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and weights of the base model with the active LoRA adapters in them.

    4-bit layers are dequantized to the dtype they compute in. The sum is computed in fp32 and
    rounded once to that dtype, which may hide a small adapter from vLLM; the policy itself adds
    the adapter to the layer's output instead. The model is not changed.
    """
    layers = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        owner, _, kind = name.rpartition(".")
        if not name.startswith("base_model.model.") or model.prefix in name:
            continue
        if "modules_to_save" in name or "original_module" in name:
            raise ValueError(f"{name}: only plain LoRA can be merged")
        weight = parameter.data
        dtype = weight.dtype
        if isinstance(parameter, bitsandbytes.nn.Params4bit):
            dtype = layers[owner].compute_dtype
            weight = unpacked(layers[owner])
        layer = layers.get(owner.removesuffix(".base_layer"))
        if kind == "weight" and isinstance(layer, LoraLayer):
            weight = weight.float()
            for adapter in layer.active_adapters:
                if adapter in layer.lora_variant or layer.lora_bias.get(adapter):
                    raise ValueError(f"{name}: only plain LoRA can be merged")
                if adapter in layer.lora_A or adapter in layer.lora_embedding_A:
                    weight = weight + layer.get_delta_weight(adapter).float()
        exposed = name.removeprefix("base_model.model.").replace(".base_layer", "")
        yield exposed, weight.to(dtype)
