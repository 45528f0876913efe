"""Trust of a teacher that gives one signal alone: probes with few labels classify calibration samples.

Zero-shot classification compares images with prompts. For a teacher without text features, or without image features,
:data:`SHOTS` labeled samples per class take the place of prompts. Two classifiers of its unit features, a k-NN and a
linear probe, are fitted on one half of the calibration samples and classify the other half, and the reverse. Samples
of one group (one patient) are in the same half; for texts, samples with the same text are too. The accuracy is the mean
over both classifiers and :data:`REPEATS` such divisions.

The few labels are the handicap that makes the figure comparable with a zero-shot accuracy: for CLIP's own image
features, a probe with 4 labels per class equals zero-shot classification on average over the data sets (Radford et al.,
Learning Transferable Visual Models From Natural Language Supervision, 2021, arXiv 2103.00020, figure 6).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.contracts import IMAGE, TEXT, Reporter
from kdkit.core.evaluation.metrics import design_effect
from kdkit.core.evaluation.sampling import GROUP, few_per_class, sample_groups
from kdkit.core.evaluation.trust.measurements import SCORES, DomainCount, chance_level
from kdkit.core.evaluation.zero_shot import unit_rows

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column

SHOTS = 4
"""Labeled samples of each class that a probe is fitted on."""
REPEATS = 25
"""Divisions of the calibration samples into two halves; each sample is classified once in each."""
PROBES = ("k-nn", "linear")
"""The classifiers: the :data:`SHOTS` nearest labeled samples by distance, and ridge regression to the classes."""
LACKS: Mapping[str, str] = {IMAGE: "text", TEXT: "image"}
"""Signal that a teacher gives alone -> the signal that it lacks."""

Array = np.ndarray[Any, Any]
Rows = np.ndarray[Any, np.dtype[np.int64]]


class ProbeTrust:
    """Measures the features of one signal in every domain that has labeled calibration samples.

    Args:
        domains: domain -> class -> prompts, of the domains in which trust can be measured; the prompts are not read.
        signal: ``image`` or ``text``. Samples without a text are not measured by ``text``.
    """

    def __init__(
        self,
        index: SampleIndex,
        domains: Mapping[str, Mapping[str, Sequence[str]]],
        reporter: Reporter,
        signal: str = IMAGE,
    ) -> None:
        self._index, self._reporter, self.signal = index, reporter, signal
        self._classes = {domain: len(prompts) for domain, prompts in domains.items()}

    def fingerprint(self, column: Column) -> str:
        """Digest of everything that the accuracy depends on."""
        rows = self._labeled()
        inputs = [column.fingerprint, self._classes, SHOTS, REPEATS, PROBES, self.signal, "evidence of groups"]
        digest = hashlib.sha256(json.dumps(inputs).encode())
        for row in rows:
            sample = self._index.samples[row]
            digest.update(json.dumps([sample.id, sample.domain, sample.label, _group(sample.extra, "")]).encode())
        digest.update(self._index.digests[rows].tobytes())
        if self.signal == TEXT:
            digest.update(self._index.text_index[rows].tobytes())
        digest.update((column.locate(self._index)[rows] >= 0).tobytes())
        return digest.hexdigest()

    def measure(self, column: Column, advice: str) -> dict[str, DomainCount]:
        """Domain -> counts, for domains that the column has. Beside the column is stored, for every calibration sample,
        the share of the classifiers that name its class.

        Args:
            advice: the remedy, appended to warnings about missing features.
        """
        places, counts = column.locate(self._index), dict[str, DomainCount]()
        for domain, classes in self._classes.items():
            labeled = self._labeled(domain)
            rows = labeled[places[labeled] >= 0]
            labels = self._index.label_index[rows]
            groups = self._groups(rows)
            if not self._can_probe(column.teacher, domain, len(labeled), labels, groups, advice):
                continue
            where = f"teacher '{column.teacher}', domain '{domain}'"
            features = unit_rows(column.gather(self.signal, places[rows]), what=f"{self.signal} features", where=where)
            hits = probe_hits(features.astype(np.float64), labels, groups, classes)
            right = hits.mean(1)
            counts[domain] = DomainCount(
                float(right.sum()),
                len(rows),
                chance_level(labels, classes),
                1 / design_effect(right, groups),
                dict(zip(PROBES, hits.mean(0).tolist(), strict=True)),
            )
            column.put_scores(SCORES["label"], places[rows], right.astype(np.float32))
        return counts

    def _labeled(self, domain: str | None = None) -> Rows:
        """Labeled calibration samples; for texts, those with one."""
        rows = self._index.select(split="calibration", domains=None if domain is None else [domain], labeled=True)
        if self.signal == TEXT:
            rows = rows[[bool(self._index.samples[row].text) for row in rows]]
        return rows

    def _groups(self, rows: Rows) -> Rows:
        """(N,) of samples that must be in the same half."""
        groups = sample_groups([self._index.samples[row] for row in rows])
        return joined(groups, self._index.text_index[rows]) if self.signal == TEXT else groups

    def _can_probe(self, teacher: str, domain: str, wanted: int, labels: Rows, groups: Rows, advice: str) -> bool:
        """Whether both halves can hold two classes; warns about missing samples."""
        if not len(labels):
            self._reporter.warn(
                f"teacher '{teacher}' has no features of its calibration samples in domain '{domain}' and is not "
                f"trusted there; {advice}"
            )
            return False
        if len(labels) < wanted:
            self._reporter.warn(
                f"teacher '{teacher}' lacks features of {wanted - len(labels)} of {wanted} calibration "
                f"samples in domain '{domain}': measured on the others"
            )
        able = sum(len(np.unique(groups[labels == label])) > 1 for label in np.unique(labels))
        if able < 2:
            self._reporter.warn(
                f"teacher '{teacher}' has no {LACKS[self.signal]} features, and domain '{domain}' has too few labeled "
                f"calibration samples to probe its {self.signal} features: at least two classes need samples of two "
                f"groups (patients){' with different texts' if self.signal == TEXT else ''}; it is not trusted there"
            )
        return able > 1


def probe_hits(features: Array, labels: Rows, groups: Rows, classes: int) -> Array:
    """(N, 2) share of the divisions in which each of :data:`PROBES` names the class of a sample.

    Args:
        features: (N, D) float64 unit rows.
        labels: (N,) in 0..classes - 1; groups: (N,) in 0..G - 1.

    Example:
        >>> labels = np.arange(20) % 2
        >>> probe_hits(np.eye(2)[labels], labels, np.arange(20), 2).mean().item()
        1.0
    """
    right = np.zeros((len(labels), len(PROBES)))
    for fit, judged in _divisions(labels, groups):
        predicted = (
            _nearest(features[fit], labels[fit], features[judged]),
            _ridge(features[fit], np.eye(classes)[labels[fit]], features[judged]).argmax(1),
        )
        right[judged] += np.stack(predicted, axis=1) == labels[judged, None]
    return right / REPEATS


def joined(first: Rows, second: Rows) -> Rows:
    """(N,) the finest groups in which samples are together that are together in ``first`` or in ``second``, both (N,).

    Example:
        >>> joined(np.array([0, 0, 1, 2]), np.array([5, 6, 6, 7])).tolist()
        [0, 0, 0, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left, right = (np.unique(groups, return_inverse=True)[1] for groups in (first, second))
    size = len(left) and int(left.max()) + 1
    nodes = size + (len(right) and int(right.max()) + 1)
    edges = coo_array((np.ones(len(left)), (left, size + right)), shape=(nodes, nodes))
    number = connected_components(edges, directed=False)[1][left]
    return np.asarray(np.unique(number, return_inverse=True)[1], dtype=np.int64)


def _divisions(labels: Rows, groups: Rows) -> Iterator[tuple[Rows, Rows]]:
    """(samples to fit on, samples to classify): each sample is classified :data:`REPEATS` times.

    Both halves have half of the groups of each class, as far as groups do not mix classes.
    """
    rng = np.random.default_rng(0)
    first = np.unique(groups, return_index=True)[1]
    kinds = labels[first]  # class of each group, by its first sample
    for _ in range(REPEATS):
        order = rng.permutation(len(kinds))
        place, seen = np.empty(len(kinds), dtype=np.int64), np.zeros(labels.max() + 1, dtype=np.int64)
        seen += rng.integers(0, 2, len(seen))  # the larger half of an odd class
        for group in order:
            place[group] = seen[kinds[group]] % 2
            seen[kinds[group]] += 1
        half = place[groups]
        for side in (0, 1):
            fit = few_per_class(np.flatnonzero(half == side).astype(np.int64), labels, groups, SHOTS, rng)
            judged = np.flatnonzero(half != side).astype(np.int64)
            if len(fit) and len(judged):
                yield fit, judged


def _nearest(rows: Array, labels: Rows, held_out: Array) -> Rows:
    """(n,) classes of ``held_out`` (n, D): votes of the :data:`SHOTS` nearest of ``rows`` (m, D), by 1 / distance."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(min(SHOTS, len(rows)), weights="distance", algorithm="brute")
    return np.asarray(model.fit(rows, labels).predict(held_out))


def _ridge(rows: Array, targets: Array, held_out: Array) -> Array:
    """(n, C) predicted targets of ``held_out`` (n, D), by ridge regression on ``rows`` (m, D) and ``targets`` (m, C).

    Both are centered. The penalty is the mean squared length of the centered rows: a direction of mean variance is
    shrunk by half, whatever the scale of the features.
    """
    from sklearn.linear_model import Ridge

    spread = float(np.square(rows - rows.mean(0)).sum()) / len(rows)
    return np.asarray(Ridge(alpha=max(spread, 1e-12)).fit(rows, targets).predict(held_out))


def _group(extra: Mapping[str, Any], alone: str) -> str:
    return f"group {extra[GROUP]}" if GROUP in extra else alone
