"""``kdkit features import``: a column from features that people already have, and its teacher in the registry.

Everything is read and checked before anything is written. A killed import is continued by the same command: the teacher
is locked first, then its rows appear at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.atomic import draft_beside, write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import IMAGE, Reporter, Silent
from kdkit.core.data.load import load_index
from kdkit.core.features.imports.check import CheckedRows, MatchedRows, check_rows, match_rows
from kdkit.core.features.imports.open import open_rows
from kdkit.core.features.imports.prompts import missing_prompts, new_prompts, read_prompts
from kdkit.core.features.imports.record import (
    FILE,
    LOADER,
    ImportRecord,
    digest_files,
    read_record,
    record_path,
    source_of,
)
from kdkit.core.features.imports.rows import LISTED, FeatureRows, ReadOptions, unreadable
from kdkit.core.features.store.column import Column
from kdkit.core.features.store.header import Header
from kdkit.core.features.store.shard import PRESENT, Shard, create_shard
from kdkit.core.features.store.store import FeatureStore
from kdkit.core.project.registry.chosen import choose
from kdkit.core.project.registry.edit import add_entry, has_entry, remove_entry
from kdkit.core.project.registry.load import read_text
from kdkit.core.project.registry.lock import SignalFact
from kdkit.core.project.registry.schema import TeacherEntry
from kdkit.core.teachers.add import add_teacher, lock_teachers, require_name
from kdkit.core.teachers.license import require_permission
from kdkit.core.teachers.open import fingerprint_parts

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class ImportRequest:
    """What to import.

    Attributes:
        paths: files or folders of features.
        read: how they are read.
        prompts: file of prompts and their vectors, for trust by zero-shot classification.
        model, revision, preprocessing: declared origin; part of the fingerprint. None is the value of an earlier import
            of this name, otherwise empty.
        license: of the model, unless the catalogue or registry.yaml knows it.
        domains: the only domains that the teacher may teach; None is what registry.yaml has.
        float32: store float32 instead of float16; None is as before, otherwise float16.
        replace: replace another import of the same name.
    """

    paths: Sequence[Path]
    read: ReadOptions = field(default_factory=ReadOptions)
    prompts: Path | None = None
    model: str | None = None
    revision: str | None = None
    preprocessing: str | None = None
    license: str | None = None
    domains: Sequence[str] | None = None
    float32: bool | None = None
    replace: bool = False

    def completed(self, before: ImportRecord | None) -> ImportRequest:
        """The request, with what it omits as in an earlier import."""
        if before is None:
            return self
        float32 = any(fact.dtype == "float32" for fact in before.signals.values())
        return replace(
            self,
            read=replace(self.read, before=before.read),
            model=before.model if self.model is None else self.model,
            revision=before.revision if self.revision is None else self.revision,
            preprocessing=before.preprocessing if self.preprocessing is None else self.preprocessing,
            float32=float32 if self.float32 is None else self.float32,
        )


@dataclass(frozen=True)
class ImportedColumn:
    """An import, or its dry run.

    Attributes:
        teacher, fingerprint: the column; no fingerprint in a dry run.
        signals: name -> width.
        rows: in the files; ``skipped`` (reason -> rows) are not among them.
        used: rows with a sample; ``new`` of them were not in the column before.
        rows_without_sample, samples_without_row: ids.
        prompts: texts whose features were added.
        prompts_missing: prompts without features, if the teacher has text vectors.
        unused: arrays, columns and files that were not read.
    """

    teacher: str
    fingerprint: str
    signals: Mapping[str, int]
    rows: int
    used: int
    new: int
    samples: int
    rows_without_sample: Sequence[str]
    samples_without_row: Sequence[str]
    skipped: Mapping[str, int]
    prompts: int
    prompts_missing: Sequence[str]
    unused: Sequence[str]


def import_features(
    project: Project, name: str, request: ImportRequest, *, dry_run: bool = False, reporter: Reporter | None = None
) -> ImportedColumn:
    """Import features as the teacher ``name``: registry, lock and column.

    Args:
        project: with data entries; rows are matched with its samples by id.
        name: of a teacher of the catalogue, whose license then counts, or a new one.
        request: the files, and what is declared about them.
        dry_run: read, check and match; write nothing.
        reporter: shows progress and warnings.

    Raises:
        KdkitError: the license forbids it; files that cannot be read or checked; no id matches; the name is a teacher
            of another kind, or was imported from other files.
    """
    reporter = reporter or Silent()
    with project.exclusive(f"kdkit features import {name}"):
        project = project.reloaded()
        entry = _entry(project, name, request)
        _require_importable(project, name, entry)
        if name in project.registry.teachers:
            request = request.completed(read_record(record_path(project.root, name)))
        where = ", ".join(str(path) for path in request.paths)
        rows = open_rows(request.paths, request.read)
        dtype = "float32" if request.float32 else "float16"
        checked = check_rows(rows, dtype, where)
        if IMAGE not in checked.widths:
            fix = "add the image vectors as 'image'; vectors of prompts belong to --prompts FILE"
            raise unreadable(where, "it has text vectors alone", fix)
        prompts = read_prompts(request.prompts, checked.widths)
        index = load_index(project, reporter)
        matched = match_rows(checked.ids, index, where)
        record = _record(rows, checked, request, dtype, reporter)
        other = _other_import(project, name, record, entry)
        if other and not request.replace:
            raise KdkitError(
                "KD-FEAT-030",
                f"'{name}' was imported from other features",
                where=str(record_path(project.root, name)),
                why=other,
                fix="choose another name, or replace it: --replace",
                code=ExitCode.FOUND,
            )
        if not other and not dry_run:
            for path in FeatureStore(project.features).set_aside_damage(name, blocks=True):
                reporter.warn(f"{path} is damaged: renamed to {path.name}.damaged, and imported again")
        before = None if other else _column(project, name)
        added_prompts = new_prompts(before, prompts, replace=request.replace, where=str(request.prompts))
        report = ImportedColumn(
            teacher=name,
            fingerprint=before.fingerprint if before else "",
            signals=dict(checked.widths),
            rows=len(checked.ids),
            used=matched.used,
            new=len(_wanted(before, index, matched)),
            samples=len(index),
            rows_without_sample=matched.rows_without_sample,
            samples_without_row=matched.samples_without_row,
            skipped=dict(rows.skipped),
            prompts=len(added_prompts),
            prompts_missing=missing_prompts(project, index, before, checked, prompts),
            unused=rows.unused,
        )
        if dry_run:
            return report
        if other:
            _unlock(project, name, entry)
        fingerprint = _lock(project, name, entry, record, reporter)
        store = FeatureStore(project.features)
        _fill(store.create(_header(project, name, record, fingerprint)), index, rows, matched, reporter)
        store.put_texts(name, fingerprint, added_prompts)
        if rows.listed:
            column = store.column(name, fingerprint)
            places = column.locate(index)[matched.samples[matched.samples >= 0]]
            column.put_scores(LISTED, places, np.ones(len(places)))
        return replace(report, fingerprint=fingerprint)


def _entry(project: Project, name: str, request: ImportRequest) -> dict[str, Any]:
    """The teacher's fields in registry.yaml; those of an earlier import stay unless others are given."""
    there = project.registry.teachers.get(name)
    fields = there.model_dump(by_alias=True, exclude_unset=True) if there and there.source == source_of(name) else {}
    given: dict[str, Any] = {
        "from": source_of(name),
        "loader": LOADER,
        "domains": None if request.domains is None else list(request.domains),
        "license": request.license,
    }
    return fields | {key: value for key, value in given.items() if value is not None}


