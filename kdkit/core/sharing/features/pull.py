"""Columns of a data set repository into the project's store, verified."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.hub import Hub, connect
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.features.store.column import Column
from kdkit.core.features.store.header import Header
from kdkit.core.features.store.store import PREFIX, FeatureStore
from kdkit.core.project.registry.lock import FileFact, Lock
from kdkit.core.sharing.features.card import RECORD, STORE, FeaturesRecord, SharedColumn
from kdkit.core.sharing.hub import download
from kdkit.core.teachers.open import fingerprint_parts

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

STAGING = "features-pulled"


@dataclass(frozen=True)
class PulledColumn:
    """A column that a pull added.

    Attributes:
        teacher, fingerprint: the column.
        rows: added rows with features.
        here: shards that the project already had.
        texts: added prompts.
    """

    teacher: str
    fingerprint: str
    rows: int
    here: int
    texts: int


def pull_features(
    project: Project,
    repo: str,
    teachers: Sequence[str] = (),
    *,
    revision: str = "main",
    hub: Hub | None = None,
    reporter: Reporter | None = None,
) -> tuple[PulledColumn, ...]:
    """Add columns of the data set repository ``repo`` to the project's.

    Shards are appended to the project's; none is replaced, and identical ones are not fetched. An interrupted pull
    resumes.

    Args:
        teachers: by default all of the repository that the project's lock has too.
        revision: branch, tag or commit.
        hub: by default :func:`kdkit.core.sharing.hub.connect`.

    Raises:
        KdkitError: a teacher that is not locked, or locked with another fingerprint; a file that is missing, not
            listed or changed; a damaged shard. Nothing is added then. As :func:`kdkit.core.sharing.hub.download`.
    """

    hub, reporter = hub or connect(), reporter or Silent()
    with system_errors(str(project.root)), _staging(project, repo) as staging:
        there = list[str]()

        def record_alone(paths: Iterable[str]) -> list[str]:
            there.extend(paths)
            return [path for path in there if path == RECORD]

        first = download(hub, repo, "dataset", revision, staging / "record", select=record_alone, reporter=reporter)
        record = FeaturesRecord.load(first.folder / RECORD, repo)
        wanted = _wanted(project, repo, record, teachers)
        listed = _listed(repo, record, wanted, there)
        known = _hashes(project, wanted, listed)
        fetch = sorted(path for path, facts in listed.items() if facts.sha256 not in known)
        got = download(hub, repo, "dataset", first.commit, staging / "files", select=lambda _: fetch, reporter=reporter)
        for path, found in got.files.items():
            expected = listed[path].sha256 if path in listed else "none"
            if found != expected:
                raise _tampered(repo, f"'{path}' was changed", f"{RECORD} has sha256 {expected}, the file has {found}")
        columns = [_verified(got.folder, name, facts, reporter) for name, facts in wanted.items()]
        left = {name: [p for p in listed if p not in fetch and _of(name, facts, p)] for name, facts in wanted.items()}
        return tuple(_adopt(project, column, len(left[column.teacher])) for column in columns)


@contextmanager
def _staging(project: Project, repo: str) -> Iterator[Path]:
    """Staging folder; an interrupted download stays there for the next run."""
    folder = project.state / STAGING / repo.replace("/", "--")
    arrived = [folder / "record", folder / "files"]
    try:
        for path in arrived:
            shutil.rmtree(path, ignore_errors=True)
        yield folder
    except BaseException:
        for path in arrived:
            shutil.rmtree(path, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _wanted(project: Project, repo: str, record: FeaturesRecord, teachers: Sequence[str]) -> dict[str, SharedColumn]:
    """Teacher -> its column, of the fingerprint that the lock has."""
    lock = project.lock
    for name in teachers:
        if name not in record.columns:
            why = did_you_mean(name, tuple(record.columns))
            raise KdkitError(
                "KD-SHARE-004",
                f"no features of '{name}'",
                where=repo,
                why=why,
                code=ExitCode.MISSING,
                fix="name one that it has, or none for all",
            )
    names = tuple(dict.fromkeys(teachers)) or tuple(name for name in record.columns if name in lock.teachers)
    if not names:
        raise KdkitError(
            "KD-SHARE-005",
            "none of its teachers is one of this project's",
            where=repo,
            why=f"it has {', '.join(record.columns)}; registry.lock has {', '.join(lock.teachers) or 'none'}",
            fix="kdkit add-teacher NAME",
            code=ExitCode.MISSING,
        )
    for name in names:
        _require_same(repo, name, record.columns[name], lock)
    return {name: record.columns[name] for name in names}


def _require_same(repo: str, name: str, column: SharedColumn, lock: Lock) -> None:
    """The fingerprint of the column must be the locked one."""
    facts = lock.teacher(name)
    if facts.fingerprint == column.fingerprint:
        return
    parts = fingerprint_parts(facts.files, facts.loader, facts.options, facts.identity)
    differences = Header(name, column.fingerprint, column.parts, ()).differences(parts)
    raise KdkitError(
        "KD-SHARE-006",
        f"these are features of another '{name}'",
        where=repo,
        why=f"fingerprint {column.fingerprint[:PREFIX]} there, {facts.fingerprint[:PREFIX]} in registry.lock ("
        f"{differences or 'the files differ'}); its source there: {column.source}"
        + (f" at {column.commit}" if column.commit else ""),
        fix=f"lock the same state of it: from: {column.source}" + (f"@{column.commit}" if column.commit else ""),
        code=ExitCode.FOUND,
    )


def _of(name: str, column: SharedColumn, path: str) -> bool:
    return path.startswith(f"{STORE}/{name}/{column.fingerprint[:PREFIX]}/")


def _listed(
    repo: str, record: FeaturesRecord, wanted: Mapping[str, SharedColumn], there: Sequence[str]
) -> dict[str, FileFact]:
    """Files of the wanted columns, as the record has them; others in the repository are not fetched.

    Raises:
        KdkitError: the repository lacks one that the record lists.
    """
    missing = sorted(record.files.keys() - set(there))
    if missing:
        raise _tampered(repo, f"'{missing[0]}' is missing", f"{RECORD} lists it")
    return {
        path: facts
        for path, facts in record.files.items()
        if any(_of(name, column, path) for name, column in wanted.items())
    }


def _hashes(project: Project, wanted: Mapping[str, SharedColumn], listed: Mapping[str, FileFact]) -> set[str]:
    """sha256 of the project's shards that may be among those listed."""
    sizes = {facts.size for path, facts in listed.items() if path.endswith(".h5")}
    folders = [project.features / name / column.fingerprint[:PREFIX] for name, column in wanted.items()]
    shards = [path for folder in folders for path in folder.glob("shard-*.h5") if path.stat().st_size in sizes]
    return {sha256_of(path) for path in shards}


