"""What the benchmarks share: contenders that take turns, peak memory, spread, facts of the machine."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

Clock = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: what is measured; ``baseline``: what it is compared with.
        value: the figure, ``low`` and ``high`` its smallest and largest round; None for a ratio that was not reached.
        unit: such as ``x`` for a ratio.
        target: the figure to reach, as text; ``reached`` whether it is, None if there is none.
        detail: medians of the contenders and whatever else explains the figure.
    """

    name: str
    baseline: str
    value: float
    low: float
    high: float
    unit: str
    target: str
    reached: bool | None
    detail: Mapping[str, Any]

    def line(self) -> str:
        """A line of the table."""
        verdict = {True: "reached", False: "MISSED", None: ""}[self.reached]
        figure = f"{self.value:.4g} {self.unit} ({self.low:.4g} to {self.high:.4g})"
        return f"| {self.name} | {self.baseline} | {figure} | {self.target} | {verdict} |"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


HEADER = "| what | baseline | figure (smallest to largest) | target | |\n|---|---|---|---|---|"


def take_turns(contenders: Mapping[str, Callable[[], object]], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of each contender in each round, after a round that is not counted.

    The order turns around from round to round, so that no contender always follows the same one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        names = list(contenders)
        for name in names if number % 2 else reversed(names):
            begun = clock()
            contenders[name]()
            if number:
                seconds[name].append(clock() - begun)
    return seconds


def ratios(seconds: Mapping[str, Sequence[float]], ours: str, baseline: str) -> list[float]:
    """How many times as fast as the baseline ours is, in each round."""
    return [b / max(a, 1e-9) for a, b in zip(seconds[ours], seconds[baseline], strict=True)]


def row(
    name: str,
    baseline: str,
    values: Sequence[float],
    *,
    unit: str = "x",
    least: float | None = None,
    most: float | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Row:
    """The median of ``values`` against a limit: at least ``least``, or at most ``most``."""
    middle = statistics.median(values)
    target, reached = "", None
    if least is not None:
        target, reached = f">= {least:g}", middle >= least
    elif most is not None:
        target, reached = f"<= {most:g}", middle <= most
    return Row(name, baseline, middle, min(values), max(values), unit, target, reached, dict(detail or {}))


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Contender -> median, smallest, largest."""
    return {name: [statistics.median(s), min(s), max(s)] for name, s in seconds.items()}


def device_clock(device: torch.device) -> Clock:
    """Processor seconds of this process on a CPU, which other jobs hardly change; seconds after a wait for a GPU."""
    if device.type != "cuda":
        return time.process_time

    def synchronized() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronized


def high_water() -> float:
    """MiB of memory that this process has held at most (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def peak_here(run: Callable[[], object]) -> float:
    """MiB by which this process grows during ``run`` (Linux with glibc). Memory that was freed before counts as new."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is now what is held now
    before = high_water()
    run()
    return high_water() - before


def peak_of(script: str, arguments: Sequence[str]) -> float:
    """MiB that a script prints, run in a process of its own."""
    command = [sys.executable, script, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def gpu_peak(run: Callable[[], object], device: torch.device) -> float:
    """MiB of device memory that ``run`` takes beyond what is held before it."""
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def machine() -> dict[str, Any]:
    """What figures depend on, the load of the moment included."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if torch.cuda.is_available():
        facts |= {"gpu": torch.cuda.get_device_name(), "gpu_mib": torch.cuda.mem_get_info()[1] // 2**20}
    return facts


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line]
    return names[0].partition(":")[2].strip() if names else platform.machine()
