"""What a run has to compute and to keep, as numbers: counted, measured or assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StudentLoad:
    """A student and the losses on top of it.

    Attributes:
        parameters: of student, heads and losses; ``trained``: those that have gradients.
        parameter_bytes: of all of them; ``trained_bytes``: of the trained ones.
        flops: of one sample's forward and backward pass through the student.
        loss_flops: of the losses of one global batch, on all devices together.
        activations: bytes that one sample's forward pass keeps for the backward pass.
        output_bytes: of one sample's outputs and of its targets of all teachers.
        held: bytes of live teachers, frozen directions and the like on every device.
    """

    parameters: int
    trained: int
    parameter_bytes: int
    trained_bytes: int
    flops: float
    loss_flops: float
    activations: int
    output_bytes: int
    held: int = 0


@dataclass(frozen=True)
class TeacherLoad:
    """A teacher's extraction.

    Attributes:
        row_bytes: of one sample's features in the store.
        samples: that the store is to hold; ``missing``: those that are yet to be computed.
        flops: of one sample's forward pass; None if it was not counted.
        seconds: per sample on this machine, decoding included; None if it was not measured.
    """

    name: str
    row_bytes: int
    samples: int
    missing: int = 0
    flops: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Measured:
    """A few steps on this machine, by one process.

    Attributes:
        device: where.
        step_seconds: of one step.
        parts: part of a step -> seconds, as of ``kdkit profile``.
        memory: bytes of the device.
        processes: that shared the batch.
    """

    device: str
    step_seconds: float
    parts: Mapping[str, float]
    memory: int
    processes: int = 1


@dataclass(frozen=True)
class Workload:
    """A run.

    Attributes:
        samples: that it learns from.
        batch_size: samples of a step over all devices.
        micro_batch: samples at a time on each device, ``auto``, or None for all of its share.
        precision: ``no`` or ``bf16``.
        averaged: whether it keeps a moving average of the weights.
        shard: whether weights and states are shared by the devices (FSDP2).
        input_bytes: of one sample's decoded inputs on disk (``inputs: {cache: uint8}``), or 0.
        image_bytes: of one sample's image on disk, as it is read, or 0 if unknown.
        version_bytes, checkpoint_bytes: on disk; ``checkpoints`` of them.
        decode_seconds: processor seconds to read and prepare one sample; 0 if unknown or cached.
        disk_free: bytes of the disks that are to hold everything; 0 if unknown.
        index_bytes: memory of the sample index and the stores' row numbers, per sample and process.
    """

    samples: int
    steps: int
    batch_size: int
    student: StudentLoad
    teachers: tuple[TeacherLoad, ...] = ()
    micro_batch: int | str | None = None
    precision: str = "no"
    averaged: bool = False
    shard: bool = False
    input_bytes: int = 0
    image_bytes: int = 0
    version_bytes: int = 0
    checkpoint_bytes: int = 0
    checkpoints: int = 3
    decode_seconds: float = 0.0
    index_bytes: int = 0
    disk_free: int = 0
    measured: Measured | None = None


@dataclass(frozen=True)
class Line:
    """One step of the arithmetic: ``label: arithmetic = value``."""

    label: str
    arithmetic: str
    value: str


@dataclass(frozen=True)
class Limit:
    """Something that may not suffice.

    Attributes:
        needed, available: in one unit; ``available`` 0 if unknown.
        knob: what lowers the need.
    """

    name: str
    needed: float
    available: float
    knob: str

    @property
    def share(self) -> float:
        """Of what is available; 0 if that is unknown."""
        return self.needed / self.available if self.available else 0.0


@dataclass(frozen=True)
class Forecast:
    """Time, memory and disk of a run.

    Attributes:
        target: such as ``8 x H100``.
        step_seconds: of one step; ``training_seconds`` of all.
        extraction_seconds: teacher -> of what its features lack; without those that nobody measured.
        memory: bytes on each device, by kind; ``memory_available`` of it.
        disk: bytes by kind.
        device_hours: of training and extraction on all devices together.
        lines: the arithmetic.
        limits: the tightest first.
    """

    target: str
    devices: int
    step_seconds: float
    training_seconds: float
    extraction_seconds: Mapping[str, float]
    memory: Mapping[str, int]
    memory_available: int
    disk: Mapping[str, int]
    device_hours: float
    lines: tuple[Line, ...] = field(repr=False)
    limits: tuple[Limit, ...] = ()

    @property
    def breaks_first(self) -> str:
        """The tightest limit in words; what to do if it is exceeded."""
        known = [limit for limit in self.limits if limit.available]
        if not known:
            return "no limit is known"
        first = known[0]
        if first.share <= 1:
            return f"everything fits; tightest is {first.name}, {100 * first.share:.0f} % used; {first.knob} lowers it"
        return f"{first.name} breaks first: {first.share:.1f} times what there is; {first.knob} lowers it"

    def to_json(self) -> dict[str, Any]:
        """The form of ``--dry-run --json``."""
        from dataclasses import asdict

        limits = [{**asdict(limit), "share": limit.share} for limit in self.limits]
        return {**asdict(self), "limits": limits, "breaks_first": self.breaks_first}
