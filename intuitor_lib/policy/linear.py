"""Faster linear layers: 4-bit weights unpacked once, LoRA in fewer operations.

bitsandbytes unpacks a 4-bit weight for every product, and PEFT adds LoRA in separate operations,
each a pass over the layer's output. On a CPU that is a large part of the time, and memory is
plentiful (`speed_up_linears`). On a GPU it is most of the time of sampling, whose products are
small (`unpacked_linears`); an update keeps the libraries' own kernels. Results are the same up to
the order of sums.
"""

import contextlib
import types
from collections.abc import Iterable, Iterator
from typing import Any

import bitsandbytes
import psutil
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

UNPACKED_SHARE = 0.25
"""Unpacked weights may take this share of the memory that is free."""


def speed_up_linears(model: nn.Module) -> None:
    """Replace the forward of the linear layers of a model on the CPU, once.

    4-bit weights are kept unpacked beside the packed ones if they fit in `UNPACKED_SHARE` of the
    free memory. Saved, quantized and trained weights stay as they are.
    """
    if next(model.parameters()).device.type != "cpu":
        return
    packed = [
        layer
        for layer in model.modules()
        if isinstance(layer, bitsandbytes.nn.Linear4bit) and not _is_unpacked(layer)
    ]
    if _unpacked_bytes(packed) <= UNPACKED_SHARE * psutil.virtual_memory().available:
        for layer in packed:
            # In a tuple, so that nn.Module does not register the weight once more.
            layer._unpacked, layer._packed = unpacked(layer), (layer.weight,)
            layer.forward = types.MethodType(_unpacked_forward, layer)
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and "forward" not in vars(layer) and _is_linear(layer):
            layer._plain_forward = layer.forward
            layer.forward = types.MethodType(_lora_forward, layer)


@contextlib.contextmanager
def merged_adapters(model: nn.Module) -> Iterator[None]:
    """Merge adapters into copies of the base weights, so that a layer is one product.

    For many small products with the same weights, as in sampling; the weights must not change
    meanwhile. Only for fp32 layers of `speed_up_linears`: lower precision would round the adapter
    away.
    """
    merged = []
    try:
        for layer in model.modules():
            if not (isinstance(layer, LoraLayer) and hasattr(layer, "_plain_forward")):
                continue
            adapter = plain_adapter(layer)
            weight = _weight(layer.get_base_layer())
            low = torch.is_autocast_enabled("cpu")
            if adapter is None or weight is None or low or weight.dtype != torch.float32:
                continue
            down, up, scaling = adapter
            with torch.no_grad():
                layer._merged = torch.addmm(weight, up.float(), down.float(), alpha=scaling)
            merged.append(layer)
        yield
    finally:
        for layer in merged:
            del layer._merged


@contextlib.contextmanager
def unpacked_linears(model: nn.Module, *, reserve: int) -> Iterator[bool]:
    """Keep the 4-bit weights of a model on a GPU unpacked during the block, if there is room.

    Adapters are cast once, to autocast's dtype. The weights must not change meanwhile. `reserve`
    bytes of the GPU's free memory stay free. Yields whether the weights are unpacked.
    """
    modules: list[Any] = [*model.modules()]
    packed = [m for m in modules if isinstance(m, bitsandbytes.nn.Linear4bit)]
    room = free_gpu_bytes(next(model.parameters()).device) - reserve
    if not packed or _unpacked_bytes(packed) > room:
        yield False
        return
    changed: list[Any] = []
    try:
        for layer in packed:
            layer._unpacked, layer._packed = unpacked(layer), (layer.weight,)
            layer.forward = types.MethodType(_unpacked_forward, layer)
            changed.append(layer)
        for layer in modules:
            adapter = plain_adapter(layer) if isinstance(layer, LoraLayer) else None
            if adapter is not None and _is_linear(layer):
                down, up, scaling = adapter
                if torch.is_autocast_enabled(down.device.type):
                    low = torch.get_autocast_dtype(down.device.type)
                    down, up = down.to(low), up.to(low)
                layer._cast_adapter = (down.detach(), up.detach(), scaling)
                layer.forward = types.MethodType(_cast_lora_forward, layer)
                changed.append(layer)
        yield True
    finally:
        for layer in changed:
            for name in ("forward", "_unpacked", "_packed", "_cast_adapter"):
                vars(layer).pop(name, None)


