"""What columns lack, and its extraction: only teachers that lack something are opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.journal import Journal
from kdkit.core.base.locks import wait_for_lock
from kdkit.core.contracts import SPLITS, TEXT, Reporter, Silent
from kdkit.core.data.names import name_some
from kdkit.core.data.prompts import project_prompts
from kdkit.core.features.extract.answers import ANSWERS, count_unanswered
from kdkit.core.features.extract.endpoint_answers import PSEUDO_LABELS, has_signals, only_own_answers
from kdkit.core.features.extract.memory_budget import default_budget, teachers_at_once
from kdkit.core.features.extract.unreadable import Mask, readable_again, report_unreadable
from kdkit.core.features.store.column import UNREADABLE_IMAGES, Column
from kdkit.core.features.store.header import import_command, is_damage
from kdkit.core.features.store.store import FeatureStore

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.extract.extraction import Extracted
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.lock import Lock
    from kdkit.core.project.registry.schema import Registry
    from kdkit.core.teachers import OpenTeacher


UNREADABLE_ERROR = "KD-FEAT-005"
_PASSING = ("KD-FEAT-003", "KD-FEAT-005", "KD-FEAT-013", "KD-PROJ-002", "KD-BASE-002")
"""Errors of an extraction after which trust can be measured from stored features."""


def extract_missing(
    project: Project,
    index: SampleIndex,
    teachers: Sequence[str] = (),
    *,
    further_prompts: Sequence[str] = (),
    device: str = "cpu",
    batch_size: int = 64,
    workers: int | None = None,
    memory: int | None = None,
    shared: bool = False,
    reporter: Reporter | None = None,
) -> tuple[Extracted, ...]:
    """Extract what the columns of ``teachers`` (by default all of the registry) lack, prompts included.

    Teachers whose columns are complete are neither opened nor in the result. Damaged blocks and files are computed
    again, and images that could not be read are tried again.

    Args:
        further_prompts: beside those of the project.
        device, batch_size, workers, shared: as of :func:`kdkit.core.features.extract.extraction.extract`.
        memory: bytes for the models of one pass over the images; by default 80 % of what is free on the device.

    Raises:
        KdkitError: a teacher is not in the registry or not locked; errors of
            :func:`kdkit.core.teachers.open_teacher` and :func:`kdkit.core.features.extract.extraction.extract`.
    """
    keys, reporter = locked_fingerprints(project.registry, project.lock, teachers), reporter or Silent()
    own = live_devices(project.registry, project.lock)
    live = {name: own[name] or device for name in own if name in keys}
    if live:
        reporter.say(f"{', '.join(live)}: live; training samples are computed during training, not stored")
    store = FeatureStore(project.features)
    prompts = (*project_prompts(project.registry, index), *further_prompts)
    missing = find_missing(store, keys, index, prompts, live=live, reporter=reporter)
    missing = without_imported(missing, project.lock, index, prompts, reporter)
    if not missing.counts:
        report_unreadable(missing.columns, index, reporter)
        return ()
    from kdkit.core.features.extract.extraction import extract, usable_device

    memory = default_budget(usable_device(device)) if memory is None else memory
    done: list[Extracted] = []
    unreadable: KdkitError | None = None
    for names in teachers_at_once(list(missing.counts), project.lock, memory, reporter):
        opened = _open_all(project, names, reporter)
        try:
            done += extract(
                store,
                opened,
                index,
                prompts=prompts,
                live=live,
                device=device,
                batch_size=batch_size,
                workers=workers,
                reporter=reporter,
                again=missing.again,
                shared=shared,
            )
        except KdkitError as error:
            if error.id != UNREADABLE_ERROR:
                raise
            unreadable = error  # the other teachers' features are stored first
        finally:
            del opened  # before the next group is loaded
    if unreadable is not None:
        raise unreadable
    return tuple(done)


def _open_all(project: Project, names: Sequence[str], reporter: Reporter) -> list[OpenTeacher]:
    """Open teachers; of several processes, one at a time fetches files that are not here."""
    from kdkit.core.teachers import open_teacher
    from kdkit.core.teachers.open import materialize

    absent = [name for name in names if not (project.artifacts / name).is_dir()]
    if absent:
        project.state.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(project.state / "fetching.busy"):
            for name in absent:
                if name in project.lock.teachers and not (project.artifacts / name).is_dir():
                    materialize(project, name, reporter=reporter)
    return [open_teacher(project, name, reporter=reporter) for name in names]


def extract_calibration(project: Project, index: SampleIndex, *, device: str, reporter: Reporter) -> None:
    """Extract what the columns of the locked teachers lack of the calibration split.

    Warnings, after which trust is measured from what the columns hold: a teacher that cannot be opened, unreadable
    images, another command that writes, a full or read-only disk.

    Raises:
        KdkitError: as :func:`extract_missing`.
    """
    _extract_part(project, index, index.select(split="calibration"), "kdkit trust", device, reporter)


def extract_held_out(project: Project, index: SampleIndex, *, device: str, reporter: Reporter) -> None:
    """As :func:`extract_calibration`, of the calibration and test splits: for an evaluation on other data."""
    rows = np.flatnonzero(index.split_index != SPLITS.index("train"))
    _extract_part(project, index, rows, "kdkit evaluate", device, reporter)


def _extract_part(
    project: Project, index: SampleIndex, rows: NDArray[np.int64], command: str, device: str, reporter: Reporter
) -> None:
    keys = {
        name: project.lock.teacher(name).fingerprint
        for name in project.registry.teachers
        if name in project.lock.teachers
    }
    store, part = FeatureStore(project.features), index.part(rows)
    prompts = project_prompts(project.registry, index)
    missing = find_missing(store, keys, part, prompts, reporter=reporter)
    missing = without_imported(missing, project.lock, part, prompts, reporter, refuse=False)
    opened = [teacher for name in missing.counts if (teacher := _open_or_warn(project, name, reporter))]
    try:
        if opened:
            from kdkit.core.features.extract.extraction import extract

            with project.exclusive(command):
                names, splits = (
                    ", ".join(teacher.name for teacher in opened),
                    " and ".join(np.array(SPLITS)[np.unique(part.split_index)].tolist()),
                )
                reporter.say(f"extracting the features of {len(part)} {splits} samples: {names}")
                live = {name: own or device for name, own in live_devices(project.registry, project.lock).items()}
                extract(
                    store, opened, part, prompts=prompts, live=live, device=device, reporter=reporter,
                    again=missing.again, resume=False,
                )  # fmt: skip
        report_unreadable(missing.columns, part, reporter)
    except KdkitError as error:
        if error.id not in _PASSING:
            raise
        reporter.warn(f"{error.headline}: only stored features are used")


def _open_or_warn(project: Project, name: str, reporter: Reporter) -> OpenTeacher | None:
    from kdkit.core.teachers import open_teacher

    try:
        return open_teacher(project, name, reporter=reporter)
    except KdkitError as error:
        if error.code not in (ExitCode.MISSING, ExitCode.DENIED):
            raise
        reporter.warn(f"teacher '{name}' cannot be opened ({error.headline}): only stored features are used")
        return None


@dataclass(frozen=True)
class Missing:
    """What columns lack.

    Attributes:
        counts: teacher -> missing samples, prompts and answers, where there are any.
        columns: those that can be read.
        again: (N,) images that an earlier extraction could not read and that can be read now.
    """

    counts: Mapping[str, int]
    columns: tuple[Column, ...]
    again: Mask


def find_missing(
    store: FeatureStore,
    fingerprints: Mapping[str, str],
    index: SampleIndex,
    prompts: Sequence[str] = (),
    *,
    live: Collection[str] = (),
    check: bool = True,
    reporter: Reporter | None = None,
) -> Missing:
    """Count the samples, prompts and answers that the columns lack; damaged blocks count as missing.

    An unreadable image counts unless its data entry skips it; prompts count if the column has a ``text`` signal.

    Args:
        fingerprints: teacher -> fingerprint of its column.
        live: teachers whose columns need no training samples.
        check: compare all blocks with their checksums; without it, those that are gathered are.
        reporter: receives a warning for every damaged column.
    """
    reporter = reporter or Silent()
    columns: dict[str, Column] = {}
    for name, fingerprint in fingerprints.items():
        try:
            if any(header.fingerprint == fingerprint for header in store.headers(name)):
                column = store.column(name, fingerprint)
                columns[name] = _checked(column, index, reporter) if check else column
        except KdkitError as error:
            if not is_damage(error):
                raise
            reporter.warn(f"features of '{name}': {error.headline} ({error.why})")
    again = readable_again(columns.values(), index)
    counts = {name: max(1, int(index.answered(held_out=name in live).sum()) + len(prompts)) for name in fingerprints}
    for name, column in columns.items():
        texts = [spec.name for spec in column.signals].count(TEXT) and sum(p not in column.texts for p in prompts)
        rows = count_missing_rows(column, index, again, live=name in live)
        counts[name] = rows + texts + count_unanswered(column, index, again)
    return Missing({name: count for name, count in counts.items() if count}, tuple(columns.values()), again)


def without_imported(
    missing: Missing, lock: Lock, index: SampleIndex, prompts: Sequence[str], reporter: Reporter, *, refuse: bool = True
) -> Missing:
    """``missing`` without teachers whose features were imported: they compute nothing. A warning says what they lack.

    Args:
        refuse: an imported column that is gone is an error instead of a warning.

    Raises:
        KdkitError: an imported column is gone.
    """
    columns = {column.teacher: column for column in missing.columns}
    for name in (name for name in missing.counts if lock.teacher(name).imported):
        again = import_hint(name)
        if name not in columns:
            gone = KdkitError(
                "KD-FEAT-033",
                f"the imported features of '{name}' are not in the store",
                why="they were removed, or their import was interrupted",
                fix=f"kdkit features import {name} --from PATH",
                code=ExitCode.MISSING,
            )
            if refuse:
                raise gone
            reporter.warn(f"{gone.what}; {gone.fix}")
            continue
        column = columns[name]
        lacking = (column.locate(index) < 0) & index.answered(held_out=False)
        if count := int(lacking.sum()):
            names = name_some(f"'{index.ids[row]}'" for row in np.flatnonzero(lacking))
            splits = Counter(SPLITS[number] for number in index.split_index[lacking])
            counted = ", ".join(f"{number} {split}" for split, number in splits.items())
            reporter.warn(
                f"teacher '{name}' was imported and cannot compute features: {count} of {len(index)} samples have none "
                f"({counted}), such as {names}; {again}"
            )
        if any(spec.name == TEXT for spec in column.signals) and any(text not in column.texts for text in prompts):
            reporter.warn(
                f"teacher '{name}' was imported without features of the prompts, so its trust cannot be measured by "
                f"zero-shot classification; 'kdkit features import {name} --from PATH --prompts FILE' adds them "
                "(PATH: the same files as before)"
            )
    counts = {name: count for name, count in missing.counts.items() if not lock.teacher(name).imported}
    return replace(missing, counts=counts)


def _checked(column: Column, index: SampleIndex, reporter: Reporter) -> Column:
    """The column, with the blocks of all samples compared with their checksums.

    Raises:
        KdkitError: its prompts or a journal are damaged.
    """
    rows = column.locate(index)
    if damage := column.check(rows[rows >= 0]):
        reporter.warn(f"features of '{column.teacher}' are damaged and not used: {name_some(damage)}")
    _ = column.texts
    for name in (ANSWERS, PSEUDO_LABELS, UNREADABLE_IMAGES):
        Journal(column.folder / name).read_all()
    return column


def count_missing_rows(column: Column, index: SampleIndex, again: Mask | None = None, *, live: bool) -> int:
    """Count the samples without a row in ``column``; those of ``again`` also where their data entry skips them."""
    if not column.signals:
        return 0
    skipped = column.unreadable(index) & index.may_skip
    if again is not None:
        skipped &= ~again
    wanted = index.answered(held_out=live) & has_signals(column, index) & ~skipped
    return int(((column.locate(index) < 0) & wanted).sum())


def live_devices(registry: Registry, lock: Lock) -> dict[str, str | None]:
    """Live teacher of the registry -> the device in its entry, if any.

    Raises:
        KdkitError: a live teacher gives no signals, or only of its own answers.
    """
    for name in registry.live:
        if name not in lock.teachers:
            continue
        silent, own = not lock.teacher(name).signals, only_own_answers(lock.teacher(name).identity)
        if silent or own:
            raise KdkitError(
                "KD-FEAT-006",
                f"teacher '{name}' cannot be live: it gives "
                + ("answers but no signals" if silent else "signals of its own answers only"),
                where="registry.yaml",
                fix="remove 'signals: live' from its entry, and let it label data with 'kdkit pseudo-label'",
            )
    return {name: registry.teachers[name].device for name in registry.live}


def extraction_hint(registry: Registry, lock: Lock, teacher: str) -> str:
    """How missing features of ``teacher`` can be added, for messages: ``... adds them``."""
    locked = lock.teachers.get(teacher)
    if teacher in registry.teachers and locked and locked.imported:
        return import_hint(teacher)
    if teacher in registry.teachers and not (locked and locked.held_by_author):
        return f"'kdkit features extract {teacher}' adds them"
    return "only an author with its files adds them"


def import_hint(teacher: str) -> str:
    """How features of an imported teacher are added, for messages: ``... adds them``."""
    return f"'{import_command(teacher)}' adds them (PATH: files with all features, old and new)"


def locked_fingerprints(registry: Registry, lock: Lock, teachers: Sequence[str]) -> dict[str, str]:
    chosen = tuple(registry.teachers)
    unknown = [name for name in teachers if name not in chosen]
    if unknown or not chosen:
        raise KdkitError(
            "KD-FEAT-008",
            f"no teacher '{unknown[0]}' in the registry" if unknown else "the registry has no teacher",
            where="registry.yaml",
            why=did_you_mean(unknown[0], chosen) if unknown else "",
            fix=f"kdkit add-teacher {unknown[0] if unknown else 'NAME'}",
            code=ExitCode.USAGE,
        )
    return {name: lock.teacher(name).fingerprint for name in teachers or chosen}
