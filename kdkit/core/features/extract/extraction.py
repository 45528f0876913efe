"""Extraction: every image decoded once, preprocessed for each teacher that lacks it, its signals stored."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import DualEncoder, Reporter, Sample, SignalSource, Silent
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.load import name_some
from kdkit.core.features.extract.answers import ask, asked
from kdkit.core.features.extract.endpoint_answers import source_of, tellable
from kdkit.core.features.extract.live import to_store
from kdkit.core.features.extract.readable import require_readable
from kdkit.core.features.extract.readahead import Prepared, Work, prepare_ahead
from kdkit.core.features.store.column import Column
from kdkit.core.features.store.header import Header
from kdkit.core.features.store.shard import BLOCK_ROWS, Shard
from kdkit.core.features.store.store import FeatureStore
from kdkit.core.features.store.writing import Indices, ShardWriter
from kdkit.core.project.project import Project

SPARE_BYTES = 64 * 2**20
LIVE_FIX = "change 'device' of teacher '{}' in registry.yaml"


class OpenedTeacher(Protocol):
    """What extraction needs of :class:`kdkit.core.teachers.OpenTeacher`."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> Any: ...
    @property
    def signals(self) -> SignalSource: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def parts(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Extracted:
    """What an extraction did for one teacher.

    Attributes:
        teacher, fingerprint: the column.
        new: rows that were added, ``kept``: samples of the table that were there already.
        unreadable: samples of the table whose image cannot be read.
        prompts: texts whose features were added.
        answers: of a teacher that answers, how many it gave to calibration and test samples.
    """

    teacher: str
    fingerprint: str
    new: int
    kept: int
    unreadable: int
    prompts: int
    answers: int


def extract(
    project: Project,
    teachers: Sequence[OpenedTeacher],
    table: SampleIndex,
    *,
    prompts: Sequence[str] = (),
    live: Mapping[str, str] | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
    block_rows: int = BLOCK_ROWS,
) -> tuple[Extracted, ...]:
    """Store the signals of all samples that the teachers' columns lack, and features of ``prompts``.

    Of ``live`` teachers, training samples are left out. Generating teachers also answer the samples that they are
    judged by.

    May be stopped at any moment, also by kill -9: run again, it goes on after the last committed block, and
    the files end up byte for byte as those of an uninterrupted run with the same ``batch_size``.

    Args:
        project: its ``features`` folder is the store.
        teachers: opened; their models are moved to their devices.
        table: all samples.
        prompts: texts to embed with every teacher that is a dual encoder.
        live: teachers that are asked about training samples while training -> the device of each.
        batch_size: samples per call of a teacher; at most ``block_rows`` are ever used.
        workers: threads that decode and preprocess; by default one per processor, at most 16.
        device: of the others: ``cpu``, ``cuda``, ``cuda:1`` ...
        reporter: where progress is shown.
        block_rows: rows that are committed together.

    Raises:
        KdkitError: no such device; no room on the disk; an answer that a teacher refuses; a teacher that gives NaN
            (naming the sample); images that cannot be read, after all the others have been stored, unless their data
            entry skips them.
    """
    reporter = reporter or Silent()
    live = live or {}
    devices = [
        usable_device(live[t.name], LIVE_FIX.format(t.name)) if t.name in live else usable_device(device)
        for t in teachers
    ]
    store = FeatureStore(project.features)
    columns = [store.create(_header(teacher)) for teacher in teachers]
    for teacher, target in zip(teachers, devices, strict=True):
        if isinstance(teacher.model, nn.Module):
            teacher.model.to(target)
    kept = [int((column.locate(table) >= 0).sum()) for column in columns]
    added = [
        _embed_prompts(store, teacher, column, prompts, batch_size)
        for teacher, column in zip(teachers, columns, strict=True)
    ]
    plans = [_Plan(column, table, live=column.teacher in live) for column in columns]
    for teacher, plan in zip(teachers, plans, strict=True):
        require_readable(teacher.name, teacher.model, [table.samples[row] for row in plan.rows])
    _check_space(project.features, plans)
    signals = [source_of(teacher.signals, column) for teacher, column in zip(teachers, columns, strict=True)]
    for writers in _streams(plans, signals, min(batch_size, block_rows), block_rows):
        _fill(table, writers, batch_size, workers or min(16, os.cpu_count() or 1), reporter)
    told = [ask(t, c.folder, table, asked(table), reporter) for t, c in zip(teachers, columns, strict=True)]
    done = tuple(
        _extracted(store.column(c.teacher, c.fingerprint), table, k, p, a)
        for c, k, p, a in zip(columns, kept, added, told, strict=True)
    )
    _tell_unreadable(store, columns, table, reporter)
    return done


def _header(teacher: OpenedTeacher) -> Header:
    return Header(teacher.name, teacher.fingerprint, dict(teacher.parts), tuple(teacher.signals.signals))


class _Plan:
    """What one column lacks: blocks of shards that were begun, and samples for a new shard."""

    def __init__(self, column: Column, table: SampleIndex, *, live: bool = False) -> None:
        self.column = column
        position = {key: i for i, key in enumerate(zip(table.ids, table.digests.tolist(), strict=True))}
        begun = [shard for shard in column.shards if shard.pending()]
        self.resume: list[tuple[Path, Indices]] = []
        wanted = to_store(table, live=live) & bool(column.signals) & tellable(column, table)
        lacking = wanted & (column.locate(table) < 0) & ~column.unreadable(table)
        for shard in begun:
            keys = zip(shard.ids, shard.digests.tolist(), strict=True)
            index = np.fromiter((position.get(key, -1) for key in keys), np.int64, len(shard))
            index[(index >= 0) & ~wanted[index]] = -1
            lacking[index[index >= 0]] = False
            self.resume.append((shard.path, index))
        self.new: Indices = np.flatnonzero(lacking).astype(np.int64)
        self._ids = [table.ids[i] for i in self.new]
        self._digests: NDArray[np.uint64] = table.digests[self.new]

    @property
    def rows(self) -> Indices:
        """The samples that are going to be asked about, begun shards first."""
        return np.concatenate([*(index[index >= 0] for _, index in self.resume), self.new])

    @property
    def new_bytes(self) -> int:
        return len(self.new) * (self.column.header.row_bytes + 64)

    def begin(self, block_rows: int) -> Path:
        return self.column.add_shard(self._ids, self._digests, block_rows)


def _streams(
    plans: Sequence[_Plan], signals: Sequence[SignalSource], batch_size: int, block_rows: int
) -> Iterator[list[ShardWriter]]:
    """Groups of writers that can share one pass over the images: all want ascending samples.

    Shards that were begun come first. One that was begun when the table had another order goes alone.
    """
    together = []
    for plan, source in zip(plans, signals, strict=True):
        for path, index in plan.resume:
            writer = ShardWriter(source, Shard(path, writable=True), index, batch_size)
            if bool((np.diff(writer.wanted) > 0).all()):
                together.append(writer)
            else:
                yield [writer]
    yield together
    fresh = []
    for plan, source in zip(plans, signals, strict=True):
        if len(plan.new):
            shard = Shard(plan.begin(block_rows), writable=True)
            fresh.append(ShardWriter(source, shard, plan.new, batch_size))
    yield fresh


def _fill(
    table: SampleIndex, writers: Sequence[ShardWriter], batch_size: int, workers: int, reporter: Reporter
) -> None:
    """One pass over the images that any of the writers wants."""
    wants = _who_wants(table, writers)
    work: list[Work] = [(sample, [writer.prepare for writer in takers]) for sample, takers in wants]
    began = time.monotonic()
    with closing(prepare_ahead(work, workers, ahead=2 * batch_size)) as results:
        for done, ((sample, takers), result) in enumerate(zip(wants, results, strict=True), start=1):
            _hand_out(sample, takers, result)
            if done % 16 == 0 or done == len(wants):
                reporter.progress("features", done, len(wants), _note(done, len(wants), began))


def _who_wants(table: SampleIndex, writers: Sequence[ShardWriter]) -> list[tuple[Sample, Sequence[ShardWriter]]]:
    """Each sample that is wanted, with its writers; in the order of a single writer, else ascending."""
    if len(writers) == 1:
        return [(table.samples[i], writers) for i in writers[0].wanted]
    wanted = [writer.wanted for writer in writers]
    order = np.unique(np.concatenate([np.zeros(0, np.int64), *wanted]))
    members = [np.isin(order, want).tolist() for want in wanted]
    return [
        (table.samples[i], [writer for writer, here in zip(writers, flags, strict=True) if here])
        for i, *flags in zip(order, *members, strict=True)
    ]


def _hand_out(sample: Sample, takes: Sequence[ShardWriter], result: Prepared) -> None:
    if isinstance(result, KdkitError):
        for writer in takes:
            writer.refuse()
    else:
        for writer, item in zip(takes, result, strict=True):
            writer.take(sample, item)


def _note(done: int, total: int, began: float) -> str:
    rate = done / max(time.monotonic() - began, 1e-9)
    return f"{rate:.0f} images/s, {(total - done) / rate:.0f} s left"


def _embed_prompts(
    store: FeatureStore, teacher: OpenedTeacher, column: Column, prompts: Sequence[str], batch_size: int
) -> int:
    new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in column.texts]
    if not new or not isinstance(teacher.model, DualEncoder):
        return 0
    with torch.inference_mode():
        parts = [
            teacher.model.encode_text(new[start : start + batch_size]).float().cpu()
            for start in range(0, len(new), batch_size)
        ]
    features = torch.cat(parts).numpy()
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise KdkitError(
            "KD-FEAT-002",
            f"teacher '{teacher.name}' gave NaN or infinite values for the text '{new[int(bad.argmax())]}'",
            fix="check its files, or remove it: kdkit remove-teacher " + teacher.name,
            code=ExitCode.FOUND,
        )
    store.put_texts(teacher.name, teacher.fingerprint, dict(zip(new, features, strict=True)))
    return len(new)


