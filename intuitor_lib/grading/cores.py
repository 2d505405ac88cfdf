"""The processor cores that this process may use."""

import contextlib
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of CPU time, per period


def cores() -> int:
    """The number of cores this process is bound to, at most its container's quota."""
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    else:  # macOS does not tell
        usable = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no such file; or "max", for no quota
        quota, period = map(int, _QUOTA.read_text(encoding="ascii").split())
        usable = min(usable, max(1, quota // period))
    return usable
