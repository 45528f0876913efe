"""Trust from captions alone: does a teacher find the true caption of an image among others of the same domain?

For an image with r of n other captions at least as similar as its own, the score is the probability that its own
caption comes before :data:`OTHERS` others drawn at random:

    p = C(n - r, k) / C(n, k),    k = OTHERS

It is the mean over all draws, so nothing is drawn. A teacher that ranks at random has the mean 1 / (k + 1). Equal
captions count as one, and neither they nor those of the same ``group`` (one patient, one figure) are others: a teacher
cannot tell them apart, or need not.

The mean over images is a U-statistic: images share the captions that they are compared with. Its variance is the
jackknife's over captions (Arvesen, Jackknifing U-statistics, Ann. Math. Statist. 40, 1969). It gives the number of
independent right-or-wrong answers with the same variance, for Wilson's interval.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.contracts import IMAGE, TEXT, Reporter
from kdkit.core.evaluation.retrieval import at_least_as_near
from kdkit.core.evaluation.sampling import GROUP
from kdkit.core.evaluation.trust.measurements import SCORES, DomainCount
from kdkit.core.evaluation.zero_shot import unit_rows

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column

OTHERS = 3
"""Captions beside the true one."""
CHANCE = 1 / (OTHERS + 1)
LEAST = 10
"""Different captions of a domain, at least; with fewer it is not measured."""
POOL = 2048
"""Different captions of a domain that images are compared with, at most."""
BLOCK = 4096
"""Images that are compared at a time."""

Array = np.ndarray[Any, Any]
Rows = np.ndarray[Any, np.dtype[np.int64]]


class RetrievalTrust:
    """Measures dual encoders in every domain with captions in the calibration split; labels are not read.

    Args:
        every_sample: also score samples of the other splits, against the same captions of the calibration split.
    """

    def __init__(self, index: SampleIndex, reporter: Reporter, *, every_sample: bool = False) -> None:
        self._index, self._reporter, self._every_sample = index, reporter, every_sample
        self.domains = {domain: rows for domain, rows in self._captioned() if self._enough(domain, rows)}

    def fingerprint(self, column: Column) -> str:
        """Digest of everything that the scores depend on."""
        index = self._index
        rows = index.select(split=None if self._every_sample else "calibration")
        samples = index.digest_of(rows, labels=False)
        inputs = [column.fingerprint, OTHERS, LEAST, POOL, self._every_sample, samples]
        digest = hashlib.sha256(json.dumps(inputs).encode())
        digest.update((column.locate(index)[rows] >= 0).tobytes())
        return digest.hexdigest()

    def measure(self, column: Column, advice: str) -> dict[str, DomainCount]:
        """Domain -> counts, for domains that the column has; per-sample scores are stored beside the column.

        Args:
            advice: the remedy, appended to warnings about missing features.
        """
        if problem := cannot_retrieve(column):
            self._reporter.warn(f"teacher '{column.teacher}' {problem}: captions cannot measure it; it is not trusted")
            return {}
        places, counts = column.locate(self._index), dict[str, DomainCount]()
        rows, scores = list[Rows](), list[Array]()
        for domain, captioned in self.domains.items():
            if not self._has_features(column.teacher, domain, places[captioned], advice):
                continue
            there = captioned[places[captioned] >= 0]
            pool = _Pool.of(self._index, column, places, there, domain)
            own = there[np.isin(self._index.text_index[there], pool.texts)]
            p, variance = pool.scores(own)
            known = ~np.isnan(p)
            if not known.any():
                continue
            effective = evidence(float(p[known].mean()), variance, len(pool.texts), int(known.sum()))
            counts[domain] = DomainCount(float(p[known].sum()), int(known.sum()), CHANCE, effective)
            rows.append(own)
            scores.append(p)
            if self._every_sample:
                others = self._others(domain, own, places)
                rows.append(others)
                scores.append(pool.scores(others)[0])
        if rows:
            column.put_scores(SCORES["caption"], places[np.concatenate(rows)], np.concatenate(scores))
        return counts

    def _captioned(self) -> Iterator[tuple[str, Rows]]:
        """Domain -> its calibration samples with a caption."""
        for domain in self._index.domains:
            rows = self._index.select(split="calibration", domains=[domain])
            yield domain, rows[self._index.has_text[rows]]

    def _enough(self, domain: str, rows: Rows) -> bool:
        different = len(np.unique(self._index.text_index[rows]))
        if different < LEAST:
            self._reporter.warn(
                f"domain '{domain}' has {different} different captions in the calibration split, and trust by captions "
                f"needs {LEAST}: no teacher is trusted there; add calibration samples with captions "
                "(option split_fractions of the data entry)"
            )
        return different >= LEAST

    def _has_features(self, teacher: str, domain: str, places: Rows, advice: str) -> bool:
        """Whether the column has what the domain needs; warns about what is missing."""
        there = places >= 0
        different = len(np.unique(self._index.text_index[self.domains[domain][there]]))
        if different < LEAST:
            self._reporter.warn(
                f"teacher '{teacher}' has features of {int(there.sum())} of {len(there)} captioned calibration samples "
                f"in domain '{domain}' and is not trusted there; {advice}"
            )
        elif not there.all():
            self._reporter.warn(
                f"teacher '{teacher}' lacks features of {int((~there).sum())} of {len(there)} captioned calibration "
                f"samples in domain '{domain}': measured on the others"
            )
        return different >= LEAST

    def _others(self, domain: str, measured: Rows, places: Rows) -> Rows:
        """Samples of the domain with a caption and features, without the measured ones and captions of teachers."""
        rows = self._index.select(domains=[domain])
        rows = rows[~self._index.text_of_teacher[rows]]
        rows = rows[(places[rows] >= 0) & ~np.isin(rows, measured)]
        return rows[self._index.has_text[rows]]


def cannot_retrieve(column: Column) -> str:
    """Why captions cannot measure a teacher with this column; empty if they can."""
    shapes = {spec.name: spec.shape for spec in column.signals}
    if TEXT not in shapes:
        return "has no text features"
    if IMAGE not in shapes:
        return "has no image features"
    if shapes[IMAGE] != shapes[TEXT]:
        return "has image and text features of different widths"
    return ""


@dataclass(frozen=True)
class _Pool:
    """The captions of a domain that its images are compared with.

    Attributes:
        texts: (C,) their numbers in ``index.text_index``, ascending; features: (C, D) unit rows.
        groups: group -> positions of its captions.
    """

    index: SampleIndex
    column: Column
    places: Rows
    where: str
    texts: Rows
    features: Array
    groups: dict[str, Rows]

    @classmethod
    def of(cls, index: SampleIndex, column: Column, places: Rows, rows: Rows, domain: str) -> _Pool:
        texts, first = np.unique(index.text_index[rows], return_index=True)
        if len(texts) > POOL:
            chosen = np.sort(np.random.default_rng(0).permutation(len(texts))[:POOL])
            texts, first = texts[chosen], first[chosen]
        where = f"teacher '{column.teacher}', domain '{domain}'"
        features = unit_rows(column.gather(TEXT, places[rows[first]]), what="text features", where=where)
        groups = defaultdict[str, set[int]](set)
        for row, position in zip(rows, _positions(texts, index.text_index[rows]), strict=True):
            if position >= 0 and GROUP in (extra := index.samples[row].extra):
                groups[str(extra[GROUP])].add(int(position))
        found = {group: np.array(sorted(members)) for group, members in groups.items()}
        return cls(index, column, places, where, texts, features, found)

    def scores(self, rows: Rows) -> tuple[Array, float]:
        """(n,) scores of samples, NaN where too few captions are others; and the variance of their mean."""
        parts, without, counted = list[Array](), np.zeros(len(self.texts)), np.zeros(len(self.texts))
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            own = _positions(self.texts, self.index.text_index[block])
            image, text = (
                unit_rows(self.column.gather(signal, self.places[block]), what=f"{signal} features", where=self.where)
                for signal in (IMAGE, TEXT)
            )
            others = self._others(block, own)
            beaten = others & at_least_as_near(image, self.features, text)
            p, left_out = hits(beaten.sum(1), others.sum(1)), hits_without_one(beaten, others)
            left_out[np.arange(len(block)), own] = np.where(own >= 0, np.nan, left_out[np.arange(len(block)), own])
            parts.append(p)
            without += np.nansum(left_out, axis=0)
            counted += (~np.isnan(left_out)).sum(axis=0)
        return np.concatenate(parts) if parts else np.zeros(0), jackknife_variance(without, counted)

    def _others(self, rows: Rows, own: Rows) -> Array:
        """(n, C) whether a caption is neither a sample's own nor of its group."""
        others: Array = np.arange(len(self.texts))[None] != own[:, None]
        for number, row in enumerate(rows):
            extra = self.index.samples[row].extra
            group = self.groups.get(str(extra.get(GROUP)))
            if group is not None and GROUP in extra:
                others[number, group] = False
        return others


