"""Models on torch's meta device, where tensors have shapes and no contents, and their bytes.

A policy is built there from its configuration, computes as on a CPU or a GPU would (`Device`), and
every storage that an operation makes is counted until it is freed (`Tracker`).
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import bitsandbytes
import peft
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from trl.kernels import chunked_logprob

from ..policy.adapters import add_start_adapter, ignore_renames
from ..policy.linear import speed_up_linears
from ..recipe.recipe import Recipe

__all__ = ["META", "Device", "Tracker", "build", "decoder_layers", "stored_tensors", "unpack"]

META = torch.device("meta")
_aten = torch.ops.aten


class Tracker(TorchDispatchMode):
    """Counts the bytes of the tensors on the meta device that are made within it and still live.

    `live` is what is alive now, bytes by kind; new tensors count as the kind that `kind` names.
    `peaks` holds for every moment that `moment` named what was alive when its sum was largest.
    Temporary memory inside an operation is counted where it is of the size of the arguments
    (`_inside`). Questions about data get the answer of the worst case: a mask masks something.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: Counter[str] = Counter()
        self.peaks: dict[str, Counter[str]] = {}
        self._most = 0
        self._now = 0
        self._kind = "activations"
        self._moment = ""
        self._held: dict[int, Any] = {}

    def moment(self, name: str) -> None:
        """What happens from now on has its own peak."""
        self._moment = name
        self._most = -1
        if name in self.peaks:
            self._most = self.peaks[name].total()
        self._note(0)

    @contextlib.contextmanager
    def kind(self, name: str) -> Iterator[None]:
        """Within it new tensors count as `name`."""
        before, self._kind = self._kind, name
        try:
            yield
        finally:
            self._kind = before

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed, once."""
        storage = tensor.untyped_storage()
        if id(storage) in self._held:
            return
        size, key = storage.nbytes(), id(storage)

        def freed(_: Any) -> None:
            kind = self._held.pop(key)[1]
            self.live[kind] -= size
            self._now -= size

        self._held[key] = weakref.ref(storage, freed), self._kind
        self.live[self._kind] += size
        self._now += size
        self._note(0)

    def leave_out(self, tensor: Tensor) -> None:
        """Never count a tensor, nor views of it."""
        storage = tensor.untyped_storage()
        self._held[id(storage)] = storage, ""

    def rename(self, tensor: Tensor, kind: str) -> None:
        """Count a tensor that is held already as another kind from now on."""
        storage = tensor.untyped_storage()
        reference, before = self._held[id(storage)]
        self._held[id(storage)] = reference, kind
        self.live[before] -= storage.nbytes()
        self.live[kind] += storage.nbytes()

    def _note(self, inside: int) -> None:
        if self._now + inside > self._most:
            self._most = self._now + inside
            peak = self.live.copy()
            peak[self._kind] += inside
            self.peaks[self._moment] = peak

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _aten._local_scalar_dense.default and args[0].device == META:
            return args[0].dtype.is_floating_point and 0.0  # is all of a mask true? No.
        if func is _aten.index.Tensor:
            args = (args[0], [place for index in args[1] for place in _places(index)])
        result = func(*args, **kwargs)
        if func is _aten._to_copy.default and result.device == META and args[0].is_cpu:
            result.places = args[0].count_nonzero().item() if args[0].dtype == torch.bool else None
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and tensor.device == META:
                self.hold(tensor)
        inside = _inside(func, args)
        if inside:
            self._note(inside)
        return result


def _places(index: Any) -> list[Any]:
    """A boolean mask that came from the CPU, as the places of its true entries."""
    count = getattr(index, "places", None)
    if count is None or index.dtype != torch.bool:
        return [index]
    return [torch.empty(count, dtype=torch.long, device=META) for _ in index.shape]


def _inside(func: Any, args: Any) -> int:
    """Bytes that an operation allocates and frees again, of the size of its arguments."""
    if func is _aten.logsumexp.default:  # exp(x - max)
        return args[0].nbytes
    if func is torch.ops.bitsandbytes.gemm_4bit.default:  # the weight, unpacked
        return math.prod(args[2]) * args[0].element_size()
    if func is _aten._scaled_dot_product_flash_attention_backward.default:
        # The queries' gradient in fp32; keys' and values' for every query head.
        query, key = args[1], args[2]
        groups = query.shape[1] // key.shape[1]
        return query.numel() * 4 + (2 * key.nbytes * groups if groups > 1 else 0)
    if func is _aten._scaled_dot_product_efficient_attention_backward.default:
        return args[1].numel() * 4
    return 0


class Device:
    """Within it tensors on the meta device are computed as a device would.

    What depends on the device above the level of single operations: which kernel attention takes,
    and autocast, which casts the arguments of products and keeps the cast of a trained weight.
    """

    def __init__(self, device: str, autocast: torch.dtype | None) -> None:
        self.device, self.autocast = device, autocast
        self._casts: dict[int, Tensor] = {}
        self._by_parts = functional.scaled_dot_product_attention

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Within it torch's attention, linear layers and answers about autocast are replaced."""
        # A TorchFunctionMode would not see what a backward pass computes again.
        fast = self.autocast or torch.get_autocast_dtype("cpu")
        linear = functional.linear
        replaced: list[tuple[Any, str, Any]] = [
            (functional, "scaled_dot_product_attention", self._attention),
            # Asked by PEFT and TRL; torch itself knows no autocast on the meta device.
            (torch, "is_autocast_enabled", lambda *_: self.autocast is not None),
            (torch, "get_autocast_dtype", lambda *_: fast),
            (functional, "linear", lambda *args: linear(*map(self._cast, args))),
        ]
        if self.device == "cuda":  # Triton kernels, which allocate nothing
            for name in ("_forward_tile", "_backward_tile"):
                replaced.append((chunked_logprob, name, lambda *_, **__: None))
        originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
        try:
            for owner, name, value in replaced:
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, value in originals:
                setattr(owner, name, value)

    def forget_casts(self) -> None:
        """As at the end of an autocast context."""
        self._casts.clear()

    def _cast(self, value: Any) -> Any:
        if self.autocast is None or not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not (value.requires_grad and value.is_leaf):
            return value.to(self.autocast)
        return self._casts.setdefault(id(value), value.to(self.autocast))

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        query, key, value = self._cast(query), self._cast(key), self._cast(value)
        bias = None
        if attn_mask is not None:
            bias = torch.zeros_like(attn_mask, dtype=query.dtype)
            bias.masked_fill_(attn_mask.logical_not(), -math.inf)
        if self.device == "cpu":
            return _aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, dropout_p, is_causal, attn_mask=bias, scale=scale
            )[0]
        if bias is None and query.dtype != torch.float32:
            return _aten._scaled_dot_product_flash_attention(
                query, key, value, dropout_p, is_causal, scale=scale
            )[0]
        if enable_gqa:  # no fused kernel: torch computes it by parts
            return self._by_parts(
                query, key, value, bias, dropout_p, is_causal, scale=scale, enable_gqa=True
            )
        if bias is not None:
            bias = functional.pad(bias, (0, -bias.shape[-1] % 16))[..., : key.shape[-2]]
            bias = bias.expand(*query.shape[:-1], key.shape[-2])
        needs_grad = torch.is_grad_enabled() and query.requires_grad
        return _aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, needs_grad, dropout_p, is_causal, scale=scale
        )[0]


