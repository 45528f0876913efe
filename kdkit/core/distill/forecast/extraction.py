"""``kdkit features extract --dry-run``: what the store lacks, and its cost measured on a few samples."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.threads import usable_processors
from kdkit.core.contracts import Reporter, Sample
from kdkit.core.data.images import open_image
from kdkit.core.data.prompts import project_prompts
from kdkit.core.distill.forecast.arithmetic import extraction_seconds
from kdkit.core.distill.forecast.devices import Target
from kdkit.core.distill.forecast.workload import Line, TeacherLoad
from kdkit.core.features.extract.encode import Encoder
from kdkit.core.features.extract.endpoint_answers import only_own_answers
from kdkit.core.features.extract.extraction import usable_device
from kdkit.core.features.extract.missing import find_missing, live_devices, locked_fingerprints, without_imported
from kdkit.core.features.store.header import Header
from kdkit.core.features.store.store import FeatureStore
from kdkit.core.teachers import open_teacher

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex
    from kdkit.core.project.project import Project
    from kdkit.core.teachers import OpenTeacher

SAMPLES, ROW_EXTRA = 16, 64
"""Samples of the measurement; and bytes of a row beside its features: id, digest, state."""


@dataclass(frozen=True)
class ExtractionCost:
    """What one teacher's features still cost.

    Attributes:
        missing: samples, prompts and answers that the store lacks.
        bytes: of their rows.
        decode_seconds, forward_seconds: of one sample: reading and preparing on one processor, and the forward pass.
        flops: of one sample's forward pass, by torch's FlopCounterMode; None for a teacher that is no module here.
        seconds: on this machine; ``planned_seconds`` on the target, None if not asked or not known.
    """

    teacher: str
    missing: int
    bytes: int
    decode_seconds: float
    forward_seconds: float
    flops: float | None
    seconds: float
    planned_seconds: float | None = None


@dataclass(frozen=True)
class ExtractionCosts:
    """Of all teachers; ``free`` bytes on the disk; ``lines``: the arithmetic for a target."""

    teachers: tuple[ExtractionCost, ...]
    free: int
    target: str = ""
    lines: tuple[Line, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The form of ``--dry-run --json``."""
        return asdict(self)


def plan_extraction(
    project: Project,
    index: SampleIndex,
    teachers: Sequence[str],
    *,
    device: str,
    batch_size: int,
    target: Target | None,
    reporter: Reporter,
) -> ExtractionCosts:
    """Count what the columns lack and measure ``SAMPLES`` of it; nothing is stored.

    Raises:
        KdkitError: a teacher is not in the registry, or cannot be opened; no such device.
    """
    keys = locked_fingerprints(project.registry, project.lock, teachers)
    live = [name for name in live_devices(project.registry, project.lock) if name in keys]
    prompts = project_prompts(project.registry, index)
    missing = find_missing(FeatureStore(project.features), keys, index, prompts, live=live, reporter=reporter)
    missing = without_imported(missing, project.lock, index, prompts, reporter)
    costs, lines = list[ExtractionCost](), list[Line]()
    for name, count in missing.counts.items():
        reporter.say(f"measuring {name} on {min(SAMPLES, len(index))} samples")
        with_model = open_teacher(project, name, reporter=reporter)
        costs.append(_cost(with_model, index, count, usable_device(device), batch_size, target, lines))
    free = shutil.disk_usage(project.root).free
    return ExtractionCosts(tuple(costs), free, "" if target is None else target.title, tuple(lines))


def _cost(
    teacher: OpenTeacher,
    index: SampleIndex,
    missing: int,
    device: torch.device,
    batch_size: int,
    target: Target | None,
    lines: list[Line],
) -> ExtractionCost:
    row_bytes = Header(teacher.name, "", {}, tuple(teacher.signals.signals)).row_bytes + ROW_EXTRA
    decode, forward, flops = measure_teacher(teacher, _some(index), device, batch_size)
    each = (
        forward + decode / usable_processors() if device.type == "cpu" else max(forward, decode / usable_processors())
    )
    load = TeacherLoad(teacher.name, row_bytes, len(index), missing, flops, each)
    planned = None if target is None else extraction_seconds(load, target, lines)
    return ExtractionCost(teacher.name, missing, missing * row_bytes, decode, forward, flops, missing * each, planned)


def _some(index: SampleIndex) -> list[Sample]:
    """Samples from all over the index."""
    return [index.samples[row] for row in range(0, len(index), max(1, len(index) // SAMPLES))][:SAMPLES]


def measure_teacher(
    teacher: OpenTeacher, samples: Sequence[Sample], device: torch.device, batch_size: int
) -> tuple[float, float, float | None]:
    """Seconds of a sample's preparation and of its forward pass, and its FLOPs.

    The first preparation and the first forward pass are not counted. A sample that cannot be read is left out.

    Raises:
        KdkitError: no sample can be read; the teacher fails.
    """
    signals = () if only_own_answers(dict(teacher.signals.identity())) else tuple(teacher.signals.signals)
    encoder = Encoder(teacher.signals, teacher.name, signals)
    if isinstance(teacher.model, nn.Module):
        teacher.model.to(device)
    seconds, items, ids, failed = list[float](), list[Any](), list[str](), None
    for sample in samples:
        begun = time.perf_counter()
        try:
            items.append(encoder.prepare(open_image(sample), sample))
        except KdkitError as error:
            failed = error
            continue
        seconds.append(time.perf_counter() - begun)
        ids.append(sample.id)
    if not items:
        assert failed is not None
        raise failed
    batch, names = items[:batch_size], ids[:batch_size]
    with FlopCounterMode(display=False) as counter:
        encoder(batch, names)
    flops = counter.get_total_flops() / len(batch)
    encoder.begin()  # texts that were encoded would count as free
    begun = time.perf_counter()
    encoder(batch, names)  # moves its results to the CPU, so the device is done
    forward = (time.perf_counter() - begun) / len(batch)
    return statistics.median(seconds[1:] or seconds), forward, flops or None
