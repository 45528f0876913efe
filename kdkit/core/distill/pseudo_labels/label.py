"""Pseudo-labels: a trusted teacher's answers to the questions of the training split that have no answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.journal import SampleKey
from kdkit.core.base.jsonl import require_replaceable, write_rows
from kdkit.core.base.result import Result, Section, Table
from kdkit.core.contracts import Decoding, Reporter, Sample, Silent
from kdkit.core.data.load import load_index
from kdkit.core.data.unreadable import find_skipped
from kdkit.core.distill.pseudo_labels.manifest import Manifest, count_domains, data_entry
from kdkit.core.distill.pseudo_labels.review import can_learn
from kdkit.core.evaluation.trust.measure import locked_column
from kdkit.core.evaluation.trust.report import TrustReport, report_trust
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.answers import answer_journal, append_answers, decoding_settings
from kdkit.core.features.extract.endpoint_answers import PSEUDO_LABELS
from kdkit.core.project.versions import Versions, load_student

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project

DECODING = Decoding(scored=True)
"""Greedy, with the probability of each token."""


@dataclass(frozen=True)
class LabelRequest:
    """Which answers become pseudo-labels.

    Attributes:
        domains: empty for all that the trust policy admits.
        min_confidence: least mean token probability; None admits any answer, also without a confidence.
        limit: questions, at most.
        share: of the trusted questions of each domain, drawn at random by ``seed``; None for all. A larger share of the
            same seed has the questions of a smaller one.
    """

    domains: tuple[str, ...] = ()
    min_confidence: float | None = None
    limit: int | None = None
    share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise KdkitError(
                "KD-LABEL-005",
                f"a confidence is in [0, 1], not {self.min_confidence:g}",
                where="min_confidence",
                fix="--min-confidence 0.5",
            )
        if self.limit is not None and self.limit < 1:
            raise KdkitError("KD-LABEL-006", "must be at least 1", where="limit", fix="leave --limit out for no limit")

        if self.share is not None and not 0 < self.share <= 1:
            raise KdkitError(
                "KD-LABEL-570", f"share is {self.share:g}, not in (0, 1]", where="share", fix="--share 0.3"
            )

    def reject(self, text: str, confidence: float | None) -> str:
        """Why an answer becomes no pseudo-label (a field of :class:`LabelReport`), or an empty string."""
        if not text:
            return "empty"
        if self.min_confidence is None:
            return ""
        if confidence is None:
            return "unknown"
        return "unsure" if confidence < self.min_confidence else ""


@dataclass(frozen=True)
class LabelReport(Result):
    """Counts of questions.

    Attributes:
        teacher: its name.
        file, image_root: see :class:`~kdkit.core.distill.pseudo_labels.manifest.Manifest`.
        unanswered: questions of the training split without an answer, in the requested domains.
        not_trusted: domain -> questions where the trust policy does not admit the teacher.
        not_drawn: trusted questions outside the share.
        over_limit: questions beyond the limit.
        answered: in this call; ``known``: before it.
        empty: answers without text; ``unsure``: below the least confidence; ``unknown``: without a confidence though
            one is required; ``unlearnable``: refused by the student (too long, a box outside of the image).
        kept: domain -> pseudo-labels in the manifest; empty in a dry run.
        dry_run: no question was sent and nothing was written.
    """

    teacher: str
    file: str
    image_root: str
    unanswered: int
    not_trusted: Mapping[str, int]
    not_drawn: int
    over_limit: int
    answered: int
    known: int
    empty: int
    unsure: int
    unknown: int
    unlearnable: int
    kept: Mapping[str, int]
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        """All attributes."""
        return asdict(self)

    def sections(self) -> list[Section]:
        """Counts, then the data entry of the manifest."""
        rows = [("questions without an answer", self.unanswered)]
        rows += [(f"- not trusted in {name}", count) for name, count in self.not_trusted.items()]
        rows += [("- outside the share", self.not_drawn)] if self.not_drawn else []
        rows += [("- over the limit", self.over_limit)] if self.over_limit else []
        if self.dry_run:
            left = self.unanswered - sum(self.not_trusted.values()) - self.not_drawn - self.over_limit - self.known
            rows += [("answered before", self.known), ("to answer", left)]
            return [Table((self.teacher, "questions"), rows, "lr")]
        rows += [("answered now", self.answered), ("answered before", self.known), ("- empty answers", self.empty)]
        rows += [("- not confident enough", self.unsure), ("- of unknown confidence", self.unknown)]
        rows += [("- not learnable by the student", self.unlearnable)]
        rows += [(f"pseudo-labels in {name}", count) for name, count in self.kept.items()] or [("pseudo-labels", 0)]
        table = Table((self.teacher, "questions"), rows, "lr")
        if not self.kept:
            return [table]
        return [table, *data_entry(self.file, self.image_root)]


def write_pseudo_labels(
    project: Project,
    teacher: str,
    to: Path,
    request: LabelRequest | None = None,
    *,
    dry_run: bool = False,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> LabelReport:
    """Let a trusted teacher answer the open questions and write its accepted answers as a manifest.

    An interrupted call resumes. Answers stay in a journal beside the teacher's column, so other filters cost nothing.
    The manifest is replaced in one step, and kept if no answer is accepted (see :func:`no_labels_error`).

    Args:
        to: the manifest; each row has the origin of its answer in ``extra.pseudo``.
        dry_run: count only; no question is sent and nothing is written but measured trust.

    Raises:
        KdkitError: ``to`` is another file; a teacher that is unknown, does not answer or has no features; no open
            question; an unknown domain; an error of the teacher.
    """
    reporter, request = reporter or Silent(), request or LabelRequest()
    known_teachers = tuple(project.registry.teachers)
    if teacher not in known_teachers:
        fix = did_you_mean(teacher, known_teachers)
        raise KdkitError("KD-LABEL-008", f"no teacher '{teacher}' in the registry", fix=fix)
    require_replaceable(to, lambda row: "pseudo" in row["extra"])
    index = load_index(project, reporter)
    questions = _open_questions(index, request.domains)
    measured = report_trust(project, index=index, device=None if dry_run else device, reporter=reporter)
    trust = _trusted_domains(measured, teacher)
    column = locked_column(FeatureStore(project.features), project.lock, teacher)
    domains = [index.domains[number] for number in index.domain_index[questions]]
    trusted = [row for row, domain in zip(questions, domains, strict=True) if domain in trust]
    drawn = trusted if request.share is None else _draw(index, trusted, request.share, request.seed)
    limited = drawn[: request.limit]
    skipped = find_skipped(index.part(np.asarray(limited, dtype=np.int64)), project.state, reporter, refuse=not dry_run)
    chosen = index.keyed(row for row, skip in zip(limited, skipped, strict=True) if not skip)
    journal = answer_journal(column.folder / PSEUDO_LABELS, DECODING)
    answers = journal.read()
    todo = [pair for pair in chosen if pair[0] not in answers]
    if todo and not dry_run:
        from kdkit.core.teachers import open_answering

        model = open_answering(project, teacher, device, reporter=reporter)
        for error in append_answers(model, journal, todo, DECODING, reporter, teacher).values():
            raise error  # it could be read a moment ago
        answers = journal.read()
    accepted, rejected = _filter([] if dry_run else chosen, answers, request)
    learnable = _learnable(project, [sample for sample, _ in accepted], reporter)
    labels = [label for label, able in zip(accepted, learnable, strict=True) if able]
    manifest = Manifest(to, project.root, index.samples)
    about = {"teacher": teacher, "fingerprint": column.fingerprint, "decoding": decoding_settings(DECODING)}
    if labels:
        write_rows(to, (_label_row(manifest, *label, about, trust) for label in labels))
    return LabelReport(
        teacher=teacher,
        file=manifest.file,
        image_root=manifest.image_root,
        unanswered=len(questions),
        not_trusted=count_domains(s for row in questions if (s := index.samples[row]).domain not in trust),
        not_drawn=len(trusted) - len(drawn),
        over_limit=len(drawn) - len(limited),
        answered=0 if dry_run else len(todo),
        known=len(chosen) - len(todo),
        empty=rejected.count("empty"),
        unsure=rejected.count("unsure"),
        unknown=rejected.count("unknown"),
        unlearnable=learnable.count(False),
        kept=count_domains(sample for sample, _ in labels),
        dry_run=dry_run,
    )


def _filter(
    chosen: Sequence[tuple[SampleKey, Sample]], answers: Mapping[SampleKey, Mapping[str, Any]], request: LabelRequest
) -> tuple[list[tuple[Sample, float | None]], list[str]]:
    """Samples with their accepted answers and confidences, and the reasons of rejected ones."""
    accepted, rejected = list[tuple[Sample, float | None]](), list[str]()
    for key, sample in chosen:
        text, confidence = answers[key]["answer"].strip(), answers[key]["confidence"]
        if reason := request.reject(text, confidence):
            rejected.append(reason)
        else:
            accepted.append((replace(sample, text=text), confidence))
    return accepted, rejected


def _label_row(
    manifest: Manifest,
    sample: Sample,
    confidence: float | None,
    about: Mapping[str, Any],
    trust: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    origin = {**about, "trust": trust[sample.domain], "confidence": confidence, "sample": sample.id}
    return manifest.row(sample, str(about["teacher"]), sample.text, {"pseudo": origin})


def no_labels_error(report: LabelReport) -> KdkitError:
    """The error if no answer became a pseudo-label: counts by reason, and the remedy for the most frequent one."""
    answer = f"kdkit answer --teacher {report.teacher}"
    counts = (
        (sum(report.not_trusted.values()), "in domains where the trust policy does not admit it", "kdkit trust"),
        (report.empty, "with empty answers", f"look at its answers: {answer}"),
        (report.unsure, "not confident enough", "lower --min-confidence"),
        (report.unknown, "without a confidence", "leave --min-confidence out: the model returns no probabilities"),
        (report.unlearnable, "refused by the student", f"look at the answers ({answer} --split train) and max_answer"),
    )
    found = [part for part in counts if part[0]]
    return KdkitError(
        "KD-LABEL-007",
        f"no answer of {report.teacher} became a pseudo-label, and nothing was written",
        where=report.file,
        why=f"of {report.unanswered} questions: " + ", ".join(f"{count} {what}" for count, what, _ in found),
        fix=max(found)[2],
        code=ExitCode.FOUND,
    )


def _open_questions(index: SampleIndex, domains: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    rows = index.select(split="train", domains=domains or None)
    rows = rows[index.unanswered[rows]]
    if not len(rows):
        raise KdkitError(
            "KD-LABEL-009",
            "no question without an answer in the training split" + (" of these domains" if domains else ""),
            fix="add manifest rows with extra.messages and without text: docs/howto/pseudo-labels.md",
            code=ExitCode.FOUND,
        )
    return rows


def _draw(index: SampleIndex, rows: Sequence[int], share: float, seed: int) -> list[int]:
    """A random part of each domain's rows, in their order: those whose ids have the least hashes, rounded up."""
    ranked = sorted(rows, key=lambda row: blake2b(f"{seed}/{index.ids[row]}".encode(), digest_size=8).digest())
    left = {number: ceil(share * count) for number, count in Counter(index.domain_index[row] for row in rows).items()}
    drawn = set()
    for row in ranked:
        number = index.domain_index[row]
        if left[number] > 0:
            left[number] -= 1
            drawn.add(row)
    return [row for row in rows if row in drawn]


