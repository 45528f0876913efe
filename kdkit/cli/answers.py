"""``kdkit answer``, ``kdkit pseudo-label`` and ``kdkit correct``: commands for models that answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.cli import console

VersionOption = Annotated[str | None, typer.Option(help="The version that answers (default: the current one).")]
DomainsOption = Annotated[
    list[str] | None, typer.Option("--domain", help="Only samples of this domain; may be repeated.")
]
LimitOption = Annotated[int | None, typer.Option(help="Samples, at most.")]
DeviceOption = Annotated[str, typer.Option(help="Device of local models, e.g. cuda.")]
SamplesOption = Annotated[int, typer.Option(help="Sampled answers per sample; 0 for greedy decoding.")]
BeamsOption = Annotated[int, typer.Option(help="Width of a beam search, which gives as many answers.")]
TemperatureOption = Annotated[float, typer.Option(help="Of sampling.")]
TopPOption = Annotated[float, typer.Option(help="Of sampling.")]
SeedOption = Annotated[int, typer.Option(help="Of sampling.")]
MaxNewOption = Annotated[int, typer.Option(help="Tokens of an answer, at most.")]
TeacherOption = Annotated[str | None, typer.Option(metavar="NAME", help="A teacher answers instead.")]
RerankOption = Annotated[
    str | None, typer.Option(metavar="TEACHER", help="A dual encoder, for the answer nearest to the image.")
]
ManifestOption = Annotated[Path, typer.Option(metavar="FILE.jsonl", help="The manifest to write.")]


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("pseudo-label")(pseudo_label)
    app.command()(answer)
    app.command("best-of-n")(best_of_n)
    app.command()(correct)


def answer(
    version: VersionOption = None,
    teacher: TeacherOption = None,
    split: Annotated[str, typer.Option(help="train, calibration or test.")] = "test",
    domains: DomainsOption = None,
    limit: LimitOption = None,
    samples: SamplesOption = 0,
    beams: BeamsOption = 1,
    temperature: TemperatureOption = 1.0,
    top_p: TopPOption = 1.0,
    seed: SeedOption = 0,
    max_new: MaxNewOption = 128,
    rerank: RerankOption = None,
    choose: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="gated: only where choosing helps by 'kdkit best-of-n'; nearest: always the answer nearest to the "
            "image; first. Default: gated with --rerank, else first.",
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE.jsonl", help="Write the answers to this file too.")] = None,
    form: Annotated[
        str, typer.Option(help="Of the file: kdkit, or lmms-eval for sample logs that lmms-eval scores.")
    ] = "kdkit",
    attention: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw where the answers to the first six samples look.")
    ] = None,
    device: DeviceOption = "cpu",
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Answer samples with the student or a teacher; the best of several answers can be chosen.

    With --rerank one of several answers is chosen where that helped on the calibration split; elsewhere the greedy
    answer is taken. An interrupted command resumes when it is repeated.
    """
    project = console.project(folder)
    console.resumable()
    found = project.answer(
        version=version,
        teacher=teacher,
        split=split,
        domains=domains or (),
        limit=limit,
        samples=samples,
        beams=beams,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        max_new=max_new,
        rerank=rerank,
        choose=choose,
        to=to,
        form=form,
        attention=attention,
        device=device,
    )
    console.emit(found, json=json)


def best_of_n(
    version: VersionOption = None,
    teacher: TeacherOption = None,
    domains: DomainsOption = None,
    samples: SamplesOption = 0,
    beams: BeamsOption = 1,
    temperature: TemperatureOption = 1.0,
    top_p: TopPOption = 1.0,
    seed: SeedOption = 0,
    max_new: MaxNewOption = 128,
    rerank: RerankOption = None,
    device: DeviceOption = "cpu",
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Measure on the calibration split where choosing among several answers beats the plain answer.

    Boxes and closed questions are chosen by agreement, free texts by agreement or a dual encoder. 'kdkit answer'
    follows the decision, which is kept with the version. An interrupted command resumes when it is repeated.
    """
    project = console.project(folder)
    console.resumable()
    found = project.best_of_n(
        version=version,
        teacher=teacher,
        domains=domains or (),
        samples=samples,
        beams=beams,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        max_new=max_new,
        rerank=rerank,
        device=device,
    )
    console.emit(found, json=json)


def pseudo_label(
    teacher: Annotated[str, typer.Option(metavar="NAME", help="The teacher that answers.")],
    to: ManifestOption,
    domains: DomainsOption = None,
    min_confidence: Annotated[
        float | None, typer.Option(help="Least mean probability of an answer's tokens, 0 to 1.")
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="Share of each domain's questions, drawn at random; 0 to 1 (default: all).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the share.")] = 0,
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
    project = console.project(folder)
    console.resumable()
    done = project.pseudo_label(
        teacher,
        to,
        domains=domains or (),
        min_confidence=min_confidence,
        share=share,
        seed=seed,
        limit=limit,
        dry_run=dry_run,
        device=device,
    )
    console.emit(done, json=json)
    if not done.kept and not dry_run:
        from kdkit.core.distill.pseudo_labels.label import no_labels_error

        raise no_labels_error(done)


def correct(
    to: ManifestOption,
    version: VersionOption = None,
    threshold: Annotated[float, typer.Option(help="Answers that score lower are corrected, 0 to 1.")] = 0.8,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Of the scoring task; may be repeated.")
    ] = None,
    corrector: Annotated[
        str, typer.Option(metavar="TEACHER", help="The teacher that rewrites; 'reference' for the reference itself.")
    ] = "reference",
    accept: Annotated[
        float | None, typer.Option(help="Least score of a corrector's text (default: the threshold).")
    ] = None,
    domains: DomainsOption = None,
    limit: LimitOption = None,
    device: DeviceOption = "cpu",
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Let the student answer the training split, and write its wrong answers, corrected, as a manifest.

    The manifest is a data entry like any other (source: jsonl): the next 'kdkit distill' learns from it. An interrupted
    command resumes when it is repeated. A recipe with 'correction' does this inside a run, after every epoch.
    """
    project = console.project(folder)
    console.resumable()
    done = project.correct(
        to,
        version=version,
        threshold=threshold,
        options=console.parse_options(options),
        corrector=corrector,
        accept=accept,
        domains=domains or (),
        limit=limit,
        device=device,
    )
    console.emit(done, json=json)
