"""Reflective correction between two runs: a version answers what it was taught; what it gets wrong becomes data."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.journal import Journal, SampleKey
from kdkit.core.base.jsonl import require_replaceable, write_rows
from kdkit.core.contracts import Reporter, Sample, Silent
from kdkit.core.data.load import load_index
from kdkit.core.distill.pseudo_labels.corrector import REFERENCE, corrector_of, locked_corrector
from kdkit.core.distill.pseudo_labels.manifest import (
    count_domains,
    image_root,
    manifest_row,
)
from kdkit.core.distill.pseudo_labels.review import (
    Reviewed,
    Reviewer,
    Rules,
    correctable,
    read_reviews,
    review,
    scoring_task,
)
from kdkit.core.evaluation.answers import StudentAnswers
from kdkit.core.project.versions import Version, Versions, load_student

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project

Pairs = Sequence[tuple[SampleKey, Sample]]


@dataclass(frozen=True)
class Wrong(Rules):
    """Which answers are corrected, and how; see :class:`~kdkit.core.distill.pseudo_labels.review.Rules`.

    Attributes:
        corrector: a teacher of the registry that rewrites, or ``reference``, which is taken as it is.
        domains: only these; empty for all.
        limit: samples that are asked about, at most.
    """

    corrector: str = REFERENCE
    domains: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit is not None and self.limit < 1:
            raise KdkitError("KD-LABEL-001", "at least one sample", where="limit")


@dataclass(frozen=True)
class Corrected:
    """What came of it.

    Attributes:
        version: who answered; ``file``: the manifest, relative to the project; ``image_root``: relative to it.
        answered: samples that were asked about; ``known``: of them, before this call.
        unscored: those that the task cannot score.
        rewritten: by the corrector; ``refused``: its texts that do not keep meaning or coordinates, for which the
            reference stands.
        wrong: domain -> rows of the manifest.
    """

    version: str
    file: str
    image_root: str
    answered: int
    known: int
    unscored: int
    rewritten: int
    refused: int
    wrong: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def correct(
    project: Project,
    to: Path,
    wanted: Wrong | None = None,
    *,
    version: str | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> Corrected:
    """Write a manifest of the training samples that a version (by default the current one) answers badly.

    Each row has the corrected answer as text and in ``extra.correction`` the ``version``, its ``answer`` and ``score``,
    the ``corrector`` and the ``sample``. Where no answer is wrong, nothing is written. Rows of
    such manifests are not asked about again. May be stopped at any moment, and goes on where it was when it is called
    again alike; the manifest is written whole at the end.

    Raises:
        KdkitError: ``to`` holds something else; a student that does not answer, no sample with an answer, a corrector
            that does not answer; what answering and correcting raise.
    """
    reporter, wanted = reporter or Silent(), wanted or Wrong()
    require_replaceable(to, lambda row: "correction" in row["extra"])
    table = load_index(project, reporter)
    task = scoring_task(project, wanted.options)
    pairs = _taught(table, wanted)
    found = Versions(project).get(version)
    path = project.state / "corrections" / _name(project, found, wanted, pairs) / "answers.jsonl"
    known = read_reviews([path])
    if any(key not in known for key, _ in pairs):
        student: Any = load_student(found, project.catalogue)
        view = StudentAnswers(found.name, student, device=device)
        corrector = corrector_of(project, wanted.corrector, device, reporter)
        reviewer = Reviewer(view, task, wanted, corrector, student)
        review(reviewer, Journal(path), pairs, known, reporter, f"{found.name} answers")
    reviews = read_reviews([path])
    made = _write(project, table, to, found.name, [(sample, reviews[key]) for key, sample in pairs])
    shutil.rmtree(path.parent)
    return replace(made, known=sum(key in known for key, _ in pairs))


def _write(
    project: Project, table: SampleIndex, to: Path, version: str, reviewed: Sequence[tuple[Sample, Reviewed]]
) -> Corrected:
    root = image_root(project, table)
    wrong = [(sample, found) for sample, found in reviewed if found.wrong]
    if wrong:
        write_rows(to, [_row(sample, found, version, root) for sample, found in wrong])
    return Corrected(
        version=version,
        file=os.path.relpath(to.resolve(), project.root.resolve()),
        image_root=os.path.relpath(root, to.resolve().parent),
        answered=len(reviewed),
        known=0,
        unscored=sum(found.score is None for _, found in reviewed),
        rewritten=sum(found.rewritten for _, found in reviewed),
        refused=sum(found.refused for _, found in reviewed),
        wrong=count_domains([sample for sample, _ in wrong]),
    )


def _row(sample: Sample, found: Reviewed, version: str, root: Path) -> dict[str, Any]:
    about = {"version": version, "sample": sample.id, "answer": found.answer, "score": found.score}
    extra = {"correction": {**about, "corrector": found.corrector}}
    return manifest_row(sample, f"{sample.id}#{version}", str(found.text), extra, root)


def _taught(table: SampleIndex, wanted: Wrong) -> Pairs:
    rows = table.select(split="train", domains=wanted.domains or None)
    chosen = [row for row in rows if correctable(table.samples[row])][: wanted.limit]
    if not chosen:
        raise KdkitError("KD-LABEL-002", "there is no training sample with an answer", code=ExitCode.FOUND)
    return [((table.ids[row], int(table.digests[row])), table.samples[row]) for row in chosen]


def _name(project: Project, version: Version, wanted: Wrong, pairs: Pairs) -> str:
    """Of everything that decides the reviews."""
    locked = locked_corrector(project, wanted.corrector)
    rules = {**asdict(wanted), "corrector": locked.fingerprint if locked else REFERENCE}
    about = [version.name, version.lineage.created, rules, [key for key, _ in pairs]]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
