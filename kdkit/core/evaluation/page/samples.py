"""Single samples on the page: what changed since the parent, and examples of retrieval.

They are computed from the student's features that the evaluation has cached. Nothing is encoded here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import DomainScore, ImageLocation, ModelFeatures, Reporter, Sample
from kdkit.core.data.load import load_index
from kdkit.core.data.locations import PRIVATE
from kdkit.core.data.prompts import PromptSets, prompt_sets
from kdkit.core.data.thumbnails import thumbnail
from kdkit.core.evaluation.feature_cache import CachedFeatures
from kdkit.core.evaluation.report.report import EvaluationReport
from kdkit.core.evaluation.retrieval import pair_captions
from kdkit.core.evaluation.scores import SUITE
from kdkit.core.evaluation.student_cache import student_cache
from kdkit.core.evaluation.zero_shot import class_embeddings, class_probabilities

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project
    from kdkit.core.project.versions import Version

Array = np.ndarray[Any, Any]
SIDE = 112
"""Pixels of the longer side of a thumbnail."""
CHANGED, NEAREST = 12, 3
"""Samples that are shown as changed; captions per example of retrieval."""


@dataclass(frozen=True)
class Shown:
    """A sample as the page names it: a pseudonym for DICOM, a thumbnail only where the project allows it."""

    name: str
    text: str = ""
    picture: bytes | None = None


@dataclass(frozen=True)
class Change:
    """A sample whose prediction changed; ``before`` and ``after`` are the probability of its true class."""

    sample: Shown
    domain: str
    label: str
    predicted: tuple[str, str]
    before: float
    after: float


@dataclass(frozen=True)
class Flips:
    """Of ``count`` samples of a domain, so many became right and so many wrong since the parent."""

    domain: str
    count: int
    gained: int
    lost: int


@dataclass(frozen=True)
class Example:
    """An image with the captions that are nearest to it: (caption, cosine, right)."""

    sample: Shown
    domain: str
    rank: int
    candidates: int
    nearest: tuple[tuple[str, float, bool], ...]


@dataclass(frozen=True)
class SampleFacts:
    """Of the version's zero-shot and retrieval evaluations."""

    changes: tuple[Change, ...] = ()
    flips: tuple[Flips, ...] = ()
    examples: tuple[Example, ...] = ()


class NotCachedError(Exception):
    """The features of some samples are not cached."""


def look_at_samples(
    project: Project,
    chain: Sequence[Version],
    reports: Sequence[EvaluationReport],
    absent: dict[str, str],
    reporter: Reporter,
) -> SampleFacts | None:
    """Facts about single samples; what cannot be had goes to ``absent`` with the reason.

    Args:
        chain: the version and its ancestors, oldest first.
    """
    zero_shot = _first(reports, "zero-shot")
    retrieval = _first(reports, "retrieval")
    if zero_shot is None or len(zero_shot.history) < 2:
        needs = "an evaluation by the task 'zero-shot'" if zero_shot is None else "a parent to compare with"
        absent["Most-changed samples"] = f"They need {needs}."
        zero_shot = None
    if retrieval is None:
        absent["Retrieval examples"] = f"Run 'kdkit evaluate {chain[-1].name} --task retrieval' first."
    if zero_shot is None and retrieval is None:
        return None
    try:
        view = _Samples(project, load_index(project, reporter), chain)
    except KdkitError as error:
        absent["Single samples"] = f"The data cannot be read: {error.what}."
        return None
    changes, flips, examples = tuple[Change, ...](), tuple[Flips, ...](), tuple[Example, ...]()
    if zero_shot is not None:
        try:
            changes, flips = view.changed(zero_shot)
        except (NotCachedError, KdkitError) as error:
            absent["Most-changed samples"] = _why(error, "zero-shot", chain[-1].name)
    if retrieval is not None:
        try:
            examples = view.retrieved(retrieval)
        except (NotCachedError, KdkitError) as error:
            absent["Retrieval examples"] = _why(error, "retrieval", chain[-1].name)
    if not project.registry.report.images:
        absent["Thumbnails"] = "This project keeps images out of reports ('report.images: true' in registry.yaml)."
    return SampleFacts(changes, flips, examples)


def _first(reports: Sequence[EvaluationReport], task: str) -> EvaluationReport | None:
    own = (report for report in reports if SUITE not in report.evaluation.settings)
    return next((r for r in own if r.evaluation.settings.get("task", "zero-shot") == task), None)


def _why(error: Exception, task: str, version: str) -> str:
    if isinstance(error, KdkitError):
        return f"{error.what}. 'kdkit evaluate {version} --task {task}' evaluates what is there now."
    return f"{error}: run 'kdkit evaluate {version} --task {task}' again."


