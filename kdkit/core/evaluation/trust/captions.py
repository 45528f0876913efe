"""Trust in the captions: how well they name the classes of a domain, for a model that sees what the teachers see.

Captions make no predictions, so a small model makes them: ridge regression from the teachers' image features to the
captions' TF-IDF vectors and text features, fitted on training samples. A calibration sample gets the class with the
prompts nearest to the predicted vector. The result is an accuracy like a teacher's: captions that never name the
finding give chance, and wrong ones average out as far as there are right ones.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.contracts import IMAGE, TEXT
from kdkit.core.data.prompts import all_prompts
from kdkit.core.evaluation.trust.measurements import DomainCount, chance_level
from kdkit.core.evaluation.zero_shot import unit_rows

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column

FIT_ROWS = 2048
"""Training samples of a domain on which the regression is fitted."""
LEAST_ROWS = 10
"""With fewer training samples, captions are not measured."""
WORDS = 4096
"""Largest vocabulary of the TF-IDF vectors."""
PENALTIES = tuple(float(x) for x in np.logspace(-1, 5, 13))
"""Ridge penalties to choose from, by leave-one-out error on the training samples."""
_WORD = re.compile(r"(?u)\b\w+\b")

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
        train = index.select(split="train")
        self._train = train[index.has_text[train]]

    def fingerprint(self) -> str:
        """Digest of everything that the accuracy depends on."""
        prompts = all_prompts(self._domains)
        columns = sorted([column.fingerprint, column.text_digest(prompts)] for column, _ in self._columns)
        inputs = [columns, self._domains, FIT_ROWS, WORDS]
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
        rows = np.concatenate([self._train, self._index.select(split="calibration", labeled=True)])
        for array in (self._index.digests, self._index.label_index, self._index.domain_index):
            digest.update(array[rows].tobytes())
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
        seeing = [each for each in columns if any(spec.name == IMAGE for spec in each[0].signals)]
        for _, places in columns:
            train, held_out = train[places[train] >= 0], held_out[places[held_out] >= 0]
        if not seeing or len(train) < LEAST_ROWS or not len(held_out):
            return None
        if len(train) > FIT_ROWS:
            train = np.sort(np.random.default_rng(0).permutation(train)[:FIT_ROWS])
        texts = [self._index.texts[row] for row in train]
        prompts = list(self._domains[domain].values())
        spaces = [
            _word_rows(texts, prompts),
            *(_text_rows(column, places[train], prompts, domain) for column, places in columns),
        ]
        rows, classes = (np.concatenate(parts, axis=1) for parts in zip(*(x for x in spaces if x), strict=True))
        if np.ptp(classes, axis=0).max() == 0:
            return None  # no word of the prompts occurs in a caption
        predicted = _predict(_features(seeing, train, domain), rows, _features(seeing, held_out, domain))
        nearest = (_unit(predicted) @ _unit(classes - rows.mean(0)).T).argmax(1)
        labels = self._index.label_index[held_out]
        return DomainCount(int((nearest == labels).sum()), len(labels), chance_level(labels, len(prompts)))


def _covers(places: Rows, rows: Rows) -> bool:
    """Whether a column has at least half of the rows."""
    return bool(len(rows)) and bool((places[rows] >= 0).mean() >= 0.5)


def _features(columns: Sequence[tuple[Column, Rows]], rows: Rows, domain: str) -> Array:
    """(len(rows), sum of widths) the teachers' unit image features, side by side."""
    return np.concatenate(
        [
            unit_rows(column.gather(IMAGE, places[rows]), what="image features", where=f"domain '{domain}'")
            for column, places in columns
        ],
        axis=1,
    ).astype(np.float64)


def _word_rows(texts: Sequence[str], prompts: Sequence[Sequence[str]]) -> tuple[Array, Array]:
    """TF-IDF vectors of the captions (N, W), and their means over the prompts of each class (C, W)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not any(_WORD.search(text) for text in texts):
        return np.zeros((len(texts), 1)), np.zeros((len(prompts), 1))
    words = TfidfVectorizer(max_features=WORDS, token_pattern=_WORD.pattern)
    rows = words.fit_transform(texts).toarray()
    return rows, np.stack([words.transform(group).toarray().mean(0) for group in prompts])


def _text_rows(
    column: Column, places: Rows, prompts: Sequence[Sequence[str]], domain: str
) -> tuple[Array, Array] | None:
    """The same in a teacher's text features, which know that two words mean the same; None if it has none."""
    names = {spec.name for spec in column.signals}
    if TEXT not in names or any(text not in column.texts for group in prompts for text in group):
        return None
    where = f"teacher '{column.teacher}', domain '{domain}'"
    rows = unit_rows(column.gather(TEXT, places), what="text features", where=where)
    classes = [unit_rows(column.text_features(group), what="prompts", where=where).mean(0) for group in prompts]
    return rows.astype(np.float64), np.stack(classes).astype(np.float64)


def _predict(train: Array, targets: Array, held_out: Array) -> Array:
    """(n, E) centered targets of held-out rows (n, D), by ridge regression on training rows (N, D)."""
    from sklearn.linear_model import RidgeCV

    mean, spread, center = train.mean(0), train.std(0) + 1e-6, targets.mean(0)
    ridge = RidgeCV(alphas=PENALTIES).fit((train - mean) / spread, targets - center)
    # scikit-learn drops the second axis of a single target.
    return np.asarray(ridge.predict((held_out - mean) / spread).reshape(len(held_out), -1))


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))
