"""Columns of the store compared with the data and the lock, and their integrity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.features.extract.answers import answers_texts, count_unanswered, rows_to_answer
from kdkit.core.features.extract.endpoint_answers import has_signals
from kdkit.core.features.extract.missing import count_missing_rows
from kdkit.core.features.store.column import Column
from kdkit.core.features.store.store import FeatureStore

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
        complete: every readable sample has features, no answer is missing, and no block is pending.
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


def column_statuses(
    project: Project, index: SampleIndex | None, reporter: Reporter | None = None
) -> tuple[ColumnStatus, ...]:
    """The status of every column of the store; a damaged one becomes a warning.

    Args:
        project: the project.
        index: its samples; None if they cannot be read.
        reporter: receives the warnings.
    """

    locked = {name: facts.fingerprint for name, facts in project.lock.teachers.items()}
    store = FeatureStore(project.features)
    found = []
    for teacher in store.teachers:
        for header in store.headers(teacher):
            try:
                column = store.column(teacher, header.fingerprint)
                current, live = locked.get(teacher) == header.fingerprint, teacher in project.registry.live
                found.append(_status(column, index, current=current, live=live))
            except KdkitError as error:
                (reporter or Silent()).warn(f"{error.headline} ({error.why})")
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
        if not store.headers(teacher):
            store.column(teacher)  # raises, naming the teachers that have one
    headers = [header for teacher in teachers or store.teachers for header in store.headers(teacher)]
    problems = {}
    for done, header in enumerate(headers, start=1):
        try:
            found = store.column(header.teacher, header.fingerprint).verify(deep)
        except KdkitError as error:
            found = [f"{error.headline} ({error.why})"]
        problems[f"{header.teacher} {header.fingerprint[:12]}"] = found
        reporter.progress("verifying", done, len(headers), header.teacher)
    return problems


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
