"""Trust in the captions: how well they name the classes of a domain, for a model that sees what the teachers see.

Captions make no predictions, so a small model makes them: ridge regression from the teachers' image features to the
captions' TF-IDF vectors, fitted on training samples. A calibration sample gets the class with the prompts nearest to
the predicted vector. The result is an accuracy like a teacher's: captions that never name the finding give chance,
and wrong ones average out as far as there are right ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.evaluation.trust.measurements import DomainCount
from kdkit.core.evaluation.zero_shot import unit_rows

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column

FIT_ROWS = 2048
"""Training samples of a domain on which the regression is fitted."""
WORDS = 4096
"""Largest vocabulary of the TF-IDF vectors."""
PENALTIES = tuple(float(x) for x in np.logspace(-1, 5, 13))
"""Ridge penalties to choose from, by leave-one-out error on the training samples."""

Array = np.ndarray[Any, Any]
Rows = np.ndarray[Any, np.dtype[np.int64]]


class CaptionTrust:
    """Measures the captions of every domain that has labeled calibration samples and stored features.

    Args:
        domains: domain -> class -> prompts, of the domains in which trust can be measured.
        columns: of teachers with stored features of training samples.
    """

    def __init__(
        self,
        index: SampleIndex,
        domains: Mapping[str, Mapping[str, Sequence[str]]],
        columns: Sequence[Column],
    ) -> None:
        self._index, self._domains = index, domains
        self._columns = [(column, column.locate(self._index)) for column in columns]
        self._train = np.array(
            [row for row in self._index.select(split="train") if self._index.samples[row].text], dtype=np.int64
        )

    def fingerprint(self) -> str:
        """Digest of everything that the accuracy depends on."""
        inputs = [sorted(column.fingerprint for column, _ in self._columns), self._domains, FIT_ROWS, WORDS]
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
        rows = np.concatenate([self._train, self._index.select(split="calibration", labeled=True)])
        digest.update(self._index.digests[rows].tobytes() + self._index.label_index[rows].tobytes())
        for _, places in self._columns:
            digest.update((places[rows] >= 0).tobytes())
        return digest.hexdigest()

    def measure(self) -> dict[str, DomainCount]:
        """Domain -> counts, for domains with captions and features."""
        found = {domain: self._measure_domain(domain) for domain in self._domains}
        return {domain: count for domain, count in found.items() if count is not None}

    def _measure_domain(self, domain: str) -> DomainCount | None:
        train = self._train[self._index.domain_index[self._train] == self._index.domains.index(domain)]
        held_out = self._index.select(split="calibration", domains=[domain], labeled=True)
        columns = [each for each in self._columns if _covers(each[1], train) and _covers(each[1], held_out)]
        for _, places in columns:
            train, held_out = train[places[train] >= 0], held_out[places[held_out] >= 0]
        if not columns or not len(train) or not len(held_out):
            return None
        if len(train) > FIT_ROWS:
            train = np.sort(np.random.default_rng(0).permutation(train)[:FIT_ROWS])
        texts = [self._index.samples[row].text for row in train]
        prompts = list(self._domains[domain].values())
        features = _features(columns, train, domain), _features(columns, held_out, domain)
        predicted = _predict_classes(*features, texts, prompts)
        correct = int((predicted == self._index.label_index[held_out]).sum())
        return DomainCount(correct, len(held_out), 1 / len(self._domains[domain]))


def _covers(places: Rows, rows: Rows) -> bool:
    """Whether a column has at least half of the rows."""
    return bool(len(rows)) and bool((places[rows] >= 0).mean() >= 0.5)


def _features(columns: Sequence[tuple[Column, Rows]], rows: Rows, domain: str) -> Array:
    """(len(rows), sum of widths) the teachers' unit image features, side by side."""
    return np.concatenate(
        [
            unit_rows(column.gather("image", places[rows]), what="image features", where=f"domain '{domain}'")
            for column, places in columns
        ],
        axis=1,
    ).astype(np.float64)


def _predict_classes(train: Array, held_out: Array, texts: Sequence[str], prompts: Sequence[Sequence[str]]) -> Array:
    """(n,) class of each held-out row (n, D), from training rows (N, D) with their captions."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeCV

    words = TfidfVectorizer(max_features=WORDS, token_pattern=r"(?u)\b\w+\b")
    vectors = words.fit_transform(texts).toarray()
    mean, spread, center = train.mean(0), train.std(0) + 1e-6, vectors.mean(0)
    ridge = RidgeCV(alphas=PENALTIES).fit((train - mean) / spread, vectors - center)
    # One caption for all has a single direction, which scikit-learn returns without its second axis.
    predicted = ridge.predict((held_out - mean) / spread).reshape(len(held_out), -1)
    classes = np.stack([words.transform(group).toarray().mean(0) for group in prompts]) - center
    return np.asarray((_unit(predicted) @ _unit(classes).T).argmax(1))


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))