def hits(beaten_by: Array, others: Array) -> Array:
    """(N,) probability that the own caption is first among :data:`OTHERS` drawn; NaN if there are no more than those.

    Args:
        beaten_by: (N,) other captions at least as similar as the own one; others: (N,) all other captions.

    Example:
        >>> hits(np.array([0, 1, 8]), np.array([8, 8, 8])).round(3).tolist()
        [1.0, 0.625, 0.0]
    """
    left = np.where(others > OTHERS, others, np.nan).astype(np.float64)
    found = np.ones(np.shape(left))
    for drawn in range(OTHERS):
        found = found * np.clip(left - beaten_by - drawn, 0, None) / (left - drawn)
    return np.asarray(found)


def hits_without_one(beaten: Array, others: Array) -> Array:
    """(N, C) :func:`hits` of each image if one caption did not exist.

    Args:
        beaten: (N, C) whether a caption is at least as similar as the own one; others: (N, C) whether it counts.
    """
    r, n = beaten.sum(1), others.sum(1)
    as_is, fewer, fewer_wins = hits(r, n), hits(r, n - 1), hits(r - 1, n - 1)
    found = np.where(beaten, fewer_wins[:, None], np.where(others, fewer[:, None], as_is[:, None]))
    return np.where(np.isnan(as_is)[:, None], np.nan, found)


def jackknife_variance(totals: Array, counts: Array) -> float:
    """Variance of a mean, from the (C,) totals and counts that are left without each of C units."""
    means = totals[counts > 0] / counts[counts > 0]
    return float(np.square(means - means.mean()).sum() * (len(means) - 1) / len(means)) if len(means) else 0.0


def evidence(mean: float, variance: float, captions: int, samples: int) -> float:
    """Right-or-wrong answers per sample that make a mean as certain as ``variance`` says.

    The variance of independent answers, one per caption, is added with the weight of one caption: few equal scores do
    not look certain.

    Example:
        >>> round(evidence(0.5, 0.25 / 100, 100, 100), 2)
        1.0
    """
    widest = mean * (1 - mean)
    if widest <= 0:
        return captions / samples  # all right or all wrong
    return widest / samples / ((captions * variance + widest / captions) / (captions + 1))


def _positions(texts: Rows, wanted: Sequence[int] | Rows) -> Rows:
    """Position of each of ``wanted`` in the ascending ``texts``, -1 where it is not there."""
    place = np.minimum(np.searchsorted(texts, wanted), len(texts) - 1)
    found: Rows = np.where(texts[place] == wanted, place, -1).astype(np.int64)
    return found
