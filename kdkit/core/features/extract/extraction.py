"""Extraction: decodes each image once, preprocesses it for every teacher that lacks it, and stores the signals."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.result import format_size
from kdkit.core.base.threads import usable_processors
from kdkit.core.contracts import Reporter, Sample, SignalSource, Silent, TextEncoder
from kdkit.core.data.index import SampleIndex
from kdkit.core.features.extract.answers import answer_missing
from kdkit.core.features.extract.endpoint_answers import has_signals, with_top_logprobs
from kdkit.core.features.extract.prefetch import Prepared, Work, prefetch
from kdkit.core.features.extract.refusals import require_accepted
from kdkit.core.features.extract.shard_writer import Indices, ShardWriter
from kdkit.core.features.extract.unreadable import Mask, readable_again, report_unreadable
from kdkit.core.features.store.column import Column
from kdkit.core.features.store.header import Header
from kdkit.core.features.store.shard import BLOCK_ROWS, Shard
from kdkit.core.features.store.store import FeatureStore
from kdkit.core.teachers.open import OpenTeacher

SPARE_BYTES = 64 * 2**20
"""Reserve that an extraction leaves on the disk."""
LIVE_FIX = "change 'device' of teacher '{}' in registry.yaml"


@dataclass(frozen=True)
class Extracted:
    """What an extraction did for one teacher.

    Attributes:
        teacher, fingerprint: the column.
        new, kept: samples whose rows were added, and samples that had one before.
        unreadable: samples whose image cannot be read.
        prompts: texts whose features were added.
        answers: answers to calibration and test samples that were added.
    """

    teacher: str
    fingerprint: str
    new: int
    kept: int
    unreadable: int
    prompts: int
    answers: int


def extract(
    store: FeatureStore,
    teachers: Sequence[OpenTeacher],
    index: SampleIndex,
    *,
    prompts: Sequence[str] = (),
    live: Mapping[str, str] | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
    block_rows: int = BLOCK_ROWS,
    again: Mask | None = None,
    resume: bool = True,
) -> tuple[Extracted, ...]:
    """Store the signals of all samples that the teachers' columns lack, and features of ``prompts``.

    Training samples of ``live`` teachers are not stored. Generating teachers also answer calibration and test samples.

    May be interrupted at any time, even by kill -9. The next run resumes after the last committed block; with the same
    ``batch_size``, the files are byte for byte those of an uninterrupted run.

    Args:
        store: takes one column per teacher.
        teachers: their models are moved to their devices.
        index: all samples.
        prompts: texts to embed with every dual encoder.
        live: live teacher -> its device.
        batch_size: samples per call of a teacher, at most ``block_rows``.
        workers: threads that decode and preprocess; by default one per processor, at most 16.
        device: of the other teachers: ``cpu``, ``cuda``, ``cuda:1`` ...
        reporter: shows progress.
        block_rows: rows per commit.
        again: (N,) images to try again, from :func:`readable_again` by default.
        resume: finish interrupted shards; False for an index of a part of the samples, which lacks some of theirs.

    Raises:
        KdkitError: no such device; a full disk; an answer that a teacher refuses; NaN in a signal (naming the sample);
            unreadable images, once all others are stored, unless their data entry skips them.
    """
    reporter = reporter or Silent()
    live = live or {}
    devices = [
        usable_device(live[t.name], LIVE_FIX.format(t.name)) if t.name in live else usable_device(device)
        for t in teachers
    ]
    for teacher in teachers:
        for path in store.set_aside_damage(teacher.name):
            reporter.warn(f"{path} is damaged: renamed to {path.name}.damaged, and computed again")
    columns = [store.create(_header(teacher)) for teacher in teachers]
    again = readable_again(columns, index) if again is None else again
    for teacher, target in zip(teachers, devices, strict=True):
        if isinstance(teacher.model, nn.Module):
            teacher.model.to(target)
    kept = [int((column.locate(index) >= 0).sum()) for column in columns]
    new_prompts = [
        _embed_prompts(store, teacher, column, prompts, batch_size)
        for teacher, column in zip(teachers, columns, strict=True)
    ]
    plans = [_Plan(column, index, again, live=column.teacher in live, resume=resume) for column in columns]
    for teacher, plan in zip(teachers, plans, strict=True):
        require_accepted(teacher.name, teacher.model, index.samples.take(plan.samples))
    _check_space(store.root, plans)
    signals = [with_top_logprobs(teacher.signals, column) for teacher, column in zip(teachers, columns, strict=True)]
    for writers in _passes(plans, signals, min(batch_size, block_rows), block_rows):
        _run_pass(index, writers, batch_size, workers or min(16, usable_processors()), reporter)
    columns = [store.column(c.teacher, c.fingerprint) for c in columns]
    answers = [answer_missing(t, c, index, again, reporter) for t, c in zip(teachers, columns, strict=True)]
    columns = [store.column(c.teacher, c.fingerprint) for c in columns]
    done = tuple(_summary(*counts) for counts in zip(columns, repeat(index), kept, new_prompts, answers))
    report_unreadable(columns, index, reporter)
    return done


def _header(teacher: OpenTeacher) -> Header:
    return Header(teacher.name, teacher.fingerprint, dict(teacher.parts), tuple(teacher.signals.signals))


class _Plan:
    """What one column lacks: the pending blocks of unfinished shards, and the samples of a new shard."""

    def __init__(
        self, column: Column, index: SampleIndex, again: Mask, *, live: bool = False, resume: bool = True
    ) -> None:
        self.column = column
        unfinished = column.pending() if resume else []
        keyed = enumerate(zip(index.ids, index.digests.tolist(), strict=True)) if unfinished else ()
        position = {key: i for i, key in keyed}
        self.resume: list[tuple[Path, Indices]] = []
        wanted = index.answered(held_out=live) & bool(column.signals) & has_signals(column, index)
        absent = wanted & (column.locate(index) < 0)
        missing = absent & (again | ~column.unreadable(index))
        for shard, blocks in unfinished:
            keys = zip(shard.ids, shard.digests.tolist(), strict=True)
            samples = np.fromiter((position.get(key, -1) for key in keys), np.int64, len(shard))
            pending = np.isin(np.arange(len(shard)) // shard.block_rows, blocks)
            samples[~pending | ((samples >= 0) & ~absent[samples])] = -1
            missing[samples[samples >= 0]] = False
            self.resume.append((shard.path, samples))
        self.new: Indices = np.flatnonzero(missing).astype(np.int64)
        self._ids = [index.ids[i] for i in self.new]
        self._digests: NDArray[np.uint64] = index.digests[self.new]

    @property
    def samples(self) -> Indices:
        """All samples to compute, those of unfinished shards first."""
        return np.concatenate([*(samples[samples >= 0] for _, samples in self.resume), self.new])

    @property
    def new_bytes(self) -> int:
        return len(self.new) * (self.column.header.row_bytes + 64)

    def add_shard(self, block_rows: int) -> Path:
        """Make the shard of the new samples."""
        return self.column.add_shard(self._ids, self._digests, block_rows)


def _passes(
    plans: Sequence[_Plan], signals: Sequence[SignalSource], batch_size: int, block_rows: int
) -> Iterator[list[ShardWriter]]:
    """Groups of writers that share one pass over the images, because all take samples in ascending order.

    Unfinished shards come first. A shard whose samples are in another order now has a pass of its own.
    """
    ascending = []
    for plan, source in zip(plans, signals, strict=True):
        for path, samples in plan.resume:
            writer = ShardWriter(source, Shard(path, writable=True), samples, batch_size)
            if bool((np.diff(writer.wanted) > 0).all()):
                ascending.append(writer)
            else:
                yield [writer]
    yield ascending
    yield [
        ShardWriter(source, Shard(plan.add_shard(block_rows), writable=True), plan.new, batch_size)
        for plan, source in zip(plans, signals, strict=True)
        if len(plan.new)
    ]


def _run_pass(
    index: SampleIndex, writers: Sequence[ShardWriter], batch_size: int, workers: int, reporter: Reporter
) -> None:
    """Read each image that any of the writers wants, once."""
    todo = _takers(index, writers)
    work: list[Work] = [(sample, [writer.prepare for writer in takers]) for sample, takers in todo]
    started = time.monotonic()
    with closing(prefetch(work, workers, ahead=2 * batch_size)) as results:
        for done, ((sample, takers), result) in enumerate(zip(todo, results, strict=True), start=1):
            _write(sample, takers, result)
            if done % 16 == 0 or done == len(todo):
                reporter.progress("features", done, len(todo), _speed(done, len(todo), started))


def _takers(index: SampleIndex, writers: Sequence[ShardWriter]) -> list[tuple[Sample, Sequence[ShardWriter]]]:
    """Each wanted sample with its writers, ascending; a single writer keeps its own order."""
    if len(writers) == 1:
        return [(index.samples[i], writers) for i in writers[0].wanted]
    wanted = [writer.wanted for writer in writers]
    order = np.unique(np.concatenate([np.zeros(0, np.int64), *wanted]))
    members = [np.isin(order, want).tolist() for want in wanted]
    return [
        (index.samples[i], [writer for writer, here in zip(writers, flags, strict=True) if here])
        for i, *flags in zip(order, *members, strict=True)
    ]


def _write(sample: Sample, writers: Sequence[ShardWriter], result: Prepared) -> None:
    if isinstance(result, KdkitError):
        for writer in writers:
            writer.mark_unreadable()
    else:
        for writer, item in zip(writers, result, strict=True):
            writer.add(sample, item)


def _speed(done: int, total: int, started: float) -> str:
    rate = done / max(time.monotonic() - started, 1e-9)
    return f"{rate:.0f} images/s, {(total - done) / rate:.0f} s left"


def _embed_prompts(
    store: FeatureStore, teacher: OpenTeacher, column: Column, prompts: Sequence[str], batch_size: int
) -> int:
    new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in column.texts]
    if not new or not isinstance(teacher.model, TextEncoder):
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
            f"teacher '{teacher.name}' returned NaN or infinity for the text '{new[int(bad.argmax())]}'",
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
            f"the features need {format_size(needed)}, and {format_size(SPARE_BYTES)} must stay free; "
            f"the disk has {format_size(free)} free",
            where=str(folder),
            fix=f"free {format_size(needed + SPARE_BYTES - free)} and run the command again",
            code=ExitCode.MISSING,
        )


def usable_device(name: str, fix: str = "choose another by --device, for example --device cpu") -> torch.device:
    """The torch device ``name``, once a tensor was allocated on it.

    Raises:
        KdkitError: no tensor can be allocated on it; ``fix`` is the remedy.
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


def _summary(column: Column, index: SampleIndex, kept: int, prompts: int, answers: int) -> Extracted:
    found = int((column.locate(index) >= 0).sum())
    unreadable = int(column.unreadable(index).sum())
    return Extracted(column.teacher, column.fingerprint, found - kept, kept, unreadable, prompts, answers)
