"""``kdkit answer``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.cli import console

if TYPE_CHECKING:
    from kdkit.core.evaluation.best_of_n.select import SelectedAnswer

WIDTH = 60
"""Characters of an answer that the table shows."""


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command()(answer)


def answer(
    version: Annotated[str | None, typer.Option(help="Who answers: a version (default: the current one).")] = None,
    teacher: Annotated[str | None, typer.Option(metavar="NAME", help="Ask a teacher of the registry instead.")] = None,
    split: Annotated[str, typer.Option(help="train, calibration or test.")] = "test",
    domain: Annotated[list[str] | None, typer.Option(help="Only samples of this domain; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(help="Ask this many samples at most.")] = None,
    samples: Annotated[int, typer.Option(help="Draw this many answers to each sample.")] = 0,
    beams: Annotated[int, typer.Option(help="Width of a beam search, which gives as many answers.")] = 1,
    temperature: Annotated[float, typer.Option(help="Of drawn answers.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Of drawn answers.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of drawn answers.")] = 0,
    max_new: Annotated[int, typer.Option(help="Tokens of an answer, at most.")] = 128,
    rerank: Annotated[
        str | None, typer.Option(metavar="TEACHER", help="Choose the answer nearest to the image by this dual encoder.")
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE.jsonl", help="Write the answers here too.")] = None,
    device: Annotated[str, typer.Option(help="Where the models run, e.g. cuda.")] = "cpu",
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Answers of the student (or of a teacher) to samples, the best of several chosen by a dual encoder.

    May be interrupted at any time; run again, it goes on.
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
    console.emit([one.to_json() for one in found], json=json, text=lambda: _text(found))


def _text(found: list[SelectedAnswer]) -> str:
    rows = [
        (
            one.id if number == 0 else "",
            "*" if number == one.chosen else "",
            _number(choice.score),
            _number(choice.confidence),
            " ".join(choice.text.split())[:WIDTH],
        )
        for one in found
        for number, choice in enumerate(one.answers)
    ]
    return console.table(("sample", "chosen", "score", "confidence", "answer"), rows, "llrrl")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
