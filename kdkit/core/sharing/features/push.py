"""Columns of the project to a data set repository."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kdkit
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import Hub, connect
from kdkit.core.base.result import Result, Section, Table, format_size
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.features.extract.answers import answers_texts
from kdkit.core.features.store.store import PREFIX, FeatureStore
from kdkit.core.project.manifest import describe_folder
from kdkit.core.sharing.features.card import (
    CARD,
    README,
    RECORD,
    STORE,
    FeaturesRecord,
    SharedColumn,
    card,
    license_to_share,
)
from kdkit.core.sharing.features.form import write_shared_form
from kdkit.core.sharing.hub import Uploaded, UploadPlan, plan_upload, upload
from kdkit.core.sharing.hub.edits import PublishedFiles, keep_card, keep_files
from kdkit.core.sharing.release.redact import check_nothing_leaks, public_source

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class PushedFeatures(Result):
    """A push; ``uploaded`` is None after ``dry_run``."""

    columns: dict[str, SharedColumn]
    plan: UploadPlan
    uploaded: Uploaded | None

    def to_json(self) -> dict[str, Any]:
        """Columns, plan, commit."""
        done = self.uploaded
        return {
            "columns": {
                name: {"rows": c.rows, "prompts": c.texts, "license": c.license} for name, c in self.columns.items()
            },
            "plan": self.plan.to_json(),
            "uploaded": None if done is None else {"url": done.url, "commit": done.commit},
        }

    def sections(self) -> list[Section]:
        """Columns, then the changes of the repository."""
        plan = self.plan
        rows = [(name, c.rows, c.texts, c.license) for name, c in self.columns.items()]
        changes = (
            f"{plan.repo}: {len(plan.adds)} to add, {len(plan.updates)} to update, {len(plan.deletes)} to delete, "
            f"{len(plan.unchanged)} unchanged; {format_size(plan.size)} to send"
        )
        parts: list[Section] = [Table(("teacher", "samples", "prompts", "license"), rows, "lrrl"), "", changes]
        if self.uploaded is None:
            return [*parts, "nothing was sent"]
        return [*parts, self.uploaded.url, f"  kdkit features pull {plan.repo}"]


def push_features(
    project: Project,
    repo: str,
    teachers: Sequence[str] = (),
    *,
    hub: Hub | None = None,
    public: bool = False,
    delete: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> PushedFeatures:
    """Push columns of ``teachers`` (by default all of the registry that have one) to the data set repository ``repo``.

    Only rows of samples that the project's data hold now, and prompts of its classes. The repository then holds
    these columns and no others. Files that people added there, and their edits of the card, stay.

    Args:
        hub: by default :func:`kdkit.core.sharing.hub.connect`.
        public: everybody may read it; a new repository is private otherwise.
        delete: allow deleting the repository's columns of other teachers, and what people added or edited there.
        dry_run: nothing is sent.

    Raises:
        KdkitError: a license that forbids it, or a column that reveals texts (exit 4); no column, or none with a sample
            of the project; the repository holds columns of others; as :func:`kdkit.core.sharing.hub.upload`.
    """
    from kdkit.core.data import load_index

    hub, reporter = hub or connect(), reporter or Silent()
    names = _shareable(project, teachers)
    licenses = {name: _license(project, name, public=public) for name in names}
    for name in (name for name, license in licenses.items() if license == "unknown"):
        reporter.warn(f"'{name}': its license is unknown, so its features may not be allowed to be shared")
    with project.room("features-pushed") as folder:
        table = load_index(project, reporter)
        columns = {}
        for done, name in enumerate(names, start=1):
            columns[name] = _write_column(project, name, licenses[name], table, folder, reporter)
            reporter.progress("preparing columns", done, len(names), name)
        _complete(project, folder, repo, columns)
        with tempfile.TemporaryDirectory() as scratch:
            there = PublishedFiles(hub, repo, "dataset", Path(scratch))
            plan = _plan(there, folder, delete=delete, reporter=reporter)
        if not delete:
            _keep_others(plan, columns)
        if dry_run:
            return PushedFeatures(columns, plan, None)
        message = f"Features of {', '.join(columns)} (kdkit {kdkit.__version__})"
        return PushedFeatures(columns, plan, upload(hub, plan, private=not public, message=message, reporter=reporter))


def _shareable(project: Project, teachers: Sequence[str]) -> tuple[str, ...]:
    """The teachers, each with a column of the locked fingerprint."""
    lock, store = project.lock, FeatureStore(project.features)
    chosen = tuple(project.registry.teachers)
    names = tuple(dict.fromkeys(teachers)) or tuple(name for name in chosen if store.headers(name))
    columns = [store.column(name, lock.teacher(name).fingerprint if name in chosen else None) for name in names]
    if refused := [column.teacher for column in columns if answers_texts(column.signals)]:
        others = " ".join(name for name in names if name not in refused)
        raise KdkitError(
            "KD-SHARE-009",
            f"features of {', '.join(refused)} are not shared",
            where=str(project.features),
            why="they contain the answer tokens of your data, so they reveal its texts",
            fix=f"push the other teachers' features: {others}" if others else "",
            code=ExitCode.DENIED,
        )
    if not names:
        raise KdkitError(
            "KD-SHARE-010",
            "there are no features to push",
            where=str(project.features),
            fix="kdkit features extract",
            code=ExitCode.MISSING,
        )
    return names


def _license(project: Project, name: str, *, public: bool) -> str:
    from kdkit.core.project.registry.chosen import chosen_teacher

    locked = project.lock.teacher(name)
    facts = chosen_teacher(project, name).license_facts(locked.license, gated=locked.gated)
    return license_to_share(name, facts, public=public)


def _write_column(
    project: Project, name: str, license: str, table: SampleIndex, folder: Path, reporter: Reporter
) -> SharedColumn:
    from kdkit.core.data.prompts import project_prompts

    locked = project.lock.teacher(name)
    column = FeatureStore(project.features).column(name, locked.fingerprint)
    prompts = project_prompts(project.registry, table)
    form = write_shared_form(column, table, prompts, folder / STORE / name / column.fingerprint[:PREFIX])
    if not form.rows:
        raise KdkitError(
            "KD-SHARE-011",
            f"'{name}' has no features of the samples that this project's data hold now",
            where=str(column.folder),
            fix=column.header.remedy,
            code=ExitCode.MISSING,
        )
    if form.ambiguous:
        reporter.warn(
            f"'{name}': {form.ambiguous} samples skipped: others have the same image and text but different features"
        )
    found = column.locate(table) >= 0
    return SharedColumn(
        fingerprint=column.fingerprint,
        parts=dict(column.header.parts),
        source=public_source(locked.source),
        commit=locked.commit,
        license=license,
        signals={s.name: f"{'x'.join(str(n) for n in s.shape)} {s.dtype}" for s in column.signals},
        rows=form.rows,
        texts=form.texts,
        domains={d: int((found & (table.domain_index == i)).sum()) for i, d in enumerate(table.domains)},
    )


def _complete(project: Project, folder: Path, repo: str, columns: dict[str, SharedColumn]) -> None:
    """Write card and record, then search all files except shards for paths of this machine.

    Shards hold numbers and the content of ``column.json``; a short path would occur in gigabytes by chance.
    """
    for name in (README, CARD):
        (folder / name).write_text(card(repo, columns), encoding="utf-8")
    record = FeaturesRecord(kdkit.__version__, columns, describe_folder(folder, without=(RECORD, README)))
    (folder / RECORD).write_bytes(record.to_bytes())
    check_nothing_leaks(folder, [str(project.root.resolve()), os.path.expanduser("~")], without=(".h5",))


def _plan(there: PublishedFiles, folder: Path, *, delete: bool, reporter: Reporter) -> UploadPlan:
    """The plan, which keeps what people edited in the repository unless ``delete``."""
    repo, record = there.at.name, there.fetch(RECORD)
    before = FeaturesRecord.load(record, repo).files if record is not None else {}
    if not delete:
        keep_card(there, folder, README, CARD, reporter)
    plan = plan_upload(there.hub, repo, "dataset", folder, seen=there.seen)
    return plan if delete else keep_files(plan, there, before, (README, RECORD), "--delete", reporter)


def _keep_others(plan: UploadPlan, columns: dict[str, SharedColumn]) -> None:
    parts = [path.split("/") for path in plan.deletes]
    others = sorted({p[1] for p in parts if len(p) > 1 and p[0] == STORE and p[1] not in columns})
    if others:
        raise KdkitError(
            "KD-SHARE-012",
            f"{plan.repo} holds columns of {', '.join(others)}, which this push would delete",
            where=plan.repo,
            fix="name all teachers that it is to hold, choose another repository, or add --delete",
            code=ExitCode.FOUND,
        )
