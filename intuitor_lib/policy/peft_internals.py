"""What the library uses of PEFT beyond its public interface, and nothing else does.

`tests/test_internals.py` names it, and fails where a body is another than the one read.
"""

from typing import Any

from peft.tuners.lora import LoraLayer as LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer as BaseTunerLayer
from torch import Tensor, nn


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
