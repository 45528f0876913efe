"""Reflective correction between two runs: a version's wrong answers to training samples become data, corrected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.journal import Journal, SampleKey, temporary_journal
from kdkit.core.base.jsonl import require_replaceable, write_rows
from kdkit.core.base.result import Result, Section, Table
from kdkit.core.contracts import Reporter, Sample, Silent
from kdkit.core.data.load import load_index
from kdkit.core.distill.pseudo_labels.corrector import REFERENCE, locked_corrector, make_corrector
from kdkit.core.distill.pseudo_labels.manifest import Manifest, count_domains, data_entry
from kdkit.core.distill.pseudo_labels.review import (
    Review,
    Reviewer,
    ReviewRules,
    is_correctable,
    make_scoring_task,
    read_reviews,
    review,
)
from kdkit.core.evaluation.answers import StudentAnswers
from kdkit.core.project.versions import Version, Versions, load_student

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class CorrectionRequest(ReviewRules):
    """Which samples are reviewed, and how; see :class:`~kdkit.core.distill.pseudo_labels.review.ReviewRules`.

    Attributes:
        corrector: a teacher of the registry that rewrites the reference, or ``reference``.
        domains: empty for all.
        limit: samples, at most.
    """

    corrector: str = REFERENCE
    domains: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit is not None and self.limit < 1:
            raise KdkitError("KD-LABEL-001", "must be at least 1", where="limit", fix="leave --limit out for no limit")


@dataclass(frozen=True)
class CorrectionReport(Result):
    """Counts of samples.

    Attributes:
        version: the one that answered.
        file, image_root: see :class:`~kdkit.core.distill.pseudo_labels.manifest.Manifest`.
        answered: reviewed samples; ``known``: of them, before this call.
        unscored: those that the task cannot score.
        rewritten: with a text of the corrector; ``refused``: with the reference, because its text was rejected.
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
        """All attributes."""
        return asdict(self)

    def sections(self) -> list[Section]:
        """Counts, then the data entry of the manifest."""
        rows = [("training samples answered", self.answered), ("- before this call", self.known)]
        rows += [("- without a score", self.unscored)]
        rows += [(f"corrected in {name}", count) for name, count in self.wrong.items()] or [("corrected", 0)]
        rows += [("- in the corrector's words", self.rewritten), ("- corrector's answer rejected", self.refused)]
        table = Table((self.version, "samples"), rows, "lr")
        if not self.wrong:
            return [table, "", "no answer is wrong: nothing was written"]
        return [table, *data_entry(self.file, self.image_root)]


def write_corrections(
    project: Project,
    to: Path,
    request: CorrectionRequest | None = None,
    *,
    version: str | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> CorrectionReport:
    """Write a manifest of the training samples that a version (default: the current one) answers wrongly.

    Each row has the correction as text and its origin in ``extra.correction``. Rows of such manifests are not reviewed
    again. If no answer is wrong, nothing is written. An interrupted call resumes when it is repeated with the same
    arguments; the manifest is written in one step at the end.

    Raises:
        KdkitError: ``to`` is another file; a student or corrector that does not answer; no sample with an answer; an
            error of a model.
    """
    reporter, request = reporter or Silent(), request or CorrectionRequest()
    require_replaceable(to, lambda row: "correction" in row["extra"])
    index = load_index(project, reporter)
    task = make_scoring_task(project.registry.student, project.catalogue, request.options)
    pairs = _correctable(index, request)
    found = Versions(project).get(version)
    with temporary_journal(project.state / "corrections" / f"{_digest(project, found, request, pairs)}.jsonl") as path:
        known = read_reviews([path])
        if any(key not in known for key, _ in pairs):
            student: Any = load_student(found, project.catalogue)
            corrector = make_corrector(project, request.corrector, device, reporter)
            answers = StudentAnswers(found.name, student, device=device)
            reviewer = Reviewer(answers, task, request, corrector, student)
            review(reviewer, Journal(path), pairs, known, reporter, f"{found.name} answers")
        reviews = read_reviews([path])
        reviewed = [(sample, reviews[key]) for key, sample in pairs]
        wrong = [(sample, one) for sample, one in reviewed if one.wrong]
        manifest = Manifest(to, project.root, index.samples)
        if wrong:
            write_rows(to, (_row(manifest, sample, one, found.name) for sample, one in wrong))
    return CorrectionReport(
        version=found.name,
        file=manifest.file,
        image_root=manifest.image_root,
        answered=len(reviewed),
        known=sum(key in known for key, _ in pairs),
        unscored=sum(one.score is None for _, one in reviewed),
        rewritten=sum(one.rewritten for _, one in reviewed),
        refused=sum(one.refused for _, one in reviewed),
        wrong=count_domains(sample for sample, _ in wrong),
    )


def _row(manifest: Manifest, sample: Sample, found: Review, version: str) -> dict[str, Any]:
    origin = {"version": version, "sample": sample.id, "answer": found.answer, "score": found.score}
    extra = {"correction": {**origin, "corrector": found.corrector}}
    return manifest.row(sample, version, str(found.text), extra)


def _correctable(index: SampleIndex, request: CorrectionRequest) -> list[tuple[SampleKey, Sample]]:
    rows = index.select(split="train", domains=request.domains or None)
    chosen = [row for row in rows if is_correctable(index.samples[row])][: request.limit]
    if not chosen:
        raise KdkitError(
            "KD-LABEL-002",
            "no training sample has an answer",
            fix="add answers ('text') to the data, or pseudo-labels: kdkit pseudo-label",
            code=ExitCode.FOUND,
        )
    return index.keyed(chosen)


def _digest(
    project: Project, version: Version, request: CorrectionRequest, pairs: Sequence[tuple[SampleKey, Sample]]
) -> str:
    """Of everything that determines the reviews."""
    locked = locked_corrector(project.registry, project.lock, request.corrector)
    rules = {**asdict(request), "corrector": locked.fingerprint if locked else REFERENCE}
    parts = [version.name, version.lineage.created, rules, [key for key, _ in pairs]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
