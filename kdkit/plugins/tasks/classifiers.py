"""Classifiers on frozen image features: scikit-learn's, with one setting chosen on the calibration split."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Labels = np.ndarray[Any, np.dtype[np.int64]]

TOLERANCE = 1e-6
"""Of the solver. At scikit-learn's 1e-4, features that differ by 1e-8 gave accuracies that differ by a point."""


@dataclass(frozen=True)
class Part:
    """Unit image features (N, D) float32 and class numbers (N,) of some samples."""

    features: Array
    labels: Labels

    def rows(self, chosen: Labels) -> Part:
        return Part(self.features[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Fitted:
    """A classifier with the chosen setting.

    Attributes:
        classes: (K,) numbers of the classes that it knows, ascending.
        setting: the chosen one.
        converged: whether its fit reached the tolerance.
    """

    model: Any
    setting: float
    converged: bool = True

    @property
    def classes(self) -> Labels:
        return np.asarray(self.model.classes_)

    def probabilities(self, features: Array) -> Array:
        """(N, K) float64."""
        return np.asarray(self.model.predict_proba(features), dtype=np.float64)

    def predict(self, features: Array) -> Labels:
        """(N,) class numbers."""
        return np.asarray(self.model.predict(features))


class Classifier(Protocol):
    """How a classifier with a setting is fitted."""

    def settings(self, train: Part) -> Sequence[float]:
        """The settings to choose from, the preferred one of equals first."""

    def fit(self, train: Part, setting: float) -> Fitted:
        """Fit on at least one sample of at least two classes."""


@dataclass(frozen=True)
class LinearProbe:
    """Multinomial logistic regression with an L2 penalty (scikit-learn, L-BFGS).

    Attributes:
        strengths: values of ``C``, the inverse of the penalty's weight; equal accuracies prefer the strongest penalty.
        steps: of the solver, at most.
    """

    strengths: Sequence[float]
    steps: int

    def settings(self, train: Part) -> Sequence[float]:
        del train
        return sorted(self.strengths)

    def fit(self, train: Part, setting: float) -> Fitted:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always", ConvergenceWarning)
            model = LogisticRegression(C=setting, max_iter=self.steps, tol=TOLERANCE)
            model.fit(train.features.astype(np.float64), train.labels)
        return Fitted(model, setting, not any(issubclass(w.category, ConvergenceWarning) for w in raised))


@dataclass(frozen=True)
class Neighbors:
    """The majority of the k nearest training samples by cosine (scikit-learn); equal accuracies prefer the largest k.

    Attributes:
        k: numbers of neighbors to choose from; those above the number of training samples count as that.
    """

    k: Sequence[int]

    def settings(self, train: Part) -> Sequence[float]:
        return sorted({min(k, len(train.labels)) for k in self.k}, reverse=True)

    def fit(self, train: Part, setting: float) -> Fitted:
        from sklearn.neighbors import KNeighborsClassifier

        model = KNeighborsClassifier(n_neighbors=int(setting), metric="cosine")
        return Fitted(model.fit(train.features, train.labels), setting)


def fit_chosen(classifier: Classifier, train: Part, validation: Part, fallback: float) -> Fitted:
    """The classifier, fitted on ``train``, with the setting that is most accurate on ``validation``.

    Validation samples are never fitted on. Without any, the setting is the one next to ``fallback``.
    """
    settings = classifier.settings(train)
    if not len(validation.labels):
        return classifier.fit(train, min(settings, key=lambda setting: abs(setting - fallback)))
    best: tuple[float, Fitted] | None = None
    for setting in settings:
        fitted = classifier.fit(train, setting)
        right = float((fitted.predict(validation.features) == validation.labels).mean())
        if best is None or right > best[0]:
            best = (right, fitted)
    assert best is not None
    return best[1]
