"""A teacher that is asked about each batch while training: the rows that its column would hold, and none stored."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import SPLITS, Reporter, SignalSpec
from kdkit.core.distill.loop.distributed import PATIENCE
from kdkit.core.distill.loop.sampler import Indices
from kdkit.core.features.extract.encode import Encoder
from kdkit.core.features.extract.extraction import LIVE_FIX, usable_device
from kdkit.core.features.extract.prefetch import prefetch
from kdkit.core.features.extract.selection import live_devices

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex
    from kdkit.core.project.project import Project
    from kdkit.core.teachers import OpenTeacher

Array = np.ndarray[Any, Any]
MICRO_BATCH = 16
"""Samples per forward pass of a live teacher: its activations lie beside the student's."""


class LiveTeacher:
    """Rows of one teacher, computed when they are asked for.

    What was asked for last is remembered, so that the signals of a batch, asked for one by one, cost one pass. A row
    depends on nothing but the rows that are asked for together with it, so a run that goes on after a kill gets
    those of an uninterrupted one. (In the last bit, a teacher's numbers may depend on the batch that they are computed
    in, here as in an extraction with another batch size.)

    No random numbers are drawn: a teacher is in evaluation mode, and one whose rows differ between two passes was
    refused when it was locked.

    Args:
        opened: in evaluation mode, without gradients.
        table: row numbers are those of its samples.
        skipped: (N,) unreadable images that are left out.
        device: where it computes.
        parked: its weights are on ``device`` while it computes, and on the CPU otherwise.
    """

    def __init__(
        self, opened: OpenTeacher, table: SampleIndex, skipped: Array, *, device: torch.device, parked: bool = False
    ) -> None:
        self.name, self.signals = opened.name, opened.signals.signals
        self.parked, self._device, self._table = parked, device, table
        has = (table.split_index == SPLITS.index("train")) & ~table.unanswered & ~skipped
        self.rows: Indices = np.where(has, np.arange(len(table)), -1)
        self._model = opened.model if isinstance(opened.model, nn.Module) else None
        if self._model is not None:
            self._model.to("cpu")
        self._encode: Encoder | None = Encoder(opened.signals, opened.name, self.signals)
        self._known: dict[bytes, Mapping[str, Array]] = {}
        self._group: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes of its parameters."""
        return sum(p.numel() * p.element_size() for p in self._model.parameters()) if self._model is not None else 0

    def join(self) -> None:
        """From now on each process of the run computes its share of the rows; all must call this at the same point.

        The shares are exchanged on the CPU, apart from the gradients, in whatever thread asks for rows.
        """
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo", timeout=PATIENCE)

    def gather(self, signal: str, rows: Indices) -> Array:
        """(len(rows), *shape) as :meth:`kdkit.core.features.Column.gather`; rows are numbers of table samples.

        Raises:
            KdkitError: an image that cannot be read; what the teacher gives is not what its column would take.
        """
        key = rows.tobytes()
        if key not in self._known:
            self.visit([rows])
        return self._known[key][signal]

    def visit(self, batches: Sequence[Indices]) -> None:
        """Compute several batches while the weights are on the device, and forget all others."""
        self._known = {}
        with self._at_work():
            for rows in batches:
                self._known[rows.tobytes()] = self._shared(rows)

    def close(self) -> None:
        """Let go of the model; nothing can be asked afterwards."""
        self._model, self._encode, self._known = None, None, {}

    def _shared(self, rows: Indices) -> dict[str, Array]:
        if self._group is None:
            return self._compute(rows)
        world, rank = dist.get_world_size(), dist.get_rank()
        share = -(-len(rows) // world)
        mine = self._compute(rows[rank * share : (rank + 1) * share])
        return _exchange(mine, self.signals, share, world, self._group, len(rows))

    def _compute(self, rows: Indices) -> dict[str, Array]:
        encode = self._encode
        assert encode is not None, "it was closed"
        encode.begin()
        samples = [self._table.samples[row] for row in rows]
        parts: list[dict[str, Array]] = []
        work = [(sample, [encode.source.prepare]) for sample in samples]
        with closing(prefetch(work, min(4, os.cpu_count() or 1), ahead=2 * MICRO_BATCH)) as prepared:
            for start in range(0, len(samples), MICRO_BATCH):
                part = samples[start : start + MICRO_BATCH]
                items = [_readable(next(prepared)) for _ in part]
                parts.append(encode(items, [sample.id for sample in part]))
        empty = {spec.name: np.zeros((0, *spec.shape), spec.dtype) for spec in self.signals}
        return {name: np.concatenate([none, *(part[name] for part in parts)]) for name, none in empty.items()}

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """The model is on its device; a parked one goes back, by taking up its CPU tensors, which nothing changed."""
        if self._model is None:
            yield
            return
        if not self.parked:
            self._model.to(self._device)
            yield
            return
        tensors = [*self._model.parameters(), *self._model.buffers()]
        at_home = [x.data for x in tensors]
        try:
            for x in tensors:
                x.data = x.data.to(self._device)
            yield
        finally:
            for x, home in zip(tensors, at_home, strict=True):
                x.data = home


def open_live(project: Project, teachers: Sequence[str], *, device: str, reporter: Reporter) -> dict[str, OpenTeacher]:
    """Those of ``teachers`` that are live, opened.

    Args:
        device: where the student is trained.

    Raises:
        KdkitError: a device that cannot be used, a teacher that only answers or whose files cannot be had, and what
            opening raises.
    """
    from kdkit.core.teachers import open_teacher

    names = [name for name in live_devices(project.registry, project.lock) if name in teachers]
    for name in names:
        where = _device(project, name, device)
        parked = ", parked on the CPU between uses" if project.registry.teachers[name].parked else ""
        reporter.say(f"{name}: live on {where}{parked}")
    opened = {}
    for name in names:
        try:
            opened[name] = open_teacher(project, name, reporter=reporter)
        except KdkitError as error:
            if error.code is not ExitCode.MISSING:
                raise
            raise KdkitError(
                "KD-DIST-016",
                f"teacher '{name}' is live and cannot be opened: {error.what}",
                where=error.where,
                why=error.why,
                fix="bring it back, or take 'signals: live' out of its entry: it then teaches what its column holds",
                code=error.code,
            ) from error
    return opened


def live_teachers(
    project: Project,
    opened: Mapping[str, OpenTeacher],
    table: SampleIndex,
    skipped: Array | None,
    *,
    device: str,
) -> dict[str, LiveTeacher]:
    """Teachers of :func:`open_live`, ready to be asked about the table's training samples but those ``skipped``."""
    left_out = np.zeros(len(table), dtype=bool) if skipped is None else skipped
    return {
        name: LiveTeacher(
            teacher,
            table,
            left_out,
            device=_device(project, name, device),
            parked=project.registry.teachers[name].parked,
        )
        for name, teacher in opened.items()
    }