def build(recipe: Recipe, config: Any, dtype: torch.dtype) -> Any:
    """The policy of `load_policy` on the meta device: same modules, types and shapes, no contents.

    Args:
        recipe: what is trained.
        config: the model's `transformers` configuration.
        dtype: what is computed in.
    """
    with META:
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=dtype if recipe.use_lora else torch.float32
        )
    if recipe.quantization == "nf4":
        _quantize(model, dtype)
    if not recipe.use_lora:
        return model
    if recipe.adapter is None:
        targets = recipe.lora_target_modules
        lora = peft.LoraConfig(
            r=recipe.lora_r,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=recipe.lora_dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            task_type="CAUSAL_LM",
        )
    else:
        lora = peft.PeftConfig.from_pretrained(recipe.adapter)
        lora.inference_mode = False
    with ignore_renames(), META:
        model = peft.get_peft_model(model, lora)
    if recipe.adapter is not None:
        add_start_adapter(model)
    return model


def _quantize(model: Any, dtype: torch.dtype) -> None:
    """Exchange linear layers for bitsandbytes' packed ones, as transformers does on loading."""
    from transformers.quantizers.auto import AutoHfQuantizer

    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map=None)
    quantizer.postprocess_model(model)
    for layer in model.modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            layer.weight = _packed(layer.weight, dtype)


def _packed(weight: Tensor, dtype: torch.dtype) -> Any:
    """A 4-bit weight with the constants of double quantization, as bitsandbytes lays them out."""
    blocks = math.ceil(weight.numel() / 64)
    second = bitsandbytes.functional.QuantState(
        absmax=torch.empty(math.ceil(blocks / 256), device=META),
        code=torch.empty(256, device=META),
        blocksize=256,
        dtype=torch.float32,
    )
    state = bitsandbytes.functional.QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8, device=META),
        shape=weight.shape,
        code=torch.empty(16, device=META),
        blocksize=64,
        quant_type="nf4",
        dtype=dtype,
        offset=torch.empty((), device=META),
        state2=second,
    )
    return bitsandbytes.nn.Params4bit(
        torch.empty(math.ceil(weight.numel() / 2), 1, dtype=torch.uint8, device=META),
        requires_grad=False,
        quant_state=state,
        bnb_quantized=True,
    )


def unpack(model: nn.Module) -> None:
    """What `linear.speed_up_linears` does to a model on the CPU, to one on the meta device."""
    on_cpu = nn.ModuleDict({"model": model})
    # It asks the first parameter for the device.
    on_cpu.register_parameter("first", nn.Parameter(torch.empty(0)))
    speed_up_linears(on_cpu)


def decoder_layers(backbone: Any) -> nn.ModuleList | None:
    """The list of a transformer's layers; None where it is built otherwise."""
    depth = backbone.config.get_text_config().num_hidden_layers
    lists = [part for part in backbone.children() if isinstance(part, nn.ModuleList)]
    return next((part for part in lists if len(part) == depth), None)


def stored_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a model holds at rest, each with its kind.

    "weights" are parameters, buffers and the constants of 4-bit weights, "adapter" what PEFT
    added, "unpacked weights" what layers keep beside their parameters.
    """
    for name, parameter in model.named_parameters():
        yield "adapter" if ".lora_" in name else "weights", parameter
    yield from (("weights", buffer) for buffer in model.buffers())
    for layer in model.modules():
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        if state is not None:
            second = state.state2
            for tensor in (state.absmax, state.code, state.offset, second.absmax, second.code):
                yield "weights", tensor
        for value in vars(layer).values():
            if isinstance(value, Tensor):
                yield "unpacked weights", value
