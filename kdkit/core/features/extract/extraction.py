"""Extraction: decodes each image once, preprocesses it for every teacher that lacks it, and stores the signals."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import nn

import kdkit
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.result import format_size
from kdkit.core.base.threads import usable_processors
from kdkit.core.contracts import Answering, Reporter, SignalSource, Silent
from kdkit.core.data.index import SampleIndex
from kdkit.core.features.extract.answers import answer_missing
from kdkit.core.features.extract.canary import require_same_models
from kdkit.core.features.extract.claims import Claims
from kdkit.core.features.extract.column_plan import ColumnPlan
from kdkit.core.features.extract.endpoint_answers import with_top_logprobs
from kdkit.core.features.extract.passes import run_pass, samples_of, wanted_by
from kdkit.core.features.extract.prompt_features import embed_prompts
from kdkit.core.features.extract.refusals import require_accepted
from kdkit.core.features.extract.shard_writer import ShardWriter
from kdkit.core.features.extract.shared import (
    FOLDER,
    BeatingReporter,
    PendingBlock,
    SharedExtraction,
    alone,
    samples_digest,
)
from kdkit.core.features.extract.unreadable import Mask, readable_again, report_unreadable
from kdkit.core.features.extract.workers import Workers
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
    shared: bool = False,
    run: str = "",
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
        shared: other processes may do the same at the same time. Each computes what no other one has claimed, and
            returns when all is stored; counts of rows include theirs.
        run: with ``shared``: names the training run whose process this is; it ends when another one of that run has
            ended early.

    Raises:
        KdkitError: no such device; a full disk; an answer that a teacher refuses; NaN in a signal (naming the sample);
            unreadable images, once all others are stored, unless their data entry skips them; a ``shared`` worker with
            other samples, batch size or fingerprints; another process of ``run`` that has ended early.
    """
    reporter, live = reporter or Silent(), live or {}
    threads = workers or min(16, usable_processors())
    _place_models(teachers, live, device)
    with ExitStack() as stack:
        claims: Claims | None = None
        if shared:
            claims = stack.enter_context(_joined(store, teachers, index, batch_size, reporter, run))
        with claims.workers.planning() if claims else nullcontext():
            begun = _begin(store, teachers, index, prompts, live, batch_size, again, resume, reporter)
            blocks = begun.blocks(block_rows) if claims else []
        if claims:
            reporter = BeatingReporter(reporter, claims)
            SharedExtraction(index, blocks, claims, min(batch_size, block_rows), reporter).run(threads)
        else:
            for writers in _passes(begun.plans, begun.signals, min(batch_size, block_rows), block_rows):
                _run_pass(index, writers, batch_size, threads, reporter)
        columns = store.reopened(begun.columns)
        answers = [
            _answer(teacher, column, index, begun.again, reporter, claims)
            for teacher, column in zip(teachers, columns, strict=True)
        ]
    computed = [len(plan.samples) + count for plan, count in zip(begun.plans, answers, strict=True)]
    require_same_models([teacher.model for teacher in teachers], columns, computed)
    columns = store.reopened(columns)
    done = tuple(_summary(*counts) for counts in zip(columns, repeat(index), begun.kept, begun.new_prompts, answers))
    report_unreadable(columns, index, reporter)
    return done


@contextmanager
def _joined(
    store: FeatureStore,
    teachers: Sequence[OpenTeacher],
    index: SampleIndex,
    batch_size: int,
    reporter: Reporter,
    run: str,
) -> Iterator[Claims]:
    """This process among the workers of the store."""
    settings = {
        "version of kdkit": kdkit.__version__,
        "batch size": str(batch_size),
        "set of samples": f"{len(index)} with digest {samples_digest(index)}",
        **{f"fingerprint of teacher '{teacher.name}'": teacher.fingerprint[:12] for teacher in teachers},
    }
    with Workers(store.root / FOLDER, settings, run=run) as workers:
        yield Claims(workers, reporter)


def _place_models(teachers: Sequence[OpenTeacher], live: Mapping[str, str], device: str) -> None:
    """Move each model to its device, once all devices are known to work."""
    devices = [
        usable_device(live[t.name], LIVE_FIX.format(t.name)) if t.name in live else usable_device(device)
        for t in teachers
    ]
    for teacher, target in zip(teachers, devices, strict=True):
        if isinstance(teacher.model, nn.Module):
            teacher.model.to(target)


