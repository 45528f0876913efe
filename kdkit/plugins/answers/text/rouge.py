"""ROUGE-L (Lin and Och, ACL 2004) with beta 1.2, as pycocoevalcap computes it."""

from __future__ import annotations

from collections.abc import Sequence

BETA = 1.2


def rouge_l(answer: Sequence[str], reference: Sequence[str]) -> float:
    """``(1 + b^2) P R / (R + b^2 P)`` of the longest common subsequence of two lists of words, in [0, 1].

    An empty list counts as one empty word, as splitting an empty line gives it.
    """
    answer, reference = answer or [""], reference or [""]
    common = longest_common_subsequence(answer, reference)
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(reference)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """How many words both have in the same order, gaps allowed."""
    best = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            above = best[place]
            best[place] = diagonal + 1 if word == other else max(above, best[place - 1])
            diagonal = above
    return best[-1]
