"""Cross-modal retrieval of captions by images, and of images by captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import DomainScore, ModelFeatures, Sample
from kdkit.core.evaluation.metrics import LEVEL, RESAMPLES, SEED, median_rank
from kdkit.core.evaluation.retrieval import pair_captions, sample_ranks
from kdkit.core.evaluation.sampling import of_each_domain, sample_groups
from kdkit.core.evaluation.scoring import Bootstrap, Predicted, RowMetric, Subgroups, score_domain

Array = np.ndarray[Any, Any]
AT = (1, 5, 10)
ALL = "/all"
"""Ends the names of metrics among the samples of all domains."""


@dataclass(frozen=True)
class _Outcomes:
    """Per sample (N,): ``hits`` by metric, in [0, 1], and ``ranks`` by direction."""

    hits: Mapping[str, Array]
    ranks: Mapping[str, Array]


class Retrieval:
    """Recall at k both ways and median ranks, per domain: among its own samples, and among those of all domains.

    A sample's image searches the distinct captions, and its caption the distinct images. Samples with the same image
    file are its several captions. Equal captions are all right answers. Ties count against the model.

    Args:
        at: the ranks of recall, beside 1; the headline ``recall@1`` is the mean of both directions.
        resamples, seed, level: of the bootstrap, which draws samples, or groups (patients) where they are known.
        subgroups: column -> sample id -> value, for scores of subgroups.

    Raises:
        KdkitError: a rank below 1.
    """

    def __init__(
        self,
        *,
        at: Sequence[int] = AT,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
        subgroups: Subgroups | None = None,
    ) -> None:
        if not at or min(at) < 1:
            raise KdkitError("KD-EVAL-015", f"'at' is {list(at)}", fix="give ranks of at least 1, such as [1, 5, 10]")
        self.at = tuple(sorted({1, *at}))
        self.how = Bootstrap(resamples, seed, level, subgroups or {})

    def evaluate(self, model: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        """One score per domain with at least two captions and two images, in the order of the samples."""
        domains = [(d, found) for d, found in of_each_domain(s for s in samples if s.text.strip()) if not _why(found)]
        every = [sample for _, found in domains for sample in found]
        if not every:
            return []
        pairs = pair_captions(every)
        image, text = model.image(pairs.images), model.captions(pairs.texts)

        def outcomes(part: slice) -> _Outcomes:
            return self._outcomes(*sample_ranks(image, text, pairs.image_of[part], pairs.text_of[part]))

        overall = outcomes(slice(None)) if len(domains) > 1 else None
        scores, start = [], 0
        for domain, found in domains:
            part = slice(start, start := start + len(found))
            pooled = None if overall is None else _part(overall, part)
            scores.append(self._score(domain, found, outcomes(part), pooled))
        return scores

    def why_skipped(self, samples: Sequence[Sample]) -> str:
        """Why samples of one domain cannot be scored."""
        return _why([sample for sample in samples if sample.text.strip()])

    def _outcomes(self, to_text: Array, to_image: Array) -> _Outcomes:
        ranks = {"image-to-text": to_text, "text-to-image": to_image}
        hits = {f"{way}@{k}": (rank <= k).astype(np.float64) for way, rank in ranks.items() for k in self.at}
        both = {"recall@1": (hits["image-to-text@1"] + hits["text-to-image@1"]) / 2}
        return _Outcomes({**both, **hits}, ranks)

    def _score(self, domain: str, samples: Sequence[Sample], own: _Outcomes, pooled: _Outcomes | None) -> DomainScore:
        hits, ranks = dict(own.hits), {f"median rank {way}": rank for way, rank in own.ranks.items()}
        if pooled is not None:
            hits |= {f"{name}{ALL}": values for name, values in pooled.hits.items()}
            ranks |= {f"median rank {way}{ALL}": rank for way, rank in pooled.ranks.items()}

        predicted = Predicted(
            samples,
            np.zeros(len(samples), dtype=np.int64),
            outcomes=hits,
            figures={name: _median(rank) for name, rank in ranks.items()},
            units=_units(samples),
        )
        pooled_names = [name for name in (*hits, *ranks) if name.endswith(ALL)]
        return score_domain(domain, predicted, self.how, notes=_notes(samples), pooled=pooled_names)


def _median(ranks: Array) -> RowMetric:
    return lambda rows, counts: median_rank(ranks[rows], counts)


def _part(outcomes: _Outcomes, part: slice) -> _Outcomes:
    hits, ranks = ({name: x[part] for name, x in found.items()} for found in (outcomes.hits, outcomes.ranks))
    return _Outcomes(hits, ranks)


def _units(samples: Sequence[Sample]) -> Array:
    """(N,) what the bootstrap draws: groups, and images with all their captions."""
    groups = sample_groups(samples)
    first: dict[object, int] = {}
    for sample, group in zip(samples, groups.tolist(), strict=True):
        first.setdefault(sample.image, group)
    units = np.array([first[sample.image] for sample in samples], dtype=np.int64)
    return np.asarray(np.unique(units, return_inverse=True)[1])


def _why(samples: Sequence[Sample]) -> str:
    """Why samples of one domain cannot be scored; empty if they can."""
    if not samples:
        return "none of its samples has a caption"
    pairs = pair_captions(samples)
    if len(pairs.texts) == 1:
        return f"all its captions are equal ('{samples[0].text[:60]}'), so there is nothing to retrieve"
    if len(pairs.images) == 1:
        return "all its captions are of one image, so there is nothing to retrieve"
    return ""


def _notes(samples: Sequence[Sample]) -> tuple[str, ...]:
    pairs, notes = pair_captions(samples), []
    if min(len(pairs.texts), len(pairs.images)) < len(samples):
        notes.append(
            f"{len(pairs.images)} images and {len(pairs.texts)} captions are distinct, of {len(samples)} samples: "
            "equal captions are all right answers"
        )
    return tuple(notes)
