"""Several answers to each sample by one model, with the scores by which one of them is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

from kdkit.core.base.journal import Journal, JournalEntry, SampleKey
from kdkit.core.contracts import Answer, Answering, Decoding, Reporter, Sample
from kdkit.core.data.images import open_image
from kdkit.core.evaluation.answering.names import PLAIN
from kdkit.core.evaluation.answering.rules import Rule

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 16


@dataclass(frozen=True)
class Candidate:
    """One answer to a sample.

    Attributes:
        text: the answer.
        confidence: mean probability of its tokens; None if the model does not return it.
        score: by the rule that chose: the cosine with the image, or the mean agreement with the others; None without.
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
        rule: that chose: ``plain``, ``agreement`` or ``nearest``.
    """

    id: str
    domain: str
    reference: str
    chosen: int
    answers: tuple[Candidate, ...]
    rule: str = PLAIN

    @property
    def text(self) -> str:
        return self.answers[self.chosen].text

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "text": self.text}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        fields = {name: data[name] for name in ("id", "domain", "reference", "chosen", "rule")}
        return cls(**fields, answers=tuple(Candidate(**answer) for answer in data["answers"]))


@dataclass(frozen=True)
class CandidateSet:
    """The answers to one sample, before one is chosen.

    Attributes:
        answers: text and confidence of each.
        scores: name of a rule -> the score of each answer.
    """

    id: str
    domain: str
    reference: str
    answers: tuple[tuple[str, float | None], ...]
    scores: Mapping[str, tuple[float, ...]]

    def chosen_by(self, rule: str) -> SelectedAnswer:
        """With the highest score, the first of equals; by ``plain`` the first."""
        scores: Sequence[float | None] = (None,) * len(self.answers) if rule == PLAIN else self.scores[rule]
        candidates = tuple(Candidate(*answer, score) for answer, score in zip(self.answers, scores, strict=True))
        best = max(range(len(candidates)), key=lambda number: candidates[number].score or 0.0)
        return SelectedAnswer(self.id, self.domain, self.reference, best, candidates, rule)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """From :func:`dataclasses.asdict` that went through JSON."""
        answers = tuple((text, confidence) for text, confidence in data["answers"])
        scores = {name: tuple(values) for name, values in data["scores"].items()}
        return cls(data["id"], data["domain"], data["reference"], answers, scores)


def find_candidates(
    model: Answering,
    samples: Sequence[tuple[SampleKey, Sample]],
    decodings: Sequence[Decoding],
    rules: Sequence[Rule],
    journal: Journal,
    reporter: Reporter,
    label: str = "answering",
) -> list[CandidateSet]:
    """Answer all samples by every decoding in turn, and score the answers by every rule.

    The same samples, decodings and models give the same answers and scores.

    Args:
        journal: one entry per batch, under the key of its first sample. Batches that it has are not answered again.

    Raises:
        KdkitError: an error of the model; an unreadable image.
    """
    known, found, truncated = journal.read(), list[CandidateSet](), set[str]()
    for start in range(0, len(samples), BATCH):
        key, part = samples[start][0], [sample for _, sample in samples[start : start + BATCH]]
        if key not in known:
            sets, cut = _answer_batch(model, part, decodings, rules)
            known[key] = {"sets": [asdict(one) for one in sets], "truncated": sorted(cut)}
            journal.append([JournalEntry(key, known[key])])
        found += map(CandidateSet.from_json, known[key]["sets"])
        truncated.update(known[key]["truncated"])
        reporter.progress(label, start + len(part), len(samples))
    if truncated:
        reporter.warn(
            f"{len(truncated)} answers exceed the context of the dual encoder: their scores ignore what is cut off"
        )
    return found


def _answer_batch(
    model: Answering, samples: Sequence[Sample], decodings: Sequence[Decoding], rules: Sequence[Rule]
) -> tuple[list[CandidateSet], set[str]]:
    """The answers to one batch, and those that a dual encoder truncates."""
    images: list[Image] = [open_image(sample) for sample in samples]
    rounds = [model.answer(images, samples, decoding) for decoding in decodings]
    answers: list[list[Answer]] = [list(chain.from_iterable(groups)) for groups in zip(*rounds, strict=True)]
    texts = [[answer.text for answer in group] for group in answers]
    scores, truncated = dict[str, list[list[float]]](), set[str]()
    for rule in rules:
        scores[rule.name], cut = rule.score(samples, images, texts)
        truncated |= cut
    return [
        CandidateSet(
            sample.id,
            sample.domain,
            sample.text,
            tuple((answer.text, answer.confidence) for answer in group),
            {name: tuple(values[place]) for name, values in scores.items()},
        )
        for place, (sample, group) in enumerate(zip(samples, answers, strict=True))
    ], truncated