def _tampered(repo: str, what: str, why: str) -> KdkitError:
    return KdkitError(
        "KD-SHARE-007",
        f"{what}; nothing was added",
        where=repo,
        why=why,
        fix="report it to the author, or pull an earlier commit: --revision COMMIT",
        code=ExitCode.FOUND,
    )


def _verified(folder: Path, name: str, facts: SharedColumn, reporter: Reporter) -> Column:
    """Verify the fetched column: fingerprint parts, completeness, block checksums."""
    reporter.say(f"verifying the features of {name}")
    column = FeatureStore(folder / STORE).column(name, facts.fingerprint)
    problems = column.verify()
    if column.header.parts != facts.parts:
        problems.append(f"column.json and {RECORD} differ in what the features depend on")
    if not column.complete:
        problems.append("a shard has blocks that were never written")
    if problems:
        raise KdkitError(
            "KD-SHARE-008",
            f"the features of '{name}' are damaged; nothing was added",
            where=problems[0].partition(":")[0],
            why=problems[0],
            code=ExitCode.FOUND,
            fix="pull again, or an earlier commit: --revision COMMIT",
        )
    return column


def _adopt(project: Project, fetched: Column, here: int) -> PulledColumn:
    """Append the shards to the project's column and add missing prompts."""
    store = FeatureStore(project.features)
    column = store.create(fetched.header)
    for number, shard in enumerate(fetched.shards, start=len(column.shards)):
        os.replace(shard.path, column.folder / f"shard-{number:04d}.h5")
    new = {text: values for text, values in fetched.texts.items() if text not in column.texts}
    store.put_texts(column.teacher, column.fingerprint, new)
    rows = int(fetched.present.sum())
    return PulledColumn(column.teacher, column.fingerprint, rows, here, len(new))