class _Samples:
    """The samples of a project with the cached features of its versions."""

    def __init__(self, project: Project, table: SampleIndex, chain: Sequence[Version]) -> None:
        self.project, self.table = project, table
        self.row = {name: number for number, name in enumerate(table.ids)}
        self.versions = {version.name: version for version in chain}
        self.images = project.registry.report.images

    def of(self, ids: Sequence[str]) -> list[Sample]:
        """Raises: NotCachedError: the data has changed."""
        if missing := [name for name in ids if name not in self.row]:
            raise NotCachedError(f"{len(missing)} evaluated samples are no longer in the data")
        return [self.table.samples[self.row[name]] for name in ids]

    def features(self, version: str) -> CachedFeatures:
        def refuse() -> ModelFeatures:
            raise NotCachedError(f"the cached features of {version} are gone")

        return student_cache(self.project, self.versions[version], self.table, None, refuse)

    def changed(self, report: EvaluationReport) -> tuple[tuple[Change, ...], tuple[Flips, ...]]:
        """What changed since the parent, on the samples of the evaluation.

        Raises:
            NotCachedError: features are missing, or predictions differ from the evaluation's.
        """
        prompts, scale = prompt_sets(self.project.registry, self.table), _logit_scale(report)
        changes, flips = list[Change](), list[Flips]()
        for domain, scored in report.evaluation.model(report.version).domains.items():
            samples, classes = self.of(scored.ids), tuple(prompts.get(domain, ()))
            if any(sample.label not in classes for sample in samples):
                continue  # several labels a sample, or none
            labels = np.array([classes.index(str(sample.label)) for sample in samples])
            before, after = (self._probabilities(v, samples, prompts, domain, scale) for v in report.history[-2:])
            if not np.array_equal(after.argmax(axis=1) == labels, scored.outcomes["accuracy"] > 0.5):
                raise NotCachedError("prompts, data or features have changed since the evaluation")
            flips.append(_flips(domain, before, after, labels))
            changes += self._changes(domain, classes, samples, labels, before, after)
        largest = sorted(changes, key=lambda change: -abs(change.after - change.before))[:CHANGED]
        return tuple(self._with_picture(change) for change in largest), tuple(flips)

    def _probabilities(
        self, version: str, samples: Sequence[Sample], prompts: PromptSets, domain: str, scale: float
    ) -> Array:
        """(N, C)."""
        features = self.features(version)
        return class_probabilities(
            features.image(samples), class_embeddings(prompts[domain], features.text, where=version), scale
        )

    def _changes(
        self, domain: str, classes: Sequence[str], samples: Sequence[Sample], labels: Array, before: Array, after: Array
    ) -> list[Change]:
        rows = np.arange(len(labels))
        moved = np.abs(after[rows, labels] - before[rows, labels])
        changed = np.flatnonzero(before.argmax(axis=1) != after.argmax(axis=1))
        chosen = changed[np.argsort(-moved[changed], kind="stable")][:CHANGED]
        return [
            Change(
                Shown(samples[row].id),
                domain,
                classes[labels[row]],
                (classes[before[row].argmax()], classes[after[row].argmax()]),
                float(before[row, labels[row]]),
                float(after[row, labels[row]]),
            )
            for row in chosen
        ]

    def _with_picture(self, change: Change) -> Change:
        return replace(change, sample=self.shown(self.table.samples[self.row[change.sample.name]]))

    def retrieved(self, report: EvaluationReport) -> tuple[Example, ...]:
        """Per domain an image whose caption was found, and one whose caption was missed.

        Raises:
            NotCachedError: features are missing.
        """
        features, examples = self.features(report.version), list[Example]()
        for domain in report.evaluation.domains:
            scored = report.evaluation.model(report.version).domains.get(domain)
            if scored is None:
                continue
            samples = self.of(scored.ids)
            pairs = pair_captions(samples)
            image, text = features.image(list(pairs.images)), features.captions(list(pairs.texts))
            chosen = _found_and_missed(scored)
            for row in chosen:
                own = set(pairs.text_of[pairs.image_of == pairs.image_of[row]].tolist())
                near = image[pairs.image_of[row]].astype(np.float64) @ text.astype(np.float64).T
                best = max(near[list(own)])
                wrong = np.delete(near, list(own))
                order = np.argsort(-near, kind="stable")[:NEAREST]
                nearest = tuple((self._text(pairs.texts[n]), float(near[n]), int(n) in own) for n in order)
                rank = 1 + int((wrong >= best - 1e-12).sum())
                examples.append(Example(self.shown(samples[row]), domain, rank, len(text), nearest))
        return tuple(examples)

    def shown(self, sample: Sample) -> Shown:
        """How the page names a sample."""
        picture = None
        if self.images:
            with suppress(KdkitError):  # the page goes on without it
                picture = thumbnail(sample, SIDE)
        name = sample.id
        image = sample.image
        if _is_dicom(sample) or (isinstance(image, ImageLocation) and image.reader in PRIVATE):
            kind = "DICOM" if _is_dicom(sample) else "tile"
            name = f"{kind} {hashlib.sha256(sample.id.encode()).hexdigest()[:12]}"
        return Shown(name, self._text(sample), picture)

    def _text(self, sample: Sample) -> str:
        """The caption; that of a DICOM file only where images are allowed."""
        return "(text of a DICOM file)" if _is_dicom(sample) and not self.images else sample.text


def _is_dicom(sample: Sample) -> bool:
    image = sample.image
    return image.reader == "dicom" if isinstance(image, ImageLocation) else image.suffix.lower() in (".dcm", ".dicom")


def _logit_scale(report: EvaluationReport) -> float:
    return float(report.evaluation.settings.get("logit_scale", 100.0))


def _flips(domain: str, before: Array, after: Array, labels: Array) -> Flips:
    was, now = before.argmax(axis=1) == labels, after.argmax(axis=1) == labels
    return Flips(domain, len(labels), int((~was & now).sum()), int((was & ~now).sum()))


def _found_and_missed(score: DomainScore) -> list[int]:
    """A sample whose caption was found first, and one whose caption was not even among the last cutoff's."""
    own = [x for name, x in score.outcomes.items() if name.startswith("image-to-text@") and "/" not in name]
    hits = np.sum(own, axis=0)
    return list(dict.fromkeys((int(hits.argmax()), int(hits.argmin()))))
