"""Several answers to each sample by one model, and the selection of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from kdkit.core.base.journal import Journal, JournalEntry, SampleKey
from kdkit.core.contracts import Answering, Decoding, Reporter, Sample
from kdkit.core.data.images import open_image
from kdkit.core.evaluation.best_of_n.rerank import Reranker

BATCH = 16


@dataclass(frozen=True)
class Candidate:
    """One answer to a sample.

    Attributes:
        text: the answer.
        confidence: mean probability of its tokens; None if the model does not return it.
        score: cosine with the image; None without a re-ranker.
    """

    text: str
    confidence: float | None
    score: float | None


@dataclass(frozen=True)
class SelectedAnswer:
    """The answers to one sample, in the model's order.

    Attributes:
        id, domain: of the sample; ``reference``: its own text, empty if it has none.
        chosen: index into ``answers``: the highest score, the first of equals; without scores the first.
    """

    id: str
    domain: str
    reference: str
    chosen: int
    answers: tuple[Candidate, ...]

    @property
    def text(self) -> str:
        return self.answers[self.chosen].text

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "text": self.text}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        fields = {name: data[name] for name in ("id", "domain", "reference", "chosen")}
        return cls(**fields, answers=tuple(Candidate(**answer) for answer in data["answers"]))


def select_answers(
    model: Answering,
    samples: Sequence[tuple[SampleKey, Sample]],
    decoding: Decoding,
    journal: Journal,
    reranker: Reranker | None,
    reporter: Reporter,
) -> list[SelectedAnswer]:
    """Answer all samples; a re-ranker chooses the answer nearest to the image, without one the first is taken.

    The same samples, decoding and models give the same answers and choices.

    Args:
        journal: one entry per batch, under the key of its first sample. Batches that it has are not answered again.

    Raises:
        KdkitError: an error of the model; an unreadable image.
    """
    known, selected, truncated = journal.read(), list[SelectedAnswer](), set[str]()
    for start in range(0, len(samples), BATCH):
        key, part = samples[start][0], [sample for _, sample in samples[start : start + BATCH]]
        if key not in known:
            answers, cut = _answer_batch(model, part, decoding, reranker)
            known[key] = {"answers": [answer.to_json() for answer in answers], "truncated": sorted(cut)}
            journal.append([JournalEntry(key, known[key])])
        selected += map(SelectedAnswer.from_json, known[key]["answers"])
        truncated.update(known[key]["truncated"])
        reporter.progress("answering", start + len(part), len(samples))
    if reranker and truncated:
        reporter.warn(
            f"{len(truncated)} answers exceed the context of '{reranker.name}': their scores ignore what is cut off"
        )
    return selected


def _answer_batch(
    model: Answering, samples: Sequence[Sample], decoding: Decoding, reranker: Reranker | None
) -> tuple[list[SelectedAnswer], set[str]]:
    """The answers to one batch, and those that the re-ranker truncates."""
    images = [open_image(sample) for sample in samples]
    answers = model.answer(images, samples, decoding)
    scores: Sequence[Sequence[float | None]] = [[None] * len(group) for group in answers]
    truncated = set[str]()
    if reranker is not None:
        scores, truncated = reranker.score(images, [[answer.text for answer in group] for group in answers])
    selected = []
    for sample, group, cosines in zip(samples, answers, scores, strict=True):
        candidates = tuple(Candidate(a.text, a.confidence, c) for a, c in zip(group, cosines, strict=True))
        best = max(range(len(candidates)), key=lambda number: candidates[number].score or 0.0)
        selected.append(SelectedAnswer(sample.id, sample.domain, sample.text, best, candidates))
    return selected, truncated
