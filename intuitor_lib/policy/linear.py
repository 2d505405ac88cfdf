"""Linear layers with LoRA: in one product where numbers are short, and faster.

PEFT adds an adapter's output to the base's. In bf16 the base's is rounded already: a change of less
than half a unit in its last place gives the same number again, so that an adapter is without effect
while it is small, as in the first steps of a training. Here both are one product, rounded once.

bitsandbytes unpacks a 4-bit weight for every product, and PEFT's operations are each a pass over
the layer's output. On a CPU that is a large part of the time, and memory is plentiful: weights are
kept unpacked (`speed_up_linears`). Sampling makes many small products with the same weights:
`fixed_weights` prepares them once.
"""

import contextlib
import types
from collections.abc import Iterable, Iterator
from typing import Any

import bitsandbytes
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from .free_memory import free_gpu_bytes, free_ram_bytes

_UNPACKED_SHARE = 0.25  # of the memory that is free


def speed_up_linears(model: nn.Module) -> None:
    """Replace the forward of the LoRA layers of a model, and of its 4-bit layers on a CPU, once.

    On a CPU, 4-bit weights are kept unpacked beside the packed ones if `decide_unpacking` said so.
    Saved, quantized and trained weights stay as they are.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu and decide_unpacking(model):
        for layer in _packed(model):
            _keep_unpacked(layer)
    for layer in _layers(model, LoraLayer):
        # A subclass may compute something else.
        plain = type(layer.get_base_layer()).forward in (nn.Linear.forward, _Linear4bit.forward)
        if plain and "forward" not in vars(layer):
            layer._plain_forward = layer.forward
            layer._fuses_fp32 = on_cpu  # a GPU has the libraries' own kernels
            layer.forward = types.MethodType(_lora_forward, layer)


def decide_unpacking(model: nn.Module, choice: bool | None = None) -> bool:
    """Whether a model's 4-bit weights are kept unpacked on a CPU, decided once for each model.

    None: if they take a small part of the memory that is free now. Unpacked ones are rounded
    otherwise, so that a training that goes on must do as before.
    """
    if not hasattr(model, "_unpacks"):
        if choice is None:
            choice = has_room_unpacked(_weight_bytes(_packed(model)))
        model._unpacks = choice  # type: ignore[assignment]
    return bool(model._unpacks)


def has_room_unpacked(size: float) -> bool:
    """Whether unpacked weights of that many bytes take a small part of the free memory."""
    return size <= _UNPACKED_SHARE * free_ram_bytes()


@contextlib.contextmanager
def fixed_weights(model: nn.Module, *, reserve: int | None = None) -> Iterator[bool]:
    """Make each layer of `speed_up_linears` one product with one copy of its weights.

    For many small products, as in sampling; the weights must not change during the block. In fp32
    an adapter is merged into the copy; lower precision would round it away, so there it stands
    beside the weight, as more inputs. On a GPU, 4-bit weights are unpacked for this, and all is
    done only if `reserve` bytes of its free memory (half of it by default) stay free; on a CPU,
    weights that are packed still are left so. Yields whether weights are prepared.
    """
    free = free_gpu_bytes(next(model.parameters()).device)
    adapted: dict[Any, Any] = {}
    needed = 0
    for layer in _layers(model, LoraLayer):
        base, adapter = layer.get_base_layer(), plain_adapter(layer)
        if adapter and hasattr(layer, "_fuses_fp32") and _fuses(base, unpack=free is not None):
            adapted[layer] = adapter
            needed += adapter[1].numel() * _stored_dtype(base).itemsize
    bases = [layer.get_base_layer() for layer in adapted]
    packed = [] if free is None else _packed(model)
    others = [layer for layer in packed if layer not in bases]
    if free is not None:
        room = free // 2 if reserve is None else free - reserve
        if needed + _weight_bytes([*bases, *others]) > room:
            yield False
            return
    try:
        for layer in others:
            _keep_unpacked(layer)
        for layer, adapter in adapted.items():
            with torch.no_grad():
                layer._fixed = _fixed(layer.get_base_layer(), *adapter)
        yield bool(adapted or others)
    finally:
        for layer in adapted:
            vars(layer).pop("_fixed", None)
        for layer in others:
            for name in ("forward", "_unpacked", "_packed"):
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


_Linear4bit = bitsandbytes.nn.Linear4bit


def _layers(model: nn.Module, kind: type) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def _packed(model: nn.Module) -> list[Any]:
    """The 4-bit layers whose weights are not kept unpacked."""
    return [layer for layer in _layers(model, _Linear4bit) if not _is_unpacked(layer)]


def _stored_dtype(base: Any) -> torch.dtype:
    """The dtype of a weight; of a 4-bit one, that it was quantized from."""
    return base.weight.quant_state.dtype if isinstance(base, _Linear4bit) else base.weight.dtype


def _weight_bytes(layers: Iterable[Any]) -> int:
    """The bytes of unpacked weights."""
    return sum(x.in_features * x.out_features * _stored_dtype(x).itemsize for x in layers)


def _keep_unpacked(layer: Any) -> None:
    # In a tuple, so that nn.Module does not register the weight once more.
    layer._unpacked, layer._packed = unpacked(layer), (layer.weight,)
    layer.forward = types.MethodType(_unpacked_forward, layer)


def _is_unpacked(layer: Any) -> bool:
    """Whether the weight is still the one unpacked: merging replaces it, and it may be moved."""
    kept, weight = getattr(layer, "_unpacked", None), layer.weight
    return kept is not None and layer._packed[0] is weight and kept.device == weight.device


def _unpacked_forward(self: Any, x: Tensor) -> Tensor:
    if not _is_unpacked(self) or x.device != self._unpacked.device:
        return type(self).forward(self, x)
    dtype = self.compute_dtype or x.dtype
    bias = None if self.bias is None else self.bias.to(dtype)
    return functional.linear(x.to(dtype), self._unpacked.to(dtype), bias).to(x.dtype)


def _dtype(base: Any) -> torch.dtype:
    """The dtype in which a layer computes."""
    device = base.weight.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    chosen = base.compute_dtype if isinstance(base, _Linear4bit) else None
    return chosen or _stored_dtype(base)


def _is_low(dtype: torch.dtype) -> bool:
    return dtype in (torch.bfloat16, torch.float16)


def _weight(base: Any) -> Tensor:
    """The weight (out, in) of a layer, unpacked now if it is not kept so."""
    if not isinstance(base, _Linear4bit):
        return base.weight
    return base._unpacked if _is_unpacked(base) else unpacked(base)


def _fuses(base: Any, *, unpack: bool) -> bool:
    """Whether base and adapter can be one product: the base is frozen, and unpacked or to be."""
    if base.weight.requires_grad or (base.bias is not None and base.bias.requires_grad):
        return False
    return unpack or not isinstance(base, _Linear4bit) or _is_unpacked(base)


def _beside(weight: Tensor, up: Tensor, scaling: float, dtype: torch.dtype) -> Tensor:
    """The weight of base and adapter (out, in + r), for inputs beside their products with A."""
    return torch.cat([weight.to(dtype), (up * scaling).to(dtype)], 1)


def _fixed(
    base: Any, down: Tensor, up: Tensor, scaling: float
) -> tuple[Tensor, Tensor | None] | None:
    """The weight of a layer with its adapter, and A in low precision; None for other dtypes."""
    dtype, weight = _dtype(base), _weight(base)
    if _is_low(dtype):
        return _beside(weight, up, scaling, dtype), down.to(dtype)
    if weight.dtype != torch.float32 or dtype != torch.float32:
        return None
    return torch.addmm(weight, up.float(), down.float(), alpha=scaling), None


def _lora_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    base, adapter = self.get_base_layer(), plain_adapter(self)
    dtype = _dtype(base)
    low = _is_low(dtype)
    # A 4-bit layer returns fp32 for fp32, to which PEFT adds without loss.
    converts = torch.is_autocast_enabled(x.device.type) and not isinstance(base, _Linear4bit)
    if (
        args
        or kwargs
        or adapter is None
        or x.device != base.weight.device
        or (x.dtype != dtype and not (low and converts))
    ):
        return self._plain_forward(x, *args, **kwargs)
    fixed = getattr(self, "_fixed", None)
    if fixed is not None and fixed[0].dtype == dtype:
        weight, down = fixed
        rows = x.to(dtype)
        if down is not None:
            rows = torch.cat([rows, functional.linear(rows, down)], -1)
        return functional.linear(rows, weight, None if base.bias is None else base.bias.to(dtype))
    alike = self._fuses_fp32 and dtype == _stored_dtype(base) == adapter[0].dtype
    if (low or alike) and _fuses(base, unpack=low):
        return _LoraProduct.apply(x, base, dtype, *adapter)
    return self._plain_forward(x)


class _LoraProduct(torch.autograd.Function):
    """`x @ W.T + bias + scaling * (x @ down.T) @ up.T` for a frozen base layer, in a dtype.

    In low precision it is one product, so that it is rounded once.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, base: Any, dtype: torch.dtype, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        low = rows @ down.to(dtype).T
        weight, bias = _weight(base), None if base.bias is None else base.bias.to(dtype)
        if _is_low(dtype):
            beside = _beside(weight, up, scaling, dtype)
            out = functional.linear(torch.cat([rows, low], 1), beside, bias)
        else:
            out = functional.linear(rows, weight, bias).addmm_(low, up.T, alpha=scaling)
        ctx.save_for_backward(rows, low, down, up)
        ctx.base, ctx.dtypes, ctx.scaling = base, (x.dtype, dtype), scaling
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows, low, down, up = ctx.saved_tensors
        to_x = to_down = to_up = None
        given, dtype = ctx.dtypes
        flat = gradient.reshape(-1, gradient.shape[-1]).to(dtype)
        back = flat @ up.to(dtype)
        if ctx.needs_input_grad[0]:
            to_x = (flat @ _weight(ctx.base).to(dtype)).addmm_(
                back, down.to(dtype), alpha=ctx.scaling
            )
            to_x = to_x.to(given).view(*gradient.shape[:-1], rows.shape[1])
        if ctx.needs_input_grad[3]:
            to_down = (back.T @ rows).mul_(ctx.scaling).to(down.dtype)
        if ctx.needs_input_grad[4]:
            to_up = (flat.T @ low).mul_(ctx.scaling).to(up.dtype)
        return to_x, None, None, to_down, to_up, None
