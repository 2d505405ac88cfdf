"""The dtype to compute in, chosen by what the device multiplies fastest."""

from __future__ import annotations

import time

import torch

__all__ = ["compute_dtype", "product_seconds"]


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
