"""Published figures of devices, and what a run is planned for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean

GB, TB, TERA = 10**9, 10**12, 10**12
MFU = 0.35
"""Share of a device's dense peak that training reaches. Assumed: torchtitan reports 33 to 39 % for Llama-3 8B on H100
(arXiv 2410.06511, table 1). ``kdkit distill --dry-run`` on the device itself measures instead."""
USABLE = 0.92
"""Share of a device's memory that tensors can fill; the rest is the CUDA context, its libraries and fragmentation."""

PROCESSORS, HOST_MEMORY = 24, 256 * GB
"""Of the machine, for each device of the table. Assumed: clouds rent 8 H100 with 192 virtual processors and 2 TB."""
TOGETHER, NETWORK = 8, 50 * GB
"""Devices in a machine, and bytes/s of each to other machines. Assumed: 400 Gbit/s per device, as in DGX H100."""


@dataclass(frozen=True)
class Device:
    """Figures of a data sheet.

    Attributes:
        memory: bytes.
        bf16: dense bfloat16 matrix products with float32 sums, FLOP/s; data sheets often print twice as much, for
            sparse matrices.
        float32: FLOP/s without TF32, which torch does not use unless told to.
        bandwidth: of its memory, bytes/s.
        link: to other devices of the machine, bytes/s in each direction.
        source: of the figures.
    """

    name: str
    memory: int
    bf16: float
    float32: float
    bandwidth: float
    link: float
    source: str

    def peak(self, precision: str) -> float:
        """FLOP/s for ``no`` (float32) or ``bf16``."""
        return self.bf16 if precision == "bf16" else self.float32


def _device(
    name: str, memory: int, bf16: float, float32: float, bandwidth: float, link: float, source: str
) -> tuple[str, Device]:
    """GB, TFLOP/s, TFLOP/s, GB/s, GB/s in both directions together, as data sheets print them."""
    return name.lower(), Device(
        name, memory * GB, bf16 * TERA, float32 * TERA, bandwidth * GB, link / 2 * GB, f"{source}, read 2026-12-01"
    )


DEVICES = dict([
    _device("A100-40GB", 40, 312, 19.5, 1555, 600, "NVIDIA A100 data sheet (SXM)"),
    _device("A100", 80, 312, 19.5, 2039, 600, "NVIDIA A100 data sheet (80 GB SXM)"),
    _device("H100", 80, 989.4, 66.9, 3350, 900, "NVIDIA H100 data sheet (SXM5)"),
    _device("H200", 141, 989.4, 66.9, 4800, 900, "NVIDIA H200 data sheet (SXM)"),
    _device("B200", 180, 2250, 75, 8000, 1800, "NVIDIA HGX B200 data sheet, per GPU"),
    _device("L4", 24, 121, 30.3, 300, 64, "NVIDIA L4 data sheet (PCIe 4)"),
    _device("L40S", 48, 362, 91.6, 864, 64, "NVIDIA L40S data sheet (PCIe 4)"),
    _device("RTX4090", 24, 165.2, 82.6, 1008, 64, "NVIDIA Ada GPU architecture white paper (PCIe 4)"),
    _device("MI300X", 192, 1307.4, 163.4, 5300, 896, "AMD Instinct MI300X data sheet"),
])  # fmt: skip
"""Lower-case name -> device. Peaks are upper limits; a forecast multiplies them by ``MFU``."""


@dataclass(frozen=True)
class Target:
    """What ``--plan-for`` names: ``count`` of a device, or of this machine's own (``device`` None)."""

    count: int
    device: Device | None = None

    @property
    def title(self) -> str:
        """``8 x H100``."""
        return f"{self.count} x {'this machine' if self.device is None else self.device.name}"


def parse_target(text: str) -> Target:
    """``8xH100``, or ``8`` for eight times what this machine has.

    Raises:
        KdkitError: another form, or a device without figures.

    Example:
        >>> parse_target("8xH100").title, parse_target("4").title
        ('8 x H100', '4 x this machine')
    """
    found = re.fullmatch(r"([1-9]\d{0,5})(?:x([A-Za-z][\w.-]*))?", text.strip())
    if found is None:
        raise KdkitError(
            "KD-DIST-531",
            f"'{text}' names no devices",
            where="--plan-for",
            fix="write for example 8xH100, or 8 for eight times this machine's device",
            code=ExitCode.USAGE,
        )
    count, name = int(found[1]), found[2]
    if name is None:
        return Target(count)
    device = DEVICES.get(name.lower())
    if device is None:
        raise KdkitError(
            "KD-DIST-532",
            f"there are no figures of the device '{name}'",
            where="--plan-for",
            why=did_you_mean(name.lower(), [device.name for device in DEVICES.values()]),
            fix="choose a device of the list, or plan on a machine that has it: --plan-for N",
            code=ExitCode.USAGE,
        )
    return Target(count, device)
