"""Several answers to each sample by one model, and the selection of one of them, for all samples in the same way."""

from __future__ import annotations

from collections.abc import Sequence

from kdkit.core.base.journal import Journal, SampleKey
from kdkit.core.contracts import Answering, Decoding, Reporter, Sample
from kdkit.core.evaluation.answering.candidates import SelectedAnswer, find_candidates
from kdkit.core.evaluation.answering.names import NEAREST, PLAIN
from kdkit.core.evaluation.answering.rerank import Reranker
from kdkit.core.evaluation.answering.rules import NearestToImage


def select_answers(
    model: Answering,
    samples: Sequence[tuple[SampleKey, Sample]],
    decoding: Decoding,
    journal: Journal,
    reranker: Reranker | None,
    reporter: Reporter,
) -> list[SelectedAnswer]:
    """Answer all samples; a re-ranker chooses the answer nearest to the image, without one the first is taken.

    This is the selective generation (SASG) of ClinKD. It also chooses boxes by the re-ranker, which reads none.

    Args: as :func:`find_candidates`. Raises: as it.
    """
    rules = [] if reranker is None else [NearestToImage(reranker)]
    found = find_candidates(model, samples, [decoding], rules, journal, reporter)
    return [one.chosen_by(NEAREST if reranker else PLAIN) for one in found]