def _check_space(folder: Path, plans: Sequence[_Plan]) -> None:
    needed = sum(plan.new_bytes for plan in plans)
    free = shutil.disk_usage(folder).free
    if needed and free < needed + SPARE_BYTES:
        raise KdkitError(
            "KD-FEAT-003",
            f"the features need {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free",
            where=str(folder),
            fix="free some space and run the command again",
            code=ExitCode.MISSING,
        )


def usable_device(name: str, fix: str = "choose another by --device, for example --device cpu") -> torch.device:
    """The device ``name``.

    Raises:
        KdkitError: when nothing can be put on it; ``fix`` says what to do.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise KdkitError(
            "KD-FEAT-004",
            f"device '{name}' cannot be used",
            why=str(error).splitlines()[0],
            fix=fix,
            code=ExitCode.MISSING,
        ) from error
    return device


def _extracted(column: Column, table: SampleIndex, kept: int, prompts: int, answers: int) -> Extracted:
    found = int((column.locate(table) >= 0).sum())
    unreadable = int(column.unreadable(table).sum())
    return Extracted(column.teacher, column.fingerprint, found - kept, kept, unreadable, prompts, answers)


def _tell_unreadable(store: FeatureStore, columns: Sequence[Column], table: SampleIndex, reporter: Reporter) -> None:
    failed = np.zeros(len(table), dtype=bool)
    for column in columns:
        failed |= store.column(column.teacher, column.fingerprint).unreadable(table)
    if not failed.any():
        return
    refused = np.flatnonzero(failed & ~table.may_skip)
    if not len(refused):
        skipped = name_some(table.ids[i] for i in np.flatnonzero(failed))
        reporter.warn(f"{int(failed.sum())} unreadable images were skipped: {skipped}")
        return
    raise KdkitError(
        "KD-FEAT-005",
        f"{len(refused)} of {len(table)} images cannot be read: {name_some(table.ids[i] for i in refused)}",
        where=str(table.samples[refused[0]].image),
        why="the features of all other images are stored",
        fix="repair or remove the files ('kdkit data check' names them all), or set skip_unreadable: true in "
        "the options of their data entry",
        code=ExitCode.FOUND,
    )
