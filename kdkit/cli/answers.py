"""``kdkit answer``, ``kdkit pseudo-label`` and ``kdkit correct``: commands for models that answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.cli import console
from kdkit.cli.trust import named_option

if TYPE_CHECKING:
    from kdkit.core.distill.pseudo_labels.correct import CorrectionReport
    from kdkit.core.distill.pseudo_labels.label import LabelReport
    from kdkit.core.evaluation.best_of_n.select import SelectedAnswer

VersionOption = Annotated[str | None, typer.Option(help="The version that answers (default: the current one).")]
DomainOption = Annotated[list[str] | None, typer.Option(help="Only samples of this domain; may be repeated.")]
LimitOption = Annotated[int | None, typer.Option(help="Samples, at most.")]
DeviceOption = Annotated[str, typer.Option(help="Device of local models, e.g. cuda.")]
ManifestOption = Annotated[Path, typer.Option(metavar="FILE.jsonl", help="The manifest to write.")]
WIDTH = 60
"""Characters of an answer in the table."""


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("pseudo-label")(pseudo_label)
    app.command()(answer)
    app.command()(correct)


def answer(
    version: VersionOption = None,
    teacher: Annotated[str | None, typer.Option(metavar="NAME", help="A teacher answers instead.")] = None,
    split: Annotated[str, typer.Option(help="train, calibration or test.")] = "test",
    domain: DomainOption = None,
    limit: LimitOption = None,
    samples: Annotated[int, typer.Option(help="Sampled answers per sample; 0 for greedy decoding.")] = 0,
    beams: Annotated[int, typer.Option(help="Width of a beam search, which gives as many answers.")] = 1,
    temperature: Annotated[float, typer.Option(help="Of sampling.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Of sampling.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    max_new: Annotated[int, typer.Option(help="Tokens of an answer, at most.")] = 128,
    rerank: Annotated[
        str | None, typer.Option(metavar="TEACHER", help="A dual encoder chooses the answer nearest to the image.")
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE.jsonl", help="Write the answers to this file too.")] = None,
    device: DeviceOption = "cpu",
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Answers of the student (or of a teacher) to samples, the best of several chosen by a dual encoder.

    An interrupted command resumes when it is repeated.
    """
    project, reporter = console.project(folder), console.reporter()

    from kdkit.core.base.errors import KdkitError, did_you_mean
    from kdkit.core.contracts import SPLITS, Decoding

    if split not in SPLITS:
        raise KdkitError("KD-CLI-001", f"there is no split '{split}'", where="--split", fix=did_you_mean(split, SPLITS))

    from kdkit.core.evaluation.best_of_n.answer import AnswerRequest, answer_samples

    decoding = Decoding(max_new, beams, samples, temperature, top_p, seed, scored=True)
    request = AnswerRequest(version, teacher, rerank, split, tuple(domain or ()), limit)
    console.resumable()
    with project.exclusive("kdkit answer"):
        found = answer_samples(project, request, decoding, to=to, device=device, reporter=reporter)
    console.emit([one.to_json() for one in found], json=json, text=lambda: _answers_text(found))


def _answers_text(found: Sequence[SelectedAnswer]) -> str:
    rows = [
        (
            one.id if number == 0 else "",
            "*" if number == one.chosen else "",
            *("" if value is None else f"{value:.3f}" for value in (choice.score, choice.confidence)),
            " ".join(choice.text.split())[:WIDTH],
        )
        for one in found
        for number, choice in enumerate(one.answers)
    ]
    return console.table(("sample", "chosen", "score", "confidence", "answer"), rows, "llrrl")


