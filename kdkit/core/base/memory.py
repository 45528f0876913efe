"""Memory that a process may still use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CGROUP = Path("/sys/fs/cgroup")
"""Where a container's limits are (cgroup v2)."""


def free_memory(device: torch.device, cgroup: Path = CGROUP) -> int:
    """Free bytes: of a CUDA device, with what torch has reserved and does not use; else of the machine, and not more
    than the container's limit leaves."""
    import psutil
    import torch

    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
        lines = (line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        cached = next((int(value) for name, value in lines if name == "inactive_file"), 0)
        return min(free, max(0, limit - used + cached))  # files that were read count as used, and can be dropped
    except (OSError, ValueError):  # no container, or "max": no limit
        return free


def total_memory(device: torch.device, cgroup: Path = CGROUP) -> int:
    """Bytes of a CUDA device; else of the machine, or of the container's limit if that is less."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int((cgroup / "memory.max").read_text()))
    except (OSError, ValueError):
        return total


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has used at most: of a CUDA device those that torch allocated, else its resident set."""
    import resource
    import sys

    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