@dataclass(frozen=True)
class _Begun:
    """An extraction before its first block, by teacher."""

    columns: Sequence[Column]
    signals: Sequence[SignalSource]
    plans: Sequence[ColumnPlan]
    again: Mask
    kept: Sequence[int]
    new_prompts: Sequence[int]

    def blocks(self, block_rows: int) -> list[PendingBlock]:
        """All pending blocks, those of new shards too, which this makes."""
        found = []
        for plan, source in zip(self.plans, self.signals, strict=True):
            new = [(plan.add_shard(block_rows), plan.new)] if len(plan.new) else []
            for path, samples in [*plan.resume, *new]:
                shard = Shard(path, writable=True)
                found += [PendingBlock(source, shard, block, samples) for block in shard.pending()]
        return found


def _begin(
    store: FeatureStore,
    teachers: Sequence[OpenTeacher],
    index: SampleIndex,
    prompts: Sequence[str],
    live: Mapping[str, str],
    batch_size: int,
    again: Mask | None,
    resume: bool,
    reporter: Reporter,
) -> _Begun:
    """Make the columns, set damage aside, embed the prompts, and find what is missing."""
    for teacher in teachers:
        for path in store.set_aside_damage(teacher.name):
            reporter.warn(f"{path} is damaged: renamed to {path.name}.damaged, and computed again")
    for column in [store.create(_header(teacher)) for teacher in teachers]:
        column.discard_damage()
    columns = [store.column(teacher.name, teacher.fingerprint) for teacher in teachers]
    again = readable_again(columns, index) if again is None else again
    kept = [int((column.locate(index) >= 0).sum()) for column in columns]
    new_prompts = [
        embed_prompts(store, teacher, column, prompts, batch_size)
        for teacher, column in zip(teachers, columns, strict=True)
    ]
    plans = [ColumnPlan(column, index, again, live=column.teacher in live, resume=resume) for column in columns]
    for teacher, plan in zip(teachers, plans, strict=True):
        require_accepted(teacher.name, teacher.model, index.samples.take(plan.samples))
    _check_space(store.root, plans)
    models = [teacher.model for teacher in teachers]
    require_same_models(models, columns, [len(plan.samples) for plan in plans])
    signals = [with_top_logprobs(teacher.signals, column) for teacher, column in zip(teachers, columns, strict=True)]
    return _Begun(columns, signals, plans, again, kept, new_prompts)


def _answer(
    teacher: OpenTeacher, column: Column, index: SampleIndex, again: Mask, reporter: Reporter, claims: Claims | None
) -> int:
    """Let a generating teacher answer; one worker at a time, so that the journal has the order of one process."""
    if claims is None or not isinstance(teacher.model, Answering):
        return answer_missing(teacher, column, index, again, reporter)
    with alone(claims, f"answers-{teacher.name}-{column.folder.name}"):
        return answer_missing(teacher, column, index, again, reporter)


def _header(teacher: OpenTeacher) -> Header:
    return Header(teacher.name, teacher.fingerprint, dict(teacher.parts), tuple(teacher.signals.signals))


def _passes(
    plans: Sequence[ColumnPlan], signals: Sequence[SignalSource], batch_size: int, block_rows: int
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
    index: SampleIndex, writers: Sequence[ShardWriter], batch_size: int, threads: int, reporter: Reporter
) -> None:
    """Read each image that any of the writers wants, once."""
    total, started = len(wanted_by(writers)), time.monotonic()
    for done, _ in enumerate(run_pass(samples_of(index, writers), batch_size, threads), start=1):
        if done % 16 == 0 or done == total:
            reporter.progress("features", done, total, _speed(done, total, started))


def _speed(done: int, total: int, started: float) -> str:
    rate = done / max(time.monotonic() - started, 1e-9)
    return f"{rate:.0f} images/s, {(total - done) / rate:.0f} s left"


def _check_space(folder: Path, plans: Sequence[ColumnPlan]) -> None:
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


def device_of_rank(name: str) -> str:
    """``cuda`` as the GPU of this process, where ``torchrun`` started one process per GPU; other names as they are."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and "LOCAL_RANK" in os.environ else name


def _summary(column: Column, index: SampleIndex, kept: int, prompts: int, answers: int) -> Extracted:
    found = int((column.locate(index) >= 0).sum())
    unreadable = int(column.unreadable(index).sum())
    return Extracted(column.teacher, column.fingerprint, found - kept, kept, unreadable, prompts, answers)