def _device(project: Project, name: str, usual: str) -> torch.device:
    wanted = project.registry.teachers[name].device
    return usable_device(wanted or usual, LIVE_FIX.format(name))


def _readable(item: Any) -> Any:
    if isinstance(item, KdkitError):
        raise item
    return item[0]


def _exchange(
    mine: Mapping[str, Array], specs: Sequence[SignalSpec], share: int, world: int, group: Any, total: int
) -> dict[str, Array]:
    """The rows of all processes in rank order: (total, *shape) per signal.

    Args:
        mine: this process's, at most ``share``.
    """
    widths = [int(np.prod(spec.shape)) for spec in specs]
    sizes = [width * np.dtype(spec.dtype).itemsize for width, spec in zip(widths, specs, strict=True)]
    packed = np.zeros((share, sum(sizes)), dtype=np.uint8)
    here = len(mine[specs[0].name])
    flat = [mine[spec.name].reshape(here, width).view(np.uint8) for width, spec in zip(widths, specs, strict=True)]
    packed[:here] = np.concatenate(flat, axis=1)
    parts = [torch.empty(packed.shape, dtype=torch.uint8) for _ in range(world)]
    dist.all_gather(parts, torch.from_numpy(packed), group=group)
    whole = np.concatenate([part.numpy() for part in parts])[:total]
    columns = np.split(whole, np.cumsum(sizes)[:-1], axis=1)
    return {
        spec.name: np.ascontiguousarray(column).view(spec.dtype).reshape(total, *spec.shape)
        for spec, column in zip(specs, columns, strict=True)
    }
