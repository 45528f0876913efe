"""Samples of a project answered by a version of the student or by a teacher, and the best of several answers chosen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from kdkit.core.base.atomic import disk_errors, write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Answering, Decoding, Reporter, Sample, Silent, Split
from kdkit.core.data.images import open_image
from kdkit.core.data.load import load_index
from kdkit.core.distill.pseudo_labels.manifest import require_replaceable
from kdkit.core.evaluation.best_of_n.kept import Kept
from kdkit.core.evaluation.best_of_n.rerank import Reranker
from kdkit.core.project.versions import Versions, load_student

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

BATCH = 16


@dataclass(frozen=True)
class Choice:
    """One answer to a sample.

    Attributes:
        text: the answer.
        confidence: mean probability of its tokens; None where the model does not tell it.
        score: cosine with the image; None where nothing re-ranks.
    """

    text: str
    confidence: float | None
    score: float | None


@dataclass(frozen=True)
class Selected:
    """The answers to one sample, in the order in which the model gave them.

    Attributes:
        id, domain: of the sample; ``reference``: its own text, empty where it has none.
        chosen: which of ``answers`` is taken: the highest score, the first of equals; without scores the first.
    """

    id: str
    domain: str
    reference: str
    chosen: int
    answers: tuple[Choice, ...]

    @property
    def text(self) -> str:
        return self.answers[self.chosen].text

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "text": self.text}

    @classmethod
    def from_kept(cls, kept: Mapping[str, Any]) -> Self:
        """From what ``asdict`` made of it, and JSON of that."""
        return cls(**{**kept, "answers": tuple(Choice(**choice) for choice in kept["answers"])})


def select(
    model: Answering,
    samples: Sequence[Sample],
    decoding: Decoding,
    reranker: Reranker | None = None,
    reporter: Reporter | None = None,
    kept: Kept | None = None,
) -> list[Selected]:
    """Answer all samples; with a re-ranker the answer nearest to the image is chosen, without one the first.

    The same samples, decoding and models give the same answers and choices.

    Args:
        kept: has the groups of an earlier call alike, which are not asked for again, and gets those of this one.

    Raises:
        KdkitError: what the model raises, and unreadable images.
    """
    reporter, groups = reporter or Silent(), list(kept.read()) if kept else []
    for start in range(len(groups) * BATCH, len(samples), BATCH):
        part = samples[start : start + BATCH]
        before = set(reranker.unread) if reranker else set()
        found = _answer(model, part, decoding, reranker)
        unread = sorted(reranker.unread - before) if reranker else []
        groups.append({"found": [asdict(one) for one in found], "unread": unread})
        if kept:
            kept.append(groups[-1])
        reporter.progress("answering", start + len(part), len(samples))
    cut_off = {text for group in groups for text in group["unread"]}
    if reranker and cut_off:
        reporter.warn(f"{len(cut_off)} answers are longer than what {reranker.name} reads: cut off in its scores")
    return [Selected.from_kept(one) for group in groups for one in group["found"]]


def _answer(model: Answering, part: Sequence[Sample], decoding: Decoding, reranker: Reranker | None) -> list[Selected]:
    """The answers to one group."""
    images = [open_image(sample) for sample in part]
    answers = model.answer(images, part, decoding)
    texts = [[answer.text for answer in group] for group in answers]
    scores: list[list[float]] | None = reranker.scores(images, texts) if reranker else None
    found = []
    for number, (sample, group) in enumerate(zip(part, answers, strict=True)):
        own = scores[number] if scores else [None] * len(group)
        choices = tuple(Choice(a.text, a.confidence, s) for a, s in zip(group, own, strict=True))
        best = max(range(len(group)), key=scores[number].__getitem__) if scores else 0
        found.append(Selected(sample.id, sample.domain, sample.text, best, choices))
    return found


@dataclass(frozen=True)
class Asked:
    """Who is asked what.

    Attributes:
        version: of the student (None: the current one), unless ``teacher`` is asked instead.
        rerank: a dual encoder of the registry that chooses among the answers.
        split, domains, limit: which samples; no domain means all, no limit too.
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
            raise KdkitError("KD-EVAL-003", "at least one sample", where="limit")


def answer_samples(
    project: Project,
    asked: Asked,
    decoding: Decoding,
    *,
    to: Path | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> list[Selected]:
    """Answers to samples of the project, in the table's order.

    May be stopped at any moment, and goes on where it was when it is called again alike.

    Args:
        to: written whole at the end, JSON Lines.

    Raises:
        KdkitError: ``to`` holds something else; an unknown version, teacher or domain; no sample; a model that does not
            answer, or one to re-rank that is no dual encoder; what :func:`select` raises.
    """
    reporter = reporter or Silent()
    if to:
        require_replaceable(to, lambda row: "chosen" in row)
    table = load_index(project, reporter)
    rows = table.select(split=asked.split, domains=asked.domains or None)[: asked.limit]
    if not len(rows):
        raise KdkitError("KD-EVAL-004", f"there is no sample in the split '{asked.split}'", code=ExitCode.FOUND)
    reranker = None
    if asked.rerank:
        from kdkit.core.teachers import open_teacher

        opened = open_teacher(project, asked.rerank, reporter=reporter)
        reranker = Reranker(asked.rerank, opened.model, device=device)
    model = _answering(project, asked, device, reporter)
    keys = [(table.ids[row], int(table.digests[row])) for row in rows]
    kept = Kept(project.state / "answers" / f"{_name(project, asked, decoding, keys)}.jsonl")
    with disk_errors(str(project.state)):
        found = select(model, [table.samples[row] for row in rows], decoding, reranker, reporter, kept)
    if to:
        lines = (json.dumps(one.to_json(), ensure_ascii=False) + "\n" for one in found)
        write_atomically(to, "".join(lines).encode())
    kept.remove()
    return found


def _name(project: Project, asked: Asked, decoding: Decoding, keys: Sequence[tuple[str, int]]) -> str:
    """Of everything that decides the answers and their order; the models are known to be there."""
    lock = project.lock
    who = [lock.teacher(name).fingerprint if name else None for name in (asked.teacher, asked.rerank)]
    if not asked.teacher:
        version = Versions(project).get(asked.version)
        who.append(f"{version.name} {version.lineage['created']}")
    about = [who, asdict(decoding), BATCH, keys]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _answering(project: Project, asked: Asked, device: str, reporter: Reporter) -> Answering:
    from torch import nn

    from kdkit.core.teachers import open_answering

    if asked.teacher:
        return open_answering(project, asked.teacher, device, reporter=reporter)
    version = Versions(project).get(asked.version)
    model = load_student(version, project.catalogue)
    if not isinstance(model, Answering):
        fix = "dual encoders are judged by 'kdkit evaluate'"
        raise KdkitError("KD-EVAL-005", f"{version.name} does not answer questions", fix=fix)
    return model.to(device).eval() if isinstance(model, nn.Module) else model
