"""Bringing columns up to date with the data, opening only the teachers that lack something; and what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.data.prompts import all_prompts, prompt_sets
from kdkit.core.features.extract.answers import asked, tells_texts, unanswered
from kdkit.core.features.extract.endpoint_answers import tellable
from kdkit.core.features.extract.live import live_devices, to_store
from kdkit.core.features.store.column import Column
from kdkit.core.features.store.header import TEXT
from kdkit.core.features.store.store import FeatureStore

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.extract.extraction import Extracted
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class ColumnStatus:
    """One column beside the data and the lock.

    Attributes:
        teacher, fingerprint: the column.
        current: whether the lock has the teacher under this fingerprint.
        signals: name -> shape and dtype, such as ``512 float16``.
        live: its teacher is asked about training samples while training; they are not counted here.
        domains: domain -> (samples with features, samples); empty where the data could not be read.
        unreadable: samples whose image could not be read.
        rows, texts: rows and prompts stored; ``shards`` and ``bytes`` on disk.
        answers: of a teacher that answers, (test and calibration samples answered, all of them); else None.
        complete: every readable sample has features, every answer is there, and nothing was interrupted.
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


def extract_missing(
    project: Project,
    table: SampleIndex,
    teachers: Sequence[str] = (),
    *,
    device: str = "cpu",
    batch_size: int = 64,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> tuple[Extracted, ...]:
    """Extract what the columns of ``teachers`` (by default all of the registry) lack, prompts included.

    Teachers that lack nothing are not opened and not in the result. Training samples of live teachers are not wanted.

    Raises:
        KdkitError: a teacher that the registry does not have or that is not locked; what
            :func:`kdkit.core.teachers.open_teacher` and :func:`kdkit.core.features.extract.extraction.extract` raise.
    """
    keys = _locked(project, teachers)
    live = {name: own or device for name, own in live_devices(project).items() if name in keys}
    if live:
        (reporter or Silent()).say(
            f"{', '.join(live)}: live; asked about training samples while training, nothing of these is stored"
        )
    store = FeatureStore(project.features)
    prompts = all_prompts(prompt_sets(project.registry, table))
    lacking = [n for n, key in keys.items() if missing(store, n, key, table, prompts, live=n in live)]
    if not lacking:
        return ()
    from kdkit.core.features.extract.extraction import extract
    from kdkit.core.teachers import open_teacher

    opened = [open_teacher(project, name, reporter=reporter) for name in lacking]
    return extract(
        project,
        opened,
        table,
        prompts=prompts,
        live=live,
        device=device,
        batch_size=batch_size,
        workers=workers,
        reporter=reporter,
    )


def missing(
    store: FeatureStore,
    teacher: str,
    fingerprint: str,
    table: SampleIndex,
    prompts: Sequence[str] = (),
    *,
    live: bool = False,
) -> int:
    """How many samples, prompts and answers the column of this (perhaps live) teacher and fingerprint lacks.

    An unreadable image counts unless its data entry skips it; prompts count where there is a ``text`` signal.
    """
    if all(header.fingerprint != fingerprint for header in store.headers(teacher)):
        return max(1, int(to_store(table, live=live).sum()) + len(prompts))
    column = store.column(teacher, fingerprint)
    texts = [spec.name for spec in column.signals].count(TEXT) and sum(p not in column.texts for p in prompts)
    return _lacking(column, table, live) + texts + unanswered(column, table)


def column_statuses(
    project: Project, table: SampleIndex | None, reporter: Reporter | None = None
) -> tuple[ColumnStatus, ...]:
    """Every column of the store; a damaged one is warned about and left out.

    Args:
        project: the project.
        table: its samples; None where they cannot be read.
        reporter: takes the warnings.
    """
    from kdkit.core.project.registry.lock import Lock

    locked = {name: facts.fingerprint for name, facts in Lock.load(project.lock_path).teachers.items()}
    store = FeatureStore(project.features)
    found = []
    for teacher in store.teachers:
        for header in store.headers(teacher):
            try:
                column = store.column(teacher, header.fingerprint)
            except KdkitError as error:
                (reporter or Silent()).warn(f"{error.headline} ({error.why})")
            else:
                current, live = locked.get(teacher) == header.fingerprint, teacher in project.registry.live
                found.append(_status(column, table, current, live))
    return tuple(found)


def verify_columns(
    project: Project, teachers: Sequence[str] = (), *, deep: bool = True, reporter: Reporter | None = None
) -> dict[str, list[str]]:
    """``teacher fingerprint`` -> what is wrong with the column, for all columns or those of ``teachers``.

    Raises:
        KdkitError: for a teacher without a column.
    """
    reporter = reporter or Silent()
    store = FeatureStore(project.features)
    for teacher in teachers:
        if not store.headers(teacher):
            store.column(teacher)  # says that there is none, and which there are
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


def _locked(project: Project, teachers: Sequence[str]) -> dict[str, str]:
    from kdkit.core.project.registry.lock import Lock

    chosen = tuple(project.registry.teachers)
    unknown = [name for name in teachers if name not in chosen]
    if unknown or not chosen:
        raise KdkitError(
            "KD-FEAT-008",
            f"no teacher '{unknown[0]}' in the registry" if unknown else "the registry has no teacher",
            where=str(project.registry_path),
            why=did_you_mean(unknown[0], chosen) if unknown else "",
            fix=f"kdkit add-teacher {unknown[0] if unknown else 'NAME'}",
            code=ExitCode.USAGE,
        )
    lock = Lock.load(project.lock_path)
    return {name: lock.teacher(name).fingerprint for name in teachers or chosen}


def _lacking(column: Column, table: SampleIndex, live: bool) -> int:
    if not column.signals:
        return 0
    wanted = to_store(table, live=live) & tellable(column, table) & ~(column.unreadable(table) & table.may_skip)
    return int(((column.locate(table) < 0) & wanted).sum())


def _status(column: Column, table: SampleIndex | None, current: bool, live: bool) -> ColumnStatus:
    domains: dict[str, tuple[int, int]] = {}
    unreadable = lacking = 0
    answers: tuple[int, int] | None = None
    if table is not None:
        if tells_texts(column.signals):
            answers = len(asked(table)) - unanswered(column, table), len(asked(table))
        here, counted = column.locate(table) >= 0, (to_store(table, live=live) | (not live)) & tellable(column, table)
        for i, domain in enumerate(table.domains):
            of_domain = (table.domain_index == i) & counted
            domains[domain] = (int((here & of_domain).sum()), int(of_domain.sum()))
        unreadable, lacking = int(column.unreadable(table).sum()), _lacking(column, table, live)
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
