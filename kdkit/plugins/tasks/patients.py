"""Diagnosis of patients from all of their images, by frozen features that are pooled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import DomainScore, ModelFeatures, Sample
from kdkit.core.evaluation.calibration import measure_calibration
from kdkit.core.evaluation.metrics import LEVEL, RESAMPLES, SEED, class_auc, decisions, sensitivity_at
from kdkit.core.evaluation.sampling import of_each_domain, require_separate_groups
from kdkit.core.evaluation.scoring import Bootstrap, Predicted, RowMetric, Subgroups, confusion, score_domain
from kdkit.plugins.tasks.bags import Bags, features_of
from kdkit.plugins.tasks.classifiers import LinearProbe, Part, fit_chosen

Array = np.ndarray[Any, Any]
Integers = np.ndarray[Any, np.dtype[np.int64]]
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)


class Patients:
    """Accuracy, AUC, F1, precision, recall, and sensitivity at a fixed specificity, per domain; patients are counted.

    Samples of one ``group`` are one patient. With mean pooling, a logistic regression classifies the mean of the unit
    features; ``C`` is chosen on the calibration split. With attention pooling, a small network is trained, and the
    calibration split stops it; its metrics end in ``(attention)``.

    Args:
        training: the labeled training and calibration samples.
        positive: the class that AUC, F1, precision, recall and sensitivity are of; where no patient has it, they are
            left out. Empty for the mean over the classes of the scored patients.
        specificity: at which sensitivity is reported.
        attention: whether attention pooling is measured too.
        strengths: values of scikit-learn's ``C`` to choose from.
        resamples, seed, level: of the bootstrap, which draws patients within their classes.
        subgroups: column -> sample id -> value, for scores of subgroups.

    Raises:
        KdkitError: a specificity out of range.
    """

    def __init__(
        self,
        *,
        training: Sequence[Sample],
        positive: str = "",
        specificity: float = 0.9,
        attention: bool = True,
        strengths: Sequence[float] = STRENGTHS,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
        subgroups: Subgroups | None = None,
    ) -> None:
        if not 0 < specificity < 1:
            raise KdkitError("KD-EVAL-236", f"specificity is {specificity}", fix="give a number between 0 and 1")
        self.training, self.positive, self.specificity = training, positive, specificity
        self.attention, self.probe, self.seed = attention, LinearProbe(tuple(strengths), 1000), seed
        self.how = Bootstrap(resamples, seed, level, subgroups or {})

    def evaluate(self, model: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        """One score per domain with training patients of at least two classes.

        Raises:
            KdkitError: a patient with two labels, or in two splits; a positive class that no domain has.
        """
        labeled = [sample for sample in samples if sample.label is not None]
        if self.positive and not any(sample.label == self.positive for sample in (*self.training, *labeled)):
            raise KdkitError(
                "KD-EVAL-237",
                f"no sample has the label '{self.positive}'",
                where="positive",
                fix="name one of the classes of the data",
            )
        return [self._score(model, name, part) for name, part in of_each_domain(labeled) if not self.why_skipped(part)]

    def why_skipped(self, samples: Sequence[Sample]) -> str:
        """Why samples of one domain cannot be scored."""
        classes = {s.label for s in self.training if s.domain == samples[0].domain and s.split == "train"}
        return "" if len(classes) > 1 else "it has no training patients of two classes"

    def _score(self, model: ModelFeatures, domain: str, scored: Sequence[Sample]) -> DomainScore:
        own = [sample for sample in self.training if sample.domain == domain]
        train, validation = ([s for s in own if s.split == split] for split in ("train", "calibration"))
        held_out = [sample for sample in scored if sample.split != "train"]
        require_separate_groups(train, [*validation, *held_out])
        require_separate_groups(validation, [sample for sample in held_out if sample.split == "test"])
        classes = tuple(sorted({str(sample.label) for sample in (*own, *scored)}))
        bags = [Bags.of(part) for part in (train, validation, scored)]
        labels = [_labels(bag, classes) for bag in bags]
        features = features_of(model, train, validation, scored)
        found = {"": self._by_mean(bags, features, labels, len(classes))}
        if self.attention:
            found[" (attention)"] = self._by_attention(bags, features, labels, len(classes))
        outcomes, metrics = dict[str, Array](), dict[str, RowMetric]()
        for ending, odds in found.items():
            outcomes[f"accuracy{ending}"] = (odds.argmax(axis=1) == labels[2]).astype(np.float64)
            metrics |= self._metrics(classes, labels[2], odds, ending)
        notes = [f"{len(bags[2])} patients with {len(scored)} images"]
        known = {classes[number] for number in labels[0]}
        if unknown := sorted({classes[number] for number in labels[2]} - known):
            notes.append(f"no training patient of {', '.join(unknown)}: theirs count as wrong")
        if self.positive and self.positive not in {sample.label for sample in scored}:
            notes.append(f"no patient of '{self.positive}': only the accuracy is measured")
        if not validation:
            notes.append("no labeled calibration patient: C is 1, and nothing stops the training of the attention")
        return score_domain(
            domain,
            Predicted(bags[2].firsts, labels[2], outcomes, metrics),
            self.how,
            notes=notes,
            confusion=confusion(classes, labels[2], found[""].argmax(axis=1)),
            calibration=measure_calibration(found[""], labels[2], bags[2].firsts, self.how),
        )

    def _by_mean(
        self, bags: Sequence[Bags], features: Sequence[Array], labels: Sequence[Integers], classes: int
    ) -> Array:
        """(B, C) probabilities of the scored patients."""
        empty = np.zeros((0, features[0].shape[1]), dtype=np.float32)
        train, validation, scored = (
            Part(bag.mean(rows) if len(bag) else empty, own)
            for bag, rows, own in zip(bags, features, labels, strict=True)
        )
        fitted = fit_chosen(self.probe, train, validation, 1.0)
        odds = np.zeros((len(scored.labels), classes))
        odds[:, fitted.classes] = fitted.probabilities(scored.features)
        return odds

    def _by_attention(
        self, bags: Sequence[Bags], features: Sequence[Array], labels: Sequence[Integers], classes: int
    ) -> Array:
        from kdkit.plugins.tasks.attention import fit_attention, probabilities

        train, validation, _ = ((rows, bag.bag_of, own) for bag, rows, own in zip(bags, features, labels, strict=True))
        model = fit_attention(train, validation if len(bags[1]) else None, classes, self.seed)
        return probabilities(model, features[2], bags[2].bag_of, len(bags[2]))

    def _metrics(self, classes: Sequence[str], labels: Integers, odds: Array, ending: str) -> dict[str, RowMetric]:
        chosen = odds.argmax(axis=1)

        def over_classes(of_class: Callable[[int], Array], rows: Integers, counts: Array | None) -> Array:
            """The mean over the classes that ``rows`` have; NaN where they lack the positive one."""
            present = [c for c in np.unique(labels[rows]).tolist() if self.positive in ("", classes[c])]
            if not present:
                return np.full(1 if counts is None else counts.shape[1], np.nan)
            return np.asarray(np.mean([of_class(c) for c in present], axis=0))

        def auc(rows: Integers, counts: Array | None) -> Array:
            return over_classes(class_auc(labels[rows], odds[rows], counts).__getitem__, rows, counts)

        def decided(which: int, rows: Integers, counts: Array | None) -> Array:
            def of_class(c: int) -> Array:
                return decisions(labels[rows] == c, chosen[rows] == c, counts)[which]

            return over_classes(of_class, rows, counts)

        def sensitivity(rows: Integers, counts: Array | None) -> Array:
            def of_class(c: int) -> Array:
                return sensitivity_at(self.specificity, labels[rows] == c, odds[rows, c], counts)

            return over_classes(of_class, rows, counts)

        metrics: dict[str, RowMetric] = {"auc": auc}
        metrics |= {name: partial(decided, which) for which, name in enumerate(("precision", "recall", "f1"))}
        metrics[f"sensitivity@{100 * self.specificity:g}% specificity"] = sensitivity
        return {f"{name}{ending}": metric for name, metric in metrics.items()}


def _labels(bags: Bags, classes: Sequence[str]) -> Integers:
    """(B,) the class of each patient. Raises: KdkitError for a patient with two."""
    number = {label: position for position, label in enumerate(classes)}
    found = np.array([number[str(sample.label)] for sample in bags.samples], dtype=np.int64)
    own = np.array([number[str(sample.label)] for sample in bags.firsts], dtype=np.int64)
    wrong = np.flatnonzero(found != own[bags.bag_of]) if len(found) else np.zeros(0, dtype=np.int64)
    if len(wrong):
        sample = bags.samples[wrong[0]]
        first = bags.firsts[bags.bag_of[wrong[0]]]
        raise KdkitError(
            "KD-EVAL-238",
            f"the patient of '{first.id}' is '{first.label}' there and '{sample.label}' in '{sample.id}'",
            where=sample.origin,
            why=f"{len(set(bags.bag_of[wrong].tolist()))} patients (groups) have images of several classes",
            fix="give all samples of a patient one label, or use the task 'linear-probe', which counts images",
            code=ExitCode.FOUND,
        )
    return own
