"""The gate of a model for all domains, without answers to other samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Decoding, Reporter, Silent
from kdkit.core.data.load import load_index
from kdkit.core.evaluation.answering.answer import AnswerRequest
from kdkit.core.evaluation.answering.gate_file import Gate
from kdkit.core.evaluation.answering.measure import measured_gate
from kdkit.core.evaluation.answering.models import decodings_of, open_models

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


def decide_gate(
    project: Project,
    request: AnswerRequest,
    decoding: Decoding,
    *,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> Gate:
    """In which domains one of several answers is chosen, and how: measured on the calibration split, or read.

    Can be interrupted at any moment; the same call resumes.

    Args:
        request: its model and domains; by default all domains of the calibration split.

    Raises:
        KdkitError: one answer, among which nothing can be chosen; no calibration sample; errors of the models.
    """
    reporter = reporter or Silent()
    if sum(one.answers for one in decodings_of(decoding)) < 2:
        raise KdkitError(
            "KD-EVAL-583", "one answer leaves nothing to choose", where="samples", fix="give --samples 5 or --beams 3"
        )
    index = load_index(project, reporter)
    rows = index.select(split="calibration", domains=request.domains or None)
    if not len(rows):
        raise KdkitError(
            "KD-EVAL-584",
            "there is no calibration sample to measure on",
            fix="give a data entry a calibration split (docs/howto/data.md); without one answers are not chosen",
            code=ExitCode.FOUND,
        )
    models = open_models(project, request.version, request.teacher, request.rerank, device=device, reporter=reporter)
    domains = request.domains or tuple(dict.fromkeys(index.domains[number] for number in index.domain_index[rows]))
    return measured_gate(project, index, models, decoding, domains, reporter)