def _require_importable(project: Project, name: str, entry: Mapping[str, Any]) -> None:
    """Before the files are read: the name is free or an import, and the license allows distillation."""
    require_name(name)
    there = project.registry.teachers.get(name)
    if there is not None and there.source != source_of(name):
        raise KdkitError(
            "KD-FEAT-031",
            f"teacher '{name}' computes its features itself",
            where="registry.yaml",
            why=f"its source is {there.source or 'in the catalogue'}",
            fix="choose another name for the imported features",
        )
    chosen = choose(project.catalogue, name, TeacherEntry.model_validate(entry))
    require_permission(chosen, project.registry.use, Silent())


def _record(
    rows: FeatureRows, checked: CheckedRows, request: ImportRequest, dtype: str, reporter: Reporter
) -> ImportRecord:
    return ImportRecord(
        sha256=digest_files(rows.files, reporter),
        files=len(rows.files),
        read=dict(rows.read),
        signals={signal: SignalFact(shape=(width,), dtype=dtype) for signal, width in checked.widths.items()},
        model=request.model or "",
        revision=request.revision or "",
        preprocessing=request.preprocessing or "",
    )


def _other_import(project: Project, name: str, record: ImportRecord, entry: Mapping[str, Any]) -> str:
    """What differs from an earlier import of this name; empty if nothing does or there is none."""
    there = project.registry.teachers.get(name)
    if there is None:
        return ""
    copy = project.artifacts / name / FILE  # a bundle holds this one alone
    before = read_record(record_path(project.root, name)) or read_record(copy)
    if before is None:
        return f"its {FILE} is missing or cannot be read"
    differences = [before.differences(record)]
    wanted = TeacherEntry.model_validate(entry)
    for key in ("license", "domains"):
        then, now = getattr(there, key), getattr(wanted, key)
        if now is not None and then != now:
            differences.append(f"{key} is {then!r} in registry.yaml and {now!r} now")
    return "; ".join(part for part in differences if part)


