"""Answers to a project's samples by a version of the student or by a teacher, the best of several chosen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.journal import Journal, SampleKey, temporary_journal
from kdkit.core.base.jsonl import require_replaceable, write_rows
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import Answering, Decoding, Reporter, Silent, Split
from kdkit.core.data.load import load_index
from kdkit.core.data.unreadable import find_skipped
from kdkit.core.evaluation.best_of_n.rerank import Reranker
from kdkit.core.evaluation.best_of_n.select import BATCH, SelectedAnswer, select_answers
from kdkit.core.project.versions import Version, Versions, load_student
from kdkit.core.teachers import open_answering, open_teacher

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.lock import Lock


@dataclass(frozen=True)
class AnswerRequest:
    """Which model answers which samples.

    Attributes:
        version: of the student (None: the current one), unless ``teacher`` is given.
        rerank: a dual encoder of the registry that chooses among the answers.
        split, domains, limit: select the samples; by default all of the split.
    """

    version: str | None = None
    teacher: str | None = None
    rerank: str | None = None
    split: Split = "test"
    domains: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.teacher is not None:
            raise KdkitError(
                "KD-EVAL-002", "either a version of the student answers or a teacher", fix="leave one of them out"
            )
        if self.limit is not None and self.limit < 1:
            raise KdkitError(
                "KD-EVAL-003", f"the limit is {self.limit}", where="limit", fix="give a number of at least 1"
            )


def answer_samples(
    project: Project,
    request: AnswerRequest,
    decoding: Decoding,
    *,
    to: Path | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> list[SelectedAnswer]:
    """Answers to samples of the project, in the order of its index.

    Can be interrupted at any moment; the same call resumes.

    Args:
        to: a JSON Lines file, written whole at the end.

    Raises:
        KdkitError: ``to`` holds something else; an unknown version, teacher or domain; no sample; a model that does not
            answer; a re-ranker that is not a dual encoder; errors of :func:`select_answers`.
    """
    reporter = reporter or Silent()
    if to:
        require_replaceable(to, lambda row: "chosen" in row)
    index = load_index(project, reporter)
    rows = index.select(split=request.split, domains=request.domains or None)[: request.limit]
    if not len(rows):
        raise KdkitError(
            "KD-EVAL-004",
            f"there is no sample in the split '{request.split}'",
            fix="choose another by --split or --domain; 'kdkit data check' counts the samples",
            code=ExitCode.FOUND,
        )
    version = None if request.teacher else Versions(project).get(request.version)
    reranker = None
    if request.rerank:
        reranker = Reranker(request.rerank, open_teacher(project, request.rerank, reporter=reporter).model, device)
    if version is None:
        model = open_answering(project, str(request.teacher), device, reporter=reporter)
    else:
        model = _open_student(version, project.catalogue, device)
    samples = index.keyed(rows[~find_skipped(index.part(rows), project.state, reporter, refuse=True)])
    name = _journal_name(request, version, project.lock, decoding, [key for key, _ in samples])
    with (
        system_errors(str(project.state)),
        temporary_journal(project.state / "answers" / f"{name}.jsonl") as journal,
    ):
        selected = select_answers(model, samples, decoding, Journal(journal), reranker, reporter)
        if to:
            write_rows(to, (answer.to_json() for answer in selected))
    return selected


def _journal_name(
    request: AnswerRequest, version: Version | None, lock: Lock, decoding: Decoding, keys: Sequence[SampleKey]
) -> str:
    """Digest of everything that determines the answers and their order."""
    models = [lock.teacher(name).fingerprint if name else None for name in (request.teacher, request.rerank)]
    if version is not None:
        models.append(f"{version.name} {version.lineage.created}")
    inputs = [models, asdict(decoding), BATCH, keys]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def _open_student(version: Version, catalogue: Catalogue, device: str) -> Answering:
    model = load_student(version, catalogue)
    if not isinstance(model, Answering):
        raise KdkitError(
            "KD-EVAL-005", f"{version.name} does not answer questions", fix="evaluate dual encoders by 'kdkit evaluate'"
        )
    return model.to(device).eval() if isinstance(model, nn.Module) else model
