"""Trust from a list that came with a teacher's features, such as MMKD-CLIP's ``available_clips``.

The list is the verdict of others, per sample: the score of a listed sample is 1, and other samples have none. Nothing
is measured. Of a domain, the share of listed samples is shown.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.contracts import Reporter, TrustBasis
from kdkit.core.evaluation.trust.measurements import SCORES, DomainCount

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column

Array = np.ndarray[Any, Any]


class ListTrust:
    """Counts the listed samples of every domain, in all splits."""

    def __init__(self, index: SampleIndex, reporter: Reporter) -> None:
        self._index, self._reporter = index, reporter

    def fingerprint(self, column: Column) -> str:
        """Digest of everything that the counts depend on."""
        digest = hashlib.sha256(json.dumps([column.fingerprint, self._index.domains]).encode())
        digest.update(self._index.domain_index.tobytes() + self._listed(column).tobytes())
        return digest.hexdigest()

    def measure(self, column: Column, advice: str) -> dict[str, DomainCount]:  # noqa: ARG002
        """Domain -> number of listed samples, against a chance of 0."""
        listed = self._listed(column)
        if not listed.any():
            self._reporter.warn(
                f"teacher '{column.teacher}' has no list of samples, and by lists it is not trusted: only "
                "'kdkit features import' of a folder with available_clips gives one"
            )
            return {}
        counts = dict[str, DomainCount]()
        for number, domain in enumerate(self._index.domains):
            here = listed[self._index.domain_index == number]
            if here.any():
                counts[domain] = DomainCount(float(here.sum()), len(here), 0.0)
        return counts

    def _listed(self, column: Column) -> Array:
        """(N,) whether a sample is on the teacher's list."""
        return np.asarray(sample_scores(column, self._index, "list") == 1)


def sample_scores(column: Column, index: SampleIndex, by: TrustBasis) -> Array:
    """(N,) float32 stored trust of each sample of the index, NaN where there is none."""
    places, stored = column.locate(index), column.scores(SCORES[by])
    return np.where(places >= 0, stored[places] if len(stored) else np.nan, np.nan).astype(np.float32)