def _unlock(project: Project, name: str, entry: Mapping[str, Any]) -> None:
    """Give the teacher its new entry, and take it out of the lock, so that a killed replacement is continued."""
    text = read_text(project.registry_path)
    changed = text if has_entry(text, name, entry) else add_entry(remove_entry(text, name), name, entry)
    if name in project.lock.teachers:
        project.lock.without_teacher(name).save(project.lock_path)
    if changed != text:
        write_atomically(project.registry_path, changed.encode())


def _lock(project: Project, name: str, entry: Mapping[str, Any], record: ImportRecord, reporter: Reporter) -> str:
    """Write the record, add the teacher unless it is there; returns its fingerprint."""
    path = record_path(project.root, name)
    if read_record(path) != record:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, record.to_bytes())
    project = project.reloaded()
    if name in project.registry.teachers:
        known = project.lock.teachers.get(name)
        return (known or lock_teachers(project, [name], offline=True, reporter=reporter)[name]).fingerprint
    return add_teacher(project, name, entry, offline=True, reporter=reporter).fingerprint


def _header(project: Project, name: str, record: ImportRecord, fingerprint: str) -> Header:
    facts = project.reloaded().lock.teacher(name)
    parts = fingerprint_parts(facts.files, facts.loader, facts.options, facts.identity)
    return Header(name, fingerprint, parts, record.specs)


def _fill(column: Column, index: SampleIndex, rows: FeatureRows, matched: MatchedRows, reporter: Reporter) -> None:
    """Add a shard with the matched rows that the column lacks."""
    wanted = _wanted(column, index, matched)
    if not len(wanted):
        return
    samples = matched.samples[wanted]
    path = column.next_shard
    with draft_beside(path) as draft:
        draft.mkdir()
        shard = draft / path.name
        create_shard(shard, column.header, [index.ids[i] for i in samples], index.digests[samples])
        _write(Shard(shard, writable=True), rows, wanted, reporter)
        os.replace(shard, path)


def _wanted(column: Column | None, index: SampleIndex, matched: MatchedRows) -> NDArray[np.int64]:
    """Positions of the matched rows whose sample has no row in the column."""
    lacking = np.ones(len(index), bool) if column is None else column.locate(index) < 0
    positions = np.flatnonzero(matched.samples >= 0)
    chosen: NDArray[np.int64] = positions[lacking[matched.samples[positions]]]
    return chosen


def _write(shard: Shard, rows: FeatureRows, wanted: NDArray[np.int64], reporter: Reporter) -> None:
    """The second pass: the rows at the positions ``wanted`` into the blocks of the shard."""
    signals = shard.header.signals
    buffers = {spec.name: np.empty((0, *spec.shape), spec.dtype) for spec in signals}
    blocks, start, written = shard.pending(), 0, 0
    for part in rows.parts():
        here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(part.ids))] - start
        start += len(part.ids)
        for spec in signals:
            values = np.asarray(part.values[spec.name])[here].astype(spec.dtype)
            buffers[spec.name] = np.concatenate([buffers[spec.name], values])
        while blocks:
            span = shard.rows_of(blocks[0])
            count = span.stop - span.start
            if len(next(iter(buffers.values()))) < count:
                break
            block = {name: array[:count] for name, array in buffers.items()}
            shard.commit(blocks.pop(0), block, np.full(count, PRESENT, np.uint8))
            buffers = {name: array[count:] for name, array in buffers.items()}
            written += count
            reporter.progress("importing", written, len(wanted))
    shard.close()


def _column(project: Project, name: str) -> Column | None:
    """The column of an earlier import."""
    store, locked = FeatureStore(project.features), project.lock.teachers.get(name)
    there = {header.fingerprint for header in store.headers(name)}
    return store.column(name, locked.fingerprint) if locked and locked.fingerprint in there else None
