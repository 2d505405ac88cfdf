"""A CUDA device without CUDA: tensors on the CPU that carry the label "cuda:0".

    with MockCuda() as cuda:
        cuda.move(model)
        ...
        print(cuda.synchronizations)

As on a GPU, an operation that mixes devices fails, `.numpy()` fails, and so does a random generator
of the other device. Whatever makes the host wait for the device is counted: reading a value,
copying to the CPU, and operations whose shape depends on values. Numbers are those of the CPU.

`torch.cuda.is_available()` stays False: what a library decides by it is not covered.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import accelerate
import torch
import transformers
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
LIBRARY = str(Path(__file__).resolve().parents[1] / "intuitor_lib")


class MixedDevices(RuntimeError):
    """What torch raises as 'Expected all tensors to be on the same device'."""


class CudaTensor(torch.Tensor):
    """A tensor with the label. Operations are checked by the mode."""

    __torch_function__ = torch._C._disabled_torch_function_impl


# The host reads the values or their number.
_READS = {
    torch.Tensor.item,
    torch.Tensor.tolist,
    torch.Tensor.__bool__,
    torch.Tensor.__int__,
    torch.Tensor.__float__,
    torch.Tensor.__index__,
    torch.Tensor.__contains__,
    torch.Tensor.nonzero,
    torch.Tensor.masked_select,
    torch.Tensor.unique,
    torch.Tensor.equal,
    torch.Tensor.allclose,
    torch.nonzero,
    torch.masked_select,
    torch.unique,
    torch.equal,
    torch.allclose,
    torch.bincount,
    torch.Tensor.bincount,
}
_INDEXING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
_BETWEEN_DEVICES = {
    torch.Tensor.copy_,
    torch.Tensor.to,
    torch.Tensor.type_as,
    torch.Tensor.data.__set__,
    torch.Tensor.grad.__set__,
}
_CUDA: dict[str, Any] = {
    "current_device": lambda: 0,
    "get_device_name": lambda device=None: "mock",
    "is_available": lambda: False,
    "get_rng_state": lambda device=None: torch.get_rng_state(),
    "get_rng_state_all": lambda: [torch.get_rng_state()],
    "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
    "mem_get_info": lambda device=None: (2**33, 2**33),
    "memory_allocated": lambda device=None: 0,
    "memory_reserved": lambda device=None: 0,
    "set_device": lambda device: None,
    "synchronize": lambda device=None: None,
}
_PROPERTIES = {
    torch.Tensor.device.__get__: CUDA,
    torch.Tensor.is_cuda.__get__: True,
    torch.Tensor.get_device: 0,
}


class MockCuda(TorchFunctionMode):
    """Label, check and count while active; accelerate and transformers take it for their device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._patches = contextlib.ExitStack()

    @property
    def synchronizations(self) -> int:
        """How often the host waited for the device."""
        return sum(self.waits.values())

    def __enter__(self) -> MockCuda:
        to = nn.Module.to
        device = property(lambda self: CUDA, lambda self, value: None)
        for owner, name, fake in (
            (nn.Module, "to", lambda module, *a, **k: self._to(module, to, a, k)),
            (accelerate.state.PartialState, "device", device),
            (accelerate.state.AcceleratorState, "device", device),
            (
                transformers.TrainingArguments,
                "device",
                property(lambda s: (s._setup_devices, CUDA)[1]),
            ),
            (transformers.PreTrainedModel, "from_pretrained", self._loader()),
            *((torch.cuda, name, fake) for name, fake in _CUDA.items()),
        ):
            self._patches.enter_context(mock.patch.object(owner, name, fake, create=True))
        return super().__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """The same machine without the device."""
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    def move(self, model: nn.Module) -> nn.Module:
        """Label the parameters and buffers of a model on the CPU."""
        moved: dict[int, Any] = {}
        for module in model.modules():
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    if tensor is not None and not isinstance(tensor, CudaTensor):
                        table[name] = moved.setdefault(id(tensor), _labelled_leaf(tensor))
        return model

    def _loader(self) -> Any:
        load = transformers.PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]

        def from_pretrained(cls: Any, *args: Any, device_map: Any = None, **kwargs: Any) -> Any:
            loaded = load(cls, *args, **kwargs)
            if device_map is not None:
                self.move(loaded[0] if isinstance(loaded, tuple) else loaded)
            return loaded

        return classmethod(from_pretrained)

    def _to(self, module: nn.Module, to: Any, args: Any, kwargs: Any) -> nn.Module:
        everything = [*args, *kwargs.values()]
        if not any(map(_names_cuda, everything)):
            return to(module, *args, **kwargs)
        rest = [value for value in everything if isinstance(value, torch.dtype)]
        return self.move(to(module, *rest) if rest else module)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.device:
            return func(*args, **kwargs)
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        labelled = [x for x in tensors if isinstance(x, CudaTensor)]
        name = getattr(func, "__name__", str(func))
        if labelled and func in _PROPERTIES:
            return _PROPERTIES[func]
        if labelled and func == torch.Tensor.__deepcopy__:
            return _labelled_leaf(args[0], copy=True)
        if labelled and name in ("numpy", "__array__", "__dlpack__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        named = CUDA if name == "cuda" else _named_device(func, args, kwargs)
        device = named or (CUDA if labelled else CPU)
        # The engine hands unlabelled gradients to backward functions.
        if labelled and func not in _BETWEEN_DEVICES and torch._C._current_graph_task_id() < 0:
            _check_devices(func, name, tensors, args)
        if kwargs.get("generator") is not None and device == CUDA:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if labelled and _waits(func, name, args, named):
            self.waits[f"{name} at {_place()}"] += 1
        if name == "cuda":
            return _label(args[0])
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
        if any(result is tensor for tensor in tensors) and device == CUDA and labelled:
            return result  # in place
        return tree_map(_label if device == CUDA else _unlabel, result)


def _named_device(func: Any, args: Any, kwargs: Any) -> torch.device | None:
    """The device that a call names; None where it names none."""
    if func == torch.Tensor.cpu:
        return CPU
    named = [kwargs.get("device")]
    if func in (torch.Tensor.to, torch.Tensor.type_as):
        named += args[1:2]
    for value in named:
        if isinstance(value, torch.Tensor):
            return CUDA if isinstance(value, CudaTensor) else CPU
        if isinstance(value, str | torch.device):
            return CUDA if _names_cuda(value) else torch.device(value)
    return None


def _check_devices(func: Any, name: str, tensors: list[Any], args: Any) -> None:
    others = [x for x in tensors if not isinstance(x, CudaTensor) and x.dim() > 0]
    if func in _INDEXING and isinstance(args[0], CudaTensor):
        others = [x for x in others if any(x is value for value in args[2:])]  # not the index
    if others:
        raise MixedDevices(f"{name}: tensors on cuda:0 and on the CPU")


def _waits(func: Any, name: str, args: Any, named: torch.device | None) -> bool:
    """Whether the host waits for values of the device."""
    return (
        func in _READS
        or named == CPU
        or (name == "repeat_interleave" and any(isinstance(x, torch.Tensor) for x in args[1:]))
        or (name == "where" and len(args) == 1)
        or (func in _INDEXING and _has_mask(args[1]))
    )


def _label(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and not isinstance(value, CudaTensor):
        return value.as_subclass(CudaTensor)
    return value


def _unlabel(value: Any) -> Any:
    return value.as_subclass(torch.Tensor) if isinstance(value, CudaTensor) else value


def _labelled_leaf(tensor: Any, *, copy: bool = False) -> Any:
    with torch._C.DisableTorchFunction():
        leaf = tensor.detach().clone() if copy else tensor.detach()
        leaf = leaf.as_subclass(CudaTensor).requires_grad_(tensor.requires_grad)
    if isinstance(tensor, nn.Parameter):
        leaf._is_param = True
    return leaf


def _on_cpu(value: Any) -> Any:
    return CPU if _names_cuda(value) else value


def _names_cuda(value: Any) -> bool:
    return isinstance(value, str | torch.device) and str(value).partition(":")[0] == "cuda"


def _has_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(x, CudaTensor) and x.dtype == torch.bool for x in parts)


def _place() -> str:
    """The innermost line of the library on the stack."""
    frames = [f for f in traceback.extract_stack() if f.filename.startswith(LIBRARY)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "elsewhere"
