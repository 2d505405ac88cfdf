"""What the library uses of PEFT beyond its public interface, and nothing else does.

`INTERNALS` names it. `tests/test_internals.py` fails where a body is another than the one read.
"""

from collections.abc import Mapping
from typing import Any

from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_bnb_weight
from torch import Tensor, nn

__all__ = ["INTERNALS", "BaseTunerLayer", "LoraLayer", "dequantize_bnb_weight", "plain_adapter"]

INTERNALS: Mapping[str, str] = {
    "peft.tuners.lora.layer.LoraLayer.__init__": "its attributes are read",
    "peft.tuners.lora.layer.LoraLayer.update_layer": "its attributes are read",
    "peft.tuners.lora.layer.Linear.forward": "`policy.linear` computes it in fewer passes",
    "peft.tuners.lora.bnb.Linear4bit.forward": "`policy.linear` computes it in fewer passes",
    "peft.tuners.lora.layer.Linear.get_delta_weight": "merged for vLLM",
    "peft.tuners.lora.bnb.Linear4bit.get_delta_weight": "merged for vLLM",
    "peft.tuners.tuners_utils.BaseTunerLayer.set_adapter": "changes what is trainable",
    "peft.utils.integrations.dequantize_bnb_weight": "unpacks weights for vLLM",
}
"""Dotted names, and what each is used for."""


def plain_adapter(layer: Any) -> tuple[Tensor, Tensor, float] | None:
    """LoRA's A (r, in), B (out, r) and scaling; None unless one plain adapter is active."""
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return None
    name = layer.active_adapters[0]
    if name not in layer.lora_A or name in layer.lora_variant or layer.lora_bias.get(name):
        return None
    if layer.training and not isinstance(layer.lora_dropout[name], nn.Identity):
        return None
    return layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
