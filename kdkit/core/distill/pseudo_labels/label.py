"""From a project's unanswered questions to a manifest of pseudo-labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.journal import SampleKey
from kdkit.core.base.jsonl import require_replaceable, write_rows
from kdkit.core.contracts import Decoding, Reporter, Sample, Silent
from kdkit.core.data.load import load_index
from kdkit.core.distill.pseudo_labels.manifest import (
    count_domains,
    image_root,
    manifest_row,
)
from kdkit.core.evaluation.trust.measure import locked_column
from kdkit.core.evaluation.trust.report import TrustReport, report_trust
from kdkit.core.features import Column, FeatureStore
from kdkit.core.features.extract.answers import answer_journal, append_answers, decoding_settings
from kdkit.core.features.extract.endpoint_answers import PSEUDO_LABELS
from kdkit.core.project.versions import Versions, load_student

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project

DECODING = Decoding(scored=True)
"""Greedy: what the teacher holds most likely, with the probability of each token."""
Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class TeacherAnswer:
    """The text of an answer, and the mean probability of its tokens or None."""

    text: str
    confidence: float | None


@dataclass(frozen=True)
class Wanted:
    """Which answers become pseudo-labels.

    Attributes:
        domains: only these; empty for all that the trust policy admits.
        min_confidence: least mean token probability; None for any, also an unknown one.
        limit: questions that are looked at, at most.
    """

    domains: tuple[str, ...] = ()
    min_confidence: float | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise KdkitError("KD-LABEL-005", "a confidence is in [0, 1]", where="min_confidence")
        if self.limit is not None and self.limit < 1:
            raise KdkitError("KD-LABEL-006", "at least one question", where="limit")


@dataclass(frozen=True)
class Labeled:
    """How many questions fell where.

    Attributes:
        teacher: whose answers; ``file``: the manifest, relative to the project.
        image_root: where its images are, relative to it.
        unanswered: questions of the training split without an answer, in the wanted domains.
        not_trusted: domain -> questions where the trust policy does not admit the teacher.
        over_limit: questions that the limit left out.
        asked: answered now; ``known``: answered before.
        empty: answers without a word; ``unsure``: less confident than asked for; ``unknown``: without a confidence
            though one was asked for; ``unlearnable``: longer than the student's answers may be, with a box outside of
            the image, or else of no use to it.
        kept: pseudo-labels in the manifest, by domain; in a dry run none.
    """

    teacher: str
    file: str
    image_root: str
    unanswered: int
    not_trusted: Mapping[str, int]
    over_limit: int
    asked: int
    known: int
    empty: int
    unsure: int
    unknown: int
    unlearnable: int
    kept: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def pseudo_label(
    project: Project,
    teacher: str,
    to: Path,
    wanted: Wanted | None = None,
    *,
    dry_run: bool = False,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> Labeled:
    """Let a trusted teacher answer the training split's open questions and write those answers that pass as a manifest.

    May be stopped at any moment and goes on where it was; the manifest is replaced whole at the end, and left as it is
    where no answer passes (:func:`why_none`). What was answered is kept beside the teacher's column, so other filters
    cost nothing.

    Args:
        to: the manifest, JSON Lines; each row says where its answer comes from in ``extra.pseudo``.
        dry_run: count only; ask nobody and write nothing but measured trust.

    Raises:
        KdkitError: ``to`` holds something else; a teacher that is unknown, does not answer or has no features; no open
            question; a domain that does not exist; what asking raises.
    """
    reporter, wanted = reporter or Silent(), wanted or Wanted()
    _require_registered(project, teacher)
    require_replaceable(to, lambda row: "pseudo" in row["extra"])
    table = load_index(project, reporter)
    rows = _open_questions(table, wanted.domains)
    trust = _trust_of(report_trust(project, reporter=reporter), teacher)
    column = locked_column(FeatureStore(project.features), project.lock, teacher)
    able = [row for row in rows if table.samples[row].domain in trust]
    chosen = [((table.ids[row], int(table.digests[row])), table.samples[row]) for row in able[: wanted.limit]]
    said = _read_answers(column)
    todo = [pair for pair in chosen if pair[0] not in said]
    if todo and not dry_run:
        said = _ask(project, column, todo, device, reporter)
    answered = [] if dry_run else [(sample, said[key]) for key, sample in chosen]
    faults = [_fault(answer, wanted) for _, answer in answered]
    _mark_unlearnable(project, answered, faults, reporter)
    kept = [pair for pair, fault in zip(answered, faults, strict=True) if fault is None]
    root = image_root(project, table)
    if kept:
        _write(to, kept, column, trust, root)
    return Labeled(
        teacher=teacher,
        file=os.path.relpath(to.resolve(), project.root.resolve()),
        image_root=os.path.relpath(root, to.resolve().parent),
        unanswered=len(rows),
        not_trusted=count_domains([s for row in rows if (s := table.samples[row]).domain not in trust]),
        over_limit=len(able) - len(chosen),
        asked=0 if dry_run else len(todo),
        known=len(chosen) - len(todo),
        empty=faults.count("empty"),
        unsure=faults.count("unsure"),
        unknown=faults.count("unknown"),
        unlearnable=faults.count("unlearnable"),
        kept=count_domains([sample for sample, _ in kept]),
    )


def why_none(done: Labeled) -> KdkitError:
    """What to tell where no answer became a pseudo-label: what fell where, and what helps most of it."""
    asked = f"kdkit answer --teacher {done.teacher}"
    fell = (
        (sum(done.not_trusted.values()), "in domains that the trust policy does not admit it to", "kdkit trust"),
        (done.empty, "answered without a word", f"see whether it always does so: {asked}"),
        (done.unsure, "not confident enough", "lower --min-confidence"),
        (done.unknown, "of unknown confidence", "leave --min-confidence out: the model tells none"),
        (done.unlearnable, "that the student cannot learn", f"look at them ({asked} --split train), and at max_answer"),
    )
    counted = [part for part in fell if part[0]]
    return KdkitError(
        "KD-LABEL-007",
        f"no answer of {done.teacher} became a pseudo-label, and nothing was written",
        where=done.file,
        why=f"of {done.unanswered} questions: " + ", ".join(f"{count} {what}" for count, what, _ in counted),
        fix=max(counted)[2],
        code=ExitCode.FOUND,
    )


def _require_registered(project: Project, teacher: str) -> None:
    known = tuple(project.registry.teachers)
    if teacher not in known:
        raise KdkitError("KD-LABEL-008", f"no teacher '{teacher}' in the registry", fix=did_you_mean(teacher, known))


def _open_questions(table: SampleIndex, domains: Sequence[str]) -> Rows:
    rows = table.select(split="train", domains=domains or None)
    found: Rows = rows[table.unanswered[rows]]
    if not len(found):
        raise KdkitError(
            "KD-LABEL-009",
            "there is no question without an answer in the training split" + (" of these domains" if domains else ""),
            fix="a row of a manifest with extra.messages and without text is one: docs/pseudo-labels.md",
            code=ExitCode.FOUND,
        )
    return found


def _trust_of(findings: TrustReport, teacher: str) -> dict[str, dict[str, Any]]:
    """Domain -> what is known of the teacher there; those alone where the project's policy admits it."""
    table = findings.table
    if teacher not in table.teachers:
        raise KdkitError(
            "KD-LABEL-010",
            f"teacher '{teacher}' has answered nothing yet, so nobody knows how far to trust it",
            fix=f"kdkit features extract {teacher}",
            code=ExitCode.MISSING,
        )
    t = table.teachers.index(teacher)
    return {
        domain: {
            "accuracy": _number(table.accuracy[t, m]),
            "lower": _number(table.lower[t, m]),
            "upper": _number(table.upper[t, m]),
            "weight": float(findings.chosen.weights[t, m]),
            "policy": findings.chosen.policy,
        }
        for m, domain in enumerate(table.domains)
        if findings.chosen.weights[t, m] > 0
    }