def unpacked(layer: Any) -> Tensor:
    """The weight (out, in) of a 4-bit layer in the dtype it was quantized from."""
    return bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)


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


def free_gpu_bytes(device: torch.device) -> int:
    """Bytes of a GPU that this process can still use; -1 on a CPU."""
    if device.type != "cuda":
        return -1
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


def _unpacked_bytes(layers: Iterable[Any]) -> int:
    return sum(
        layer.in_features * layer.out_features * layer.weight.quant_state.dtype.itemsize
        for layer in layers
    )


def _is_linear(layer: LoraLayer) -> bool:
    # A subclass may compute something else.
    forward = type(layer.get_base_layer()).forward
    return forward in (nn.Linear.forward, bitsandbytes.nn.Linear4bit.forward)


def _is_unpacked(layer: Any) -> bool:
    """Whether the packed weight is still the one unpacked; merging an adapter replaces it."""
    return hasattr(layer, "_unpacked") and layer._packed[0] is layer.weight


def _weight(base: Any) -> Tensor | None:
    """The weight (out, in) in the dtype of computing; None where there is no such matrix."""
    if not isinstance(base, bitsandbytes.nn.Linear4bit):
        return base.weight
    computes_in_it = _is_unpacked(base) and base.compute_dtype in (None, base._unpacked.dtype)
    return base._unpacked if computes_in_it else None


def _unpacked_forward(self: Any, x: Tensor) -> Tensor:
    if not _is_unpacked(self) or x.device != self._unpacked.device:  # changed or moved since
        return type(self).forward(self, x)
    dtype = self.compute_dtype or x.dtype
    bias = None if self.bias is None else self.bias.to(dtype)
    return functional.linear(x.to(dtype), self._unpacked.to(dtype), bias).to(x.dtype)


def _lora_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    base = self.get_base_layer()
    if not args and not kwargs:
        if hasattr(self, "_merged") and x.dtype == torch.float32 and not self.disable_adapters:
            return functional.linear(x, self._merged, base.bias)
        weight, adapter = _weight(base), plain_adapter(self)
        # PEFT computes trained weights and mixed dtypes.
        if (
            adapter is not None
            and weight is not None
            and not weight.requires_grad
            and (base.bias is None or not base.bias.requires_grad)
            and x.dtype == weight.dtype == adapter[0].dtype
            and x.device == weight.device
            and not torch.is_autocast_enabled("cpu")
        ):
            return _LoraProduct.apply(x, weight, base.bias, *adapter)
    return self._plain_forward(x, *args, **kwargs)


def _cast_lora_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if args or kwargs or self.disable_adapters:
        return type(self).forward(self, x, *args, **kwargs)
    down, up, scaling = self._cast_adapter
    out = self.base_layer(x)
    rows = x.reshape(-1, x.shape[-1]).to(down.dtype)
    added = torch.addmm(
        out.reshape(-1, out.shape[-1]).to(down.dtype), rows @ down.T, up.T, alpha=scaling
    )
    return added.view(out.shape).to(out.dtype)


class _LoraProduct(torch.autograd.Function):
    """`x @ weight.T + bias + scaling * (x @ down.T) @ up.T` for a frozen weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ down.T
        out = functional.linear(rows, weight, bias).addmm_(low, up.T, alpha=scaling)
        ctx.save_for_backward(rows, low, weight, down, up)
        ctx.scaling = scaling
        return out.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows, low, weight, down, up = ctx.saved_tensors
        flat = gradient.reshape(-1, gradient.shape[-1])
        back = flat @ up
        to_x = to_down = to_up = None
        if ctx.needs_input_grad[0]:
            to_x = (flat @ weight).addmm_(back, down, alpha=ctx.scaling)
            to_x = to_x.view(*gradient.shape[:-1], weight.shape[1])
        if ctx.needs_input_grad[3]:
            to_down = (back.T @ rows).mul_(ctx.scaling)
        if ctx.needs_input_grad[4]:
            to_up = (flat.T @ low).mul_(ctx.scaling)
        return to_x, None, None, to_down, to_up, None
