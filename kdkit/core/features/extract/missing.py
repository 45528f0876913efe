"""What columns lack, and its extraction: only teachers that lack something are opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import TEXT, Reporter, Silent
from kdkit.core.data.prompts import all_prompts, prompt_sets
from kdkit.core.features.extract.answers import count_unanswered
from kdkit.core.features.extract.endpoint_answers import has_signals, only_own_answers
from kdkit.core.features.store.column import Column
from kdkit.core.features.store.store import FeatureStore

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.extract.extraction import Extracted
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.lock import Lock
    from kdkit.core.project.registry.schema import Registry


def extract_missing(
    project: Project,
    index: SampleIndex,
    teachers: Sequence[str] = (),
    *,
    device: str = "cpu",
    batch_size: int = 64,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> tuple[Extracted, ...]:
    """Extract what the columns of ``teachers`` (by default all of the registry) lack, prompts included.

    Teachers whose columns are complete are neither opened nor in the result.

    Raises:
        KdkitError: a teacher is not in the registry or not locked; errors of
            :func:`kdkit.core.teachers.open_teacher` and :func:`kdkit.core.features.extract.extraction.extract`.
    """
    keys = _locked_fingerprints(project.registry, project.lock, teachers)
    own = live_devices(project.registry, project.lock)
    live = {name: own[name] or device for name in own if name in keys}
    if live:
        (reporter or Silent()).say(
            f"{', '.join(live)}: live; training samples are computed during training, not stored"
        )
    store = FeatureStore(project.features)
    prompts = all_prompts(prompt_sets(project.registry, index))
    incomplete = [n for n, key in keys.items() if count_missing(store, n, key, index, prompts, live=n in live)]
    if not incomplete:
        return ()
    from kdkit.core.features.extract.extraction import extract
    from kdkit.core.teachers import open_teacher

    opened = [open_teacher(project, name, reporter=reporter) for name in incomplete]
    return extract(
        store,
        opened,
        index,
        prompts=prompts,
        live=live,
        device=device,
        batch_size=batch_size,
        workers=workers,
        reporter=reporter,
    )


def count_missing(
    store: FeatureStore,
    teacher: str,
    fingerprint: str,
    index: SampleIndex,
    prompts: Sequence[str] = (),
    *,
    live: bool = False,
) -> int:
    """Count the samples, prompts and answers that the column of this teacher and fingerprint lacks.

    An unreadable image counts unless its data entry skips it; prompts count if the column has a ``text`` signal.
    """
    if all(header.fingerprint != fingerprint for header in store.headers(teacher)):
        return max(1, int(index.answered(held_out=live).sum()) + len(prompts))
    column = store.column(teacher, fingerprint)
    texts = [spec.name for spec in column.signals].count(TEXT) and sum(p not in column.texts for p in prompts)
    return count_missing_rows(column, index, live=live) + texts + count_unanswered(column, index)


def count_missing_rows(column: Column, index: SampleIndex, *, live: bool) -> int:
    """Count the samples without a row in ``column``."""
    if not column.signals:
        return 0
    wanted = index.answered(held_out=live) & has_signals(column, index) & ~(column.unreadable(index) & index.may_skip)
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
    if teacher in registry.teachers and not (locked and locked.held_by_author):
        return f"'kdkit features extract {teacher}' adds them"
    return "only an author with its files adds them"


def _locked_fingerprints(registry: Registry, lock: Lock, teachers: Sequence[str]) -> dict[str, str]:
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
