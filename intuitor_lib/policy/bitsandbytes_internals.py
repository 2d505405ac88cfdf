"""What the library uses of bitsandbytes beyond its public interface, and nothing else does.

`tests/test_internals.py` names it, and fails where a body is another than the one read.
"""

from typing import Any

import bitsandbytes.functional
from torch import Tensor, nn


def keep_weights_packed(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking weights for AVX512-BF16 CPUs.

    It repacks in place at the first forward in eval mode; from then on the layer's input gets no
    gradient and its dequantized weights differ.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def unpacked(layer: Any) -> Tensor:
    """The weight (out, in) of a 4-bit layer in the dtype it was quantized from."""
    return bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
