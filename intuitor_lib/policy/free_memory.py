"""Memory that this process can still use."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch


def free_gpu_bytes(device: torch.device) -> int | None:
    """Bytes of a GPU that this process can still use; None on a CPU."""
    if device.type != "cuda":
        return None
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


def free_ram_bytes() -> int:
    """Bytes of RAM that this process can still use, within the limits of its cgroups."""
    return min([psutil.virtual_memory().available, *_cgroup_room()])


def _cgroup_room(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Bytes below the limit of this process's cgroup (version 2) and of each of its parents."""
    lines = groups.read_text(encoding="utf-8").splitlines() if groups.exists() else []
    for folder in (root / line[3:].strip("/") for line in lines if line.startswith("0::")):
        for group in (folder, *folder.parents):
            # A limit may be "max". In a container the path may be the host's: only parents exist.
            with contextlib.suppress(OSError, ValueError):
                limit, used = ((group / f"memory.{key}").read_text() for key in ("max", "current"))
                pages = dict(map(str.split, (group / "memory.stat").read_text().splitlines()))
                # The kernel frees file pages before memory runs out.
                yield max(0, int(limit) - int(used) + int(pages.get("inactive_file", 0)))
