"""Classification by frozen image features: linear probe and nearest neighbors, with all labels, a share, or a few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import DomainScore, ModelFeatures, Sample
from kdkit.core.evaluation.calibration import HeldOut, measure_calibration, require_coverage
from kdkit.core.evaluation.metrics import LEVEL, RESAMPLES, SEED, macro_auc
from kdkit.core.evaluation.sampling import (
    few_per_class,
    of_each_domain,
    require_separate_groups,
    sample_groups,
    share_per_class,
)
from kdkit.core.evaluation.scoring import Bootstrap, Predicted, Subgroups, confusion, score_domain
from kdkit.plugins.tasks.classifiers import Classifier, Fitted, LinearProbe, Neighbors, Part, fit_chosen

Array = np.ndarray[Any, Any]
Integers = np.ndarray[Any, np.dtype[np.int64]]
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)
NEIGHBORS = (1, 5, 10, 20)
FRACTIONS, SHOTS, DRAWS = (0.01, 0.1), (1, 4, 16), 5


@dataclass(frozen=True)
class _Domain:
    """The samples of one domain: to fit on, to choose the setting on, and to score."""

    train: list[Sample]
    validation: list[Sample]
    scored: list[Sample]
    classes: tuple[str, ...]

    def numbers(self, samples: Sequence[Sample]) -> Integers:
        number = {label: position for position, label in enumerate(self.classes)}
        return np.array([number[str(sample.label)] for sample in samples], dtype=np.int64)


class ProbeTask:
    """Accuracy and macro one-vs-rest AUC of a classifier of image features, per domain.

    It is fitted on the training split. Its setting is chosen on the calibration split, which it is never fitted on.
    ``accuracy`` and ``auc`` are of all labels, ``accuracy@1%`` of a share of the labels of every class (at least one
    each), ``accuracy@4-shot`` of so many a class, of different groups (patients) if there are enough. Subsets are drawn
    ``draws`` times, the same for every model; their accuracies are averaged.

    Args:
        classifier: what is fitted.
        fallback: the setting where a domain has no labeled calibration sample.
        training: the labeled training and calibration samples.
        fractions: shares of the labels, above 0 and below 1.
        shots: labels per class.
        draws: of every subset.
        coverage: of conformal sets, such as 0.9, calibrated on the calibration split; 0 makes none.
        resamples, seed, level: of the bootstrap, stratified by class; whole groups are drawn where they are known.
        subgroups: column -> sample id -> value, for scores of subgroups.

    Raises:
        KdkitError: an option out of range.
    """

    def __init__(
        self,
        classifier: Classifier,
        fallback: float,
        *,
        training: Sequence[Sample],
        fractions: Sequence[float] = FRACTIONS,
        shots: Sequence[int] = SHOTS,
        draws: int = DRAWS,
        coverage: float = 0.0,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
        subgroups: Subgroups | None = None,
    ) -> None:
        if not all(0 < share < 1 for share in fractions) or not all(n >= 1 for n in shots) or draws < 1:
            raise KdkitError(
                "KD-EVAL-016",
                f"fractions {list(fractions)}, shots {list(shots)} and draws {draws} are not all possible",
                fix="fractions lie between 0 and 1; shots and draws are at least 1",
            )
        require_coverage(coverage)
        self.coverage = coverage
        self.classifier, self.fallback, self.training = classifier, fallback, training
        self.fractions, self.shots, self.draws = tuple(fractions), tuple(shots), draws
        self.seed, self.how = seed, Bootstrap(resamples, seed, level, subgroups or {})

    def evaluate(self, model: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        """One score per domain with training samples of at least two classes, in the order of the samples.

        Raises:
            KdkitError: a group with samples on both sides of the fit.
        """
        domains = {
            name: self._domain(found) for name, found in of_each_domain(s for s in samples if s.label is not None)
        }
        able = {name: domain for name, domain in domains.items() if not _why(domain)}
        for domain in able.values():
            held_out = [sample for sample in domain.scored if sample.split != "train"]
            require_separate_groups(domain.train, [*domain.validation, *held_out])
            require_separate_groups(domain.validation, [sample for sample in held_out if sample.split == "test"])
        every = [s for d in able.values() for s in (*d.train, *d.validation, *d.scored)]
        if not every:
            return []
        unique = list({sample.id: sample for sample in every}.values())
        row = {sample.id: number for number, sample in enumerate(unique)}
        features = model.image(unique)

        def part(domain: _Domain, samples: Sequence[Sample]) -> Part:
            return Part(features[[row[sample.id] for sample in samples]], domain.numbers(samples))

        return [
            self._score(name, d, part(d, d.train), part(d, d.validation), part(d, d.scored)) for name, d in able.items()
        ]

    def why_skipped(self, samples: Sequence[Sample]) -> str:
        """Why samples of one domain cannot be scored."""
        return _why(self._domain([sample for sample in samples if sample.label is not None]))

    def _domain(self, scored: list[Sample]) -> _Domain:
        name = scored[0].domain if scored else ""
        own = [sample for sample in self.training if sample.domain == name]
        train, validation = ([s for s in own if s.split == split] for split in ("train", "calibration"))
        classes = tuple(sorted({str(sample.label) for sample in (*train, *validation, *scored)}))
        return _Domain(train, validation, scored, classes)

    def _score(self, name: str, domain: _Domain, train: Part, validation: Part, scored: Part) -> DomainScore:
        notes = _Notes(domain, train)
        full = self._fit(train, validation, notes, "all labels")
        chosen = full.predict(scored.features)
        outcomes = {"accuracy": (chosen == scored.labels).astype(np.float64)}
        for metric, subsets in self._subsets(domain, train, notes).items():
            fits = [self._fit(train.rows(rows), validation, notes, metric) for rows in subsets]
            outcomes[metric] = np.mean([fit.predict(scored.features) == scored.labels for fit in fits], axis=0)
        odds = self._odds(full, domain, scored)

        predicted = Predicted(
            domain.scored,
            scored.labels,
            outcomes=outcomes,
            metrics={"auc": lambda rows, counts: macro_auc(scored.labels[rows], odds[rows], counts)},
        )
        found = confusion(domain.classes, scored.labels, chosen)
        held_out = None
        if self.coverage and len(validation.labels) and not {s.id for s in domain.validation} & predicted.ids:
            held_out = HeldOut(self._odds(full, domain, validation), validation.labels, self.coverage)
        calibration = measure_calibration(odds, scored.labels, domain.scored, self.how, held_out)
        return score_domain(name, predicted, self.how, notes=notes.lines(), confusion=found, calibration=calibration)

    @staticmethod
    def _odds(fitted: Fitted, domain: _Domain, part: Part) -> Array:
        """(N, C) probabilities; 0 for classes that the classifier does not know."""
        odds = np.zeros((len(part.labels), len(domain.classes)))
        odds[:, fitted.classes] = fitted.probabilities(part.features)
        return odds

    def _subsets(self, domain: _Domain, train: Part, notes: _Notes) -> Mapping[str, list[Integers]]:
        """Metric -> rows of the training samples, per draw; the same for every model."""
        rows, groups = np.arange(len(train.labels)), sample_groups(domain.train)
        found: dict[str, list[Integers]] = {}
        for share in self.fractions:
            rng = np.random.default_rng(self.seed)
            key = f"accuracy@{100 * share:g}%"
            found[key] = [share_per_class(train.labels, share, rng) for _ in range(self.draws)]
            notes.used(key, share, len(found[key][0]))
        for shots in self.shots:
            rng = np.random.default_rng(self.seed)
            draws = range(self.draws)
            found[f"accuracy@{shots}-shot"] = [few_per_class(rows, train.labels, groups, shots, rng) for _ in draws]
        return found

    def _fit(self, train: Part, validation: Part, notes: _Notes, what: str) -> Fitted:
        fitted = fit_chosen(self.classifier, train, validation, self.fallback)
        if not fitted.converged:
            notes.unconverged.append(what)
        return fitted


class LinearProbeTask(ProbeTask):
    """Logistic regression on unit image features, as in CLIP's linear probes (Radford et al. 2021, appendix A.3).

    Args:
        strengths: values of scikit-learn's ``C`` to choose from.
        steps: of the solver, at most.
        training, fractions, shots, draws, coverage, resamples, seed, level, subgroups: of :class:`ProbeTask`.
    """

    def __init__(
        self,
        *,
        training: Sequence[Sample],
        strengths: Sequence[float] = STRENGTHS,
        steps: int = 1000,
        fractions: Sequence[float] = FRACTIONS,
        shots: Sequence[int] = SHOTS,
        draws: int = DRAWS,
        coverage: float = 0.0,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
        subgroups: Subgroups | None = None,
    ) -> None:
        super().__init__(
            LinearProbe(tuple(strengths), steps),
            1.0,
            training=training,
            fractions=fractions,
            shots=shots,
            draws=draws,
            coverage=coverage,
            resamples=resamples,
            seed=seed,
            level=level,
            subgroups=subgroups,
        )


class NearestNeighborsTask(ProbeTask):
    """The majority of the nearest training samples by cosine.

    Args:
        k: numbers of neighbors to choose from.
        training, fractions, shots, draws, coverage, resamples, seed, level, subgroups: of :class:`ProbeTask`.
    """

    def __init__(
        self,
        *,
        training: Sequence[Sample],
        k: Sequence[int] = NEIGHBORS,
        fractions: Sequence[float] = FRACTIONS,
        shots: Sequence[int] = SHOTS,
        draws: int = DRAWS,
        coverage: float = 0.0,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
        subgroups: Subgroups | None = None,
    ) -> None:
        super().__init__(
            Neighbors(tuple(k)),
            10.0,
            training=training,
            fractions=fractions,
            shots=shots,
            draws=draws,
            coverage=coverage,
            resamples=resamples,
            seed=seed,
            level=level,
            subgroups=subgroups,
        )


class _Notes:
    """What a reader must know about the figures of one domain."""

    def __init__(self, domain: _Domain, train: Part) -> None:
        self.domain, self.labels = domain, train.labels
        self.unconverged: list[str] = []
        self._few: list[str] = []

    def used(self, metric: str, share: float, count: int) -> None:
        """A share that is less than one label per class."""
        if count > 1.5 * share * len(self.labels):
            part = 100 * count / len(self.labels)
            self._few.append(f"{metric}: one label a class is {part:.0f} % of the {len(self.labels)} labels")

    def lines(self) -> tuple[str, ...]:
        domain = self.domain
        counts = Counter(self.labels.tolist())
        known = {domain.classes[number] for number in counts}
        notes = list(self._few)
        for label, count in sorted(Counter(str(s.label) for s in domain.scored if s.label not in known).items()):
            notes.append(f"no training sample of '{label}': its {count} samples count as wrong")
        if absent := sorted(known - {str(sample.label) for sample in domain.scored}):
            notes.append(f"no sample of {', '.join(absent)}: candidates for accuracy, not in AUC")
        if not domain.validation:
            notes.append("no labeled calibration sample: regularization or k is not chosen but fixed")
        for what, count in Counter(self.unconverged).items():
            notes.append(f"{what}: {count} fits did not converge")
        if any(sample.split == "train" for sample in domain.scored):
            notes.append("scored on the samples that it was fitted on")
        return tuple(notes)


def _why(domain: _Domain) -> str:
    """Why a domain cannot be scored; empty if it can."""
    labels = {str(sample.label) for sample in domain.train}
    if not domain.scored:
        return "none of its samples is labeled"
    if not labels:
        return "it has no labeled training sample to fit on"
    if len(labels) == 1:
        return f"all its labeled training samples are '{labels.pop()}', so there is nothing to classify"
    return ""
