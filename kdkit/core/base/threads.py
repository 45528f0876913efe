"""Processors that this process may use, for the numbers of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_processors(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Processors of this process: its affinity, and at most the quota of its cgroups (version 2); at least 1."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([processors, *_quotas(cgroups, own)])))


def settle_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set ``OMP_NUM_THREADS`` where a quota allows fewer threads than the affinity, which is all that OpenMP sees.

    To be called before torch is imported. What the user has set stays.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    if "OMP_NUM_THREADS" not in environment and (usable := usable_processors()) < affinity:
        environment["OMP_NUM_THREADS"] = str(usable)


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """Processors that each cgroup above this process may use at a time, where it has a limit."""
    with suppress(OSError):
        lines = own.read_text(encoding="utf-8").splitlines()
        names = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
        for folder in (part for name in names for part in ((cgroups / name), *(cgroups / name).parents)):
            with suppress(OSError, ValueError):
                quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
                yield float(quota) / float(period)  # 'max' is no number