def pseudo_label(
    teacher: Annotated[str, typer.Option(metavar="NAME", help="The teacher that answers.")],
    to: ManifestOption,
    domain: DomainOption = None,
    min_confidence: Annotated[
        float | None, typer.Option(help="Least mean probability of an answer's tokens, 0 to 1.")
    ] = None,
    limit: LimitOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count questions; send none and write no file.")] = False,
    device: DeviceOption = "cpu",
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Let a trusted teacher answer the questions of the training split that have no answer.

    It answers only in domains where the project's trust policy admits it. The manifest is a data entry like any other
    (source: jsonl). An interrupted command resumes when it is repeated.
    """
    project, reporter = console.project(folder), console.reporter()

    from kdkit.core.distill.pseudo_labels.label import LabelRequest, no_labels_error, write_pseudo_labels

    request = LabelRequest(tuple(domain or ()), min_confidence, limit)
    console.resumable()
    with project.exclusive("kdkit pseudo-label"):
        report = write_pseudo_labels(project, teacher, to, request, dry_run=dry_run, device=device, reporter=reporter)
    console.emit({**report.to_json(), "dry_run": dry_run}, json=json, text=lambda: _labels_text(report, dry_run))
    for name, count in report.not_trusted.items():
        reporter.warn(f"domain '{name}': {count} questions stay open, the trust policy does not admit {teacher} there")
    if not report.kept and not dry_run:
        raise no_labels_error(report)


def _labels_text(report: LabelReport, dry_run: bool) -> str:
    rows = [("questions without an answer", report.unanswered)]
    rows += [(f"- not trusted in {name}", count) for name, count in report.not_trusted.items()]
    rows += [("- over the limit", report.over_limit)] if report.over_limit else []
    if dry_run:
        left = report.unanswered - sum(report.not_trusted.values()) - report.over_limit - report.known
        rows += [("answered before", report.known), ("to be answered", left)]
        return console.table((report.teacher, "questions"), rows, "lr")
    rows += [("answered now", report.answered), ("answered before", report.known), ("- empty answers", report.empty)]
    rows += [("- not confident enough", report.unsure), ("- without a confidence", report.unknown)]
    rows += [("- refused by the student", report.unlearnable)]
    rows += [(f"pseudo-labels in {name}", count) for name, count in report.kept.items()] or [("pseudo-labels", 0)]
    return console.table((report.teacher, "questions"), rows, "lr") + (_data_entry(report) if report.kept else "")


def correct(
    to: ManifestOption,
    version: VersionOption = None,
    threshold: Annotated[float, typer.Option(help="Answers that score lower are corrected, 0 to 1.")] = 0.8,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the scoring task; may be repeated.")
    ] = None,
    corrector: Annotated[
        str, typer.Option(metavar="TEACHER", help="The teacher that rewrites; 'reference' for the reference itself.")
    ] = "reference",
    accept: Annotated[
        float | None, typer.Option(help="Least score of a corrector's text (default: the threshold).")
    ] = None,
    domain: DomainOption = None,
    limit: LimitOption = None,
    device: DeviceOption = "cpu",
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Let the student answer the training split, and write its wrong answers, corrected, as a manifest.

    The manifest is a data entry like any other (source: jsonl): the next 'kdkit distill' learns from it. An interrupted
    command resumes when it is repeated. A recipe with 'correction' does this inside a run, after every epoch.
    """
    project, reporter = console.project(folder), console.reporter()
    options = dict(named_option(text) for text in option or ())

    from kdkit.core.distill.pseudo_labels.correct import CorrectionRequest, write_corrections

    request = CorrectionRequest(threshold, accept, options, corrector, tuple(domain or ()), limit)
    console.resumable()
    with project.exclusive("kdkit correct"):
        report = write_corrections(project, to, request, version=version, device=device, reporter=reporter)
    console.emit(report.to_json(), json=json, text=lambda: _corrections_text(report))


def _corrections_text(report: CorrectionReport) -> str:
    rows = [("reviewed training samples", report.answered), ("- before this call", report.known)]
    rows += [("- that the task cannot score", report.unscored)]
    rows += [(f"corrected in {name}", count) for name, count in report.wrong.items()] or [("corrected", 0)]
    rows += [("- with the corrector's text", report.rewritten), ("- its text was rejected", report.refused)]
    entry = _data_entry(report) if report.wrong else "\n\nno answer is wrong: nothing was written"
    return console.table((report.version, "samples"), rows, "lr") + entry


def _data_entry(report: LabelReport | CorrectionReport) -> str:
    entry = f"{{source: jsonl, path: {report.file}, options: {{image_root: {report.image_root}}}}}"
    return f"\n\nin registry.yaml, under data:\n  - {entry}"