def _trusted_domains(report: TrustReport, teacher: str) -> dict[str, dict[str, Any]]:
    """Domain -> trust of the teacher, where the project's policy admits it; unmeasured numbers are None."""
    table, weights = report.table, report.chosen.weights
    if teacher not in table.teachers:
        raise KdkitError(
            "KD-LABEL-010",
            f"trust in teacher '{teacher}' is unknown, because it has no answers yet",
            fix=f"kdkit features extract {teacher}",
            code=ExitCode.MISSING,
        )
    t = table.teachers.index(teacher)
    measured = {"accuracy": table.accuracy[t], "lower": table.lower[t], "upper": table.upper[t]}
    return {
        domain: {
            **{name: None if np.isnan(values[m]) else float(values[m]) for name, values in measured.items()},
            "weight": float(weights.teachers[t, m]),
            "policy": report.chosen.policy,
        }
        for m, domain in enumerate(table.domains)
        if weights.teachers[t, m] > 0
    }


def _learnable(project: Project, samples: Sequence[Sample], reporter: Reporter) -> list[bool]:
    """Whether the project's student accepts each sample; one that it refuses would stop a training run."""
    from kdkit.core.distill.model.student import StudentBuilder

    if not samples:
        return []
    current = Versions(project).current()
    student: Any = load_student(current, project.catalogue) if current else StudentBuilder.of(project).student
    accepted = list[bool]()
    with ThreadPoolExecutor(4) as pool:
        for able in pool.map(partial(can_learn, student), samples):
            accepted.append(able)
            reporter.progress("checking answers", len(accepted), len(samples))
    return accepted
