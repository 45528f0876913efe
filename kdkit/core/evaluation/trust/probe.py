"""Trust of a teacher without text features: a probe with few labels classifies calibration samples.

Zero-shot classification needs prompts. Without a text tower, :data:`SHOTS` labeled samples per class take their place:
ridge regression from the unit image features to the classes, fitted on one half of the calibration samples, classifies
the other half, and the reverse. Samples of one group (one patient) are in the same half. The accuracy is the mean over
:data:`REPEATS` such divisions.

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

from kdkit.core.contracts import IMAGE, Reporter
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

Array = np.ndarray[Any, Any]
Rows = np.ndarray[Any, np.dtype[np.int64]]


class ProbeTrust:
    """Measures image features in every domain that has labeled calibration samples.

    Args:
        domains: domain -> class -> prompts, of the domains in which trust can be measured; the prompts are not read.
    """

    def __init__(
        self, index: SampleIndex, domains: Mapping[str, Mapping[str, Sequence[str]]], reporter: Reporter
    ) -> None:
        self._index, self._reporter = index, reporter
        self._classes = {domain: len(prompts) for domain, prompts in domains.items()}

    def fingerprint(self, column: Column) -> str:
        """Digest of everything that the accuracy depends on."""
        rows = self._index.select(split="calibration", labeled=True)
        inputs = [column.fingerprint, self._classes, SHOTS, REPEATS, IMAGE, "evidence of groups"]
        digest = hashlib.sha256(json.dumps(inputs).encode())
        for row in rows:
            sample = self._index.samples[row]
            digest.update(json.dumps([sample.id, sample.domain, sample.label, _group(sample.extra, "")]).encode())
        digest.update(self._index.digests[rows].tobytes())
        digest.update((column.locate(self._index)[rows] >= 0).tobytes())
        return digest.hexdigest()

    def measure(self, column: Column, advice: str) -> dict[str, DomainCount]:
        """Domain -> counts, for domains that the column has. Beside the column is stored, for every calibration sample,
        the share of the probes that name its class.

        Args:
            advice: the remedy, appended to warnings about missing features.
        """
        places, counts = column.locate(self._index), dict[str, DomainCount]()
        for domain, classes in self._classes.items():
            labeled = self._index.select(split="calibration", domains=[domain], labeled=True)
            rows = labeled[places[labeled] >= 0]
            labels = self._index.label_index[rows]
            groups = sample_groups([self._index.samples[row] for row in rows])
            if not self._can_probe(column.teacher, domain, len(labeled), labels, groups, advice):
                continue
            where = f"teacher '{column.teacher}', domain '{domain}'"
            features = unit_rows(column.gather(IMAGE, places[rows]), what="image features", where=where)
            right = probe_hits(features.astype(np.float64), labels, groups, classes)
            chance, evidence = chance_level(labels, classes), 1 / design_effect(right, groups)
            counts[domain] = DomainCount(float(right.sum()), len(rows), chance, evidence)
            column.put_scores(SCORES["label"], places[rows], right.astype(np.float32))
        return counts

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
                f"teacher '{teacher}' has no text features, and domain '{domain}' has too few labeled calibration "
                "samples to probe its image features: at least two classes need samples of two groups (patients); "
                "it is not trusted there"
            )
        return able > 1


def probe_hits(features: Array, labels: Rows, groups: Rows, classes: int) -> Array:
    """(N,) share of the probes that name the class of each sample, cross-fitted over groups.

    Args:
        features: (N, D) float64 unit rows.
        labels: (N,) in 0..classes - 1; groups: (N,) in 0..G - 1.

    Example:
        >>> labels = np.arange(20) % 2
        >>> probe_hits(np.eye(2)[labels], labels, np.arange(20), 2).mean().item()
        1.0
    """
    right = np.zeros(len(labels))
    for fit, judged in _divisions(labels, groups):
        predicted = _ridge(features[fit], np.eye(classes)[labels[fit]], features[judged]).argmax(1)
        right[judged] += predicted == labels[judged]
    return right / REPEATS


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
