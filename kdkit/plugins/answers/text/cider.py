"""CIDEr-D (Vedantam et al., CVPR 2015), as pycocoevalcap computes it, without its factor 10."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from kdkit.plugins.answers.text.bleu import ORDER, n_grams

SIGMA = 6.0
Gram = tuple[str, ...]


def cider(answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> list[float]:
    """One value in [0, 1] per sample; rare n-grams weigh more, so a value depends on the whole corpus of references.

    ``10 * value`` is what pycocoevalcap gives. The mean over n = 1 ... 4 of the clipped cosine of tf-idf vectors
    times ``exp(-(l - l')^2 / (2 sigma^2))``, with lengths in bigrams. With fewer than two samples every idf is 0,
    and so is the value.

    Args:
        answers, references: N lists of words; one reference each.
    """
    grams = [[n_grams(words, n) for n in range(1, ORDER + 1)] for words in references]
    occurs: Counter[Gram] = Counter(gram for sample in grams for counts in sample for gram in counts)
    weights = _Weights(occurs, math.log(len(references)) if references else 0.0)
    return [
        weights.similarity([n_grams(words, n) for n in range(1, ORDER + 1)], sample)
        for words, sample in zip(answers, grams, strict=True)
    ]


class _Weights:
    """tf-idf weights over one corpus.

    Args:
        occurs: n-gram -> number of references that have it.
        size: logarithm of the number of references.
    """

    def __init__(self, occurs: Mapping[Gram, int], size: float) -> None:
        self.occurs, self.size = occurs, size

    def similarity(self, answer: Sequence[Counter[Gram]], reference: Sequence[Counter[Gram]]) -> float:
        """Mean over n of the penalized clipped cosine."""
        difference = answer[1].total() - reference[1].total()
        penalty = math.exp(-(difference**2) / (2 * SIGMA**2))
        pairs = zip(answer, reference, strict=True)
        return penalty * sum(self._cosine(self._vector(a), self._vector(r)) for a, r in pairs) / ORDER

    def _vector(self, counts: Counter[Gram]) -> dict[Gram, float]:
        return {gram: n * (self.size - math.log(max(1, self.occurs.get(gram, 0)))) for gram, n in counts.items()}

    @staticmethod
    def _cosine(answer: Mapping[Gram, float], reference: Mapping[Gram, float]) -> float:
        product = sum(min(w, reference[gram]) * reference[gram] for gram, w in answer.items() if gram in reference)
        lengths = math.sqrt(sum(w * w for w in answer.values())) * math.sqrt(sum(w * w for w in reference.values()))
        return min(1.0, product / lengths) if lengths else 0.0