def _number(value: float) -> float | None:
    """JSON has no NaN: policies may admit what was not measured."""
    return None if np.isnan(value) else float(value)


def _read_answers(column: Column) -> dict[SampleKey, TeacherAnswer]:
    values = answer_journal(column.folder / PSEUDO_LABELS, DECODING).read()
    return {key: TeacherAnswer(value["answer"].strip(), value["confidence"]) for key, value in values.items()}


def _ask(
    project: Project, column: Column, todo: Sequence[tuple[SampleKey, Sample]], device: str, reporter: Reporter
) -> dict[SampleKey, TeacherAnswer]:
    """All answers of the teacher, with new ones to ``todo``."""
    from kdkit.core.teachers import open_answering

    model = open_answering(project, column.teacher, device, reporter=reporter)
    journal = answer_journal(column.folder / PSEUDO_LABELS, DECODING)
    append_answers(model, journal, todo, DECODING, reporter, column.teacher)
    return _read_answers(column)


def _fault(said: TeacherAnswer, wanted: Wanted) -> str | None:
    """Why an answer is no pseudo-label."""
    if not said.text:
        return "empty"
    if wanted.min_confidence is None:
        return None
    if said.confidence is None:
        return "unknown"
    return "unsure" if said.confidence < wanted.min_confidence else None


def _mark_unlearnable(
    project: Project, answered: Sequence[tuple[Sample, TeacherAnswer]], faults: list[str | None], reporter: Reporter
) -> None:
    """Find those of the other answers that the project's student could not be taught: one would stop a whole run."""
    from kdkit.core.distill.model.student import StudentBuilder
    from kdkit.core.distill.pseudo_labels.review import can_learn

    good = [number for number, fault in enumerate(faults) if fault is None]
    if not good:
        return
    current = Versions(project).current()
    student: Any = load_student(current, project.catalogue) if current else StudentBuilder.of(project).student
    with ThreadPoolExecutor(4) as pool:
        texts = [replace(sample, text=said.text) for sample, said in (answered[number] for number in good)]
        for done, able in enumerate(pool.map(partial(can_learn, student), texts), start=1):
            faults[good[done - 1]] = None if able else "unlearnable"
            reporter.progress("checking answers", done, len(good))


def _write(
    to: Path,
    kept: Sequence[tuple[Sample, TeacherAnswer]],
    column: Column,
    trust: Mapping[str, Mapping[str, Any]],
    root: Path,
) -> None:
    """The manifest; ``trust``: domain -> what is known of the teacher there."""
    about = {"teacher": column.teacher, "fingerprint": column.fingerprint, "decoding": decoding_settings(DECODING)}
    rows = []
    for sample, said in kept:
        origin = {**about, "trust": trust[sample.domain], "confidence": said.confidence, "sample": sample.id}
        rows.append(manifest_row(sample, f"{sample.id}#{column.teacher}", said.text, {"pseudo": origin}, root))
    write_rows(to, rows)
