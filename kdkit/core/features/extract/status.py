"""Columns of the store compared with the data and the lock, and their integrity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.features.extract.answers import answers_texts, count_unanswered, rows_to_answer
from kdkit.core.features.extract.endpoint_answers import has_signals
from kdkit.core.features.extract.missing import count_missing_rows
from kdkit.core.features.store.column import Column
from kdkit.core.features.store.store import HEADER, PREFIX, FeatureStore, damaged_files, read_header

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class ColumnStatus:
    """One column compared with the data and the lock.

    Attributes:
        teacher, fingerprint: the column.
        current: whether the lock has this fingerprint.
        signals: name -> shape and dtype, such as ``512 float16``.
        live: a live teacher, whose training samples are not counted here.
        domains: domain -> (samples with features, samples); empty if the data could not be read.
        unreadable: samples whose image could not be read.
        rows, texts: rows and prompts stored; ``shards`` and ``bytes`` on disk.
        answers: (calibration and test samples answered, all of them); None for a teacher that gives no answers.
        complete: every readable sample has features, no answer is missing, and no block is pending. Structure and
            sizes of the files are checked, checksums of blocks are not: see :func:`verify_columns`.
        damage: why the column cannot be read; then nothing of it is counted. Empty if it can.
    """

    teacher: str
    fingerprint: str
    current: bool
    live: bool
    signals: Mapping[str, str]
    domains: Mapping[str, tuple[int, int]]
    unreadable: int
    rows: int
    texts: int
    shards: int
    bytes: int
    answers: tuple[int, int] | None
    complete: bool
    damage: str = ""


def column_statuses(
    project: Project, index: SampleIndex | None, reporter: Reporter | None = None
) -> tuple[ColumnStatus, ...]:
    """The status of every column of the store.

    Args:
        project: the project.
        index: its samples; None if they cannot be read.
        reporter: receives a warning for every damaged column.
    """
    locked = {name: facts.fingerprint for name, facts in project.lock.teachers.items()}
    store = FeatureStore(project.features)
    found = []
    for teacher in store.teachers:
        key, live = locked.get(teacher, ""), teacher in project.registry.live
        for folder in sorted(store.folders(teacher), key=lambda path: path.name != key[:PREFIX]):
            current = folder.name == key[:PREFIX]
            try:
                column = Column(folder, read_header(folder / HEADER))
                found.append(_status(column, index, current=current, live=live))
            except KdkitError as error:
                (reporter or Silent()).warn(f"{error.headline} ({error.why})")
                found.append(_damaged(teacher, folder.name, error, current=current, live=live))
    return tuple(found)


def verify_columns(
    project: Project, teachers: Sequence[str] = (), *, deep: bool = True, reporter: Reporter | None = None
) -> dict[str, list[str]]:
    """``teacher fingerprint`` -> problems of the column, for all columns or those of ``teachers``.

    Raises:
        KdkitError: a teacher has no column.
    """
    reporter = reporter or Silent()
    store = FeatureStore(project.features)
    for teacher in teachers:
        if not store.folders(teacher):
            store.column(teacher)  # raises, naming the teachers that have one
    folders = [folder for teacher in teachers or store.teachers for folder in store.folders(teacher)]
    problems = {}
    for done, folder in enumerate(folders, start=1):
        teacher = folder.parent.name
        problems[f"{teacher} {folder.name}"] = _problems(folder, deep)
        reporter.progress("verifying", done, len(folders), teacher)
    return problems


def _problems(folder: Path, deep: bool) -> list[str]:
    """Files of a column that cannot be read, or else its damaged blocks."""
    try:
        errors = list(damaged_files(folder).values())
        if not errors:
            return Column(folder, read_header(folder / HEADER)).verify(deep)
    except KdkitError as error:
        errors = [error]
    return [f"{error.headline} ({error.why})" for error in errors]


def _damaged(teacher: str, fingerprint: str, error: KdkitError, *, current: bool, live: bool) -> ColumnStatus:
    return ColumnStatus(
        teacher=teacher,
        fingerprint=fingerprint,
        current=current,
        live=live,
        signals={},
        domains={},
        unreadable=0,
        rows=0,
        texts=0,
        shards=0,
        bytes=0,
        answers=None,
        complete=False,
        damage=error.headline,
    )


def _status(column: Column, index: SampleIndex | None, *, current: bool, live: bool) -> ColumnStatus:
    domains: dict[str, tuple[int, int]] = {}
    unreadable = lacking = 0
    answers: tuple[int, int] | None = None
    if index is not None:
        if answers_texts(column.signals):
            wanted = len(rows_to_answer(index, column))
            answers = wanted - count_unanswered(column, index), wanted
        here, counted = (
            column.locate(index) >= 0,
            (index.answered(held_out=live) | (not live)) & has_signals(column, index),
        )
        for i, domain in enumerate(index.domains):
            of_domain = (index.domain_index == i) & counted
            domains[domain] = (int((here & of_domain).sum()), int(of_domain.sum()))
        unreadable, lacking = int(column.unreadable(index).sum()), count_missing_rows(column, index, live=live)
    return ColumnStatus(
        teacher=column.teacher,
        fingerprint=column.fingerprint,
        current=current,
        live=live,
        signals={s.name: f"{'x'.join(str(n) for n in s.shape)} {s.dtype}" for s in column.signals},
        domains=domains,
        unreadable=unreadable,
        rows=int(column.present.sum()),
        texts=len(column.texts),
        shards=len(column.shards),
        bytes=column.nbytes,
        answers=answers,
        complete=(column.complete or live) and lacking == 0 and (answers is None or answers[0] == answers[1]),
    )
