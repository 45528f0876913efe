"""BLEU of single answers as ImageCLEF's VQA-Med computes it (Ben Abacha et al., CLEF 2019).

Lower case, punctuation deleted, NLTK's English stop words left out, stems by Snowball, BLEU-1 to 4 with equal weights
and no smoothing (``Evaluator-VQA-Med-2020.py`` of abachaa/VQA-Med-2020). Orders without a common n-gram are left out,
as in NLTK up to 3.2.5. Later versions give nearly 0 to each right answer of fewer than four words, which the figures of
the challenges exclude.
"""

from __future__ import annotations

import math
import string
from functools import lru_cache

import snowballstemmer

from kdkit.plugins.answers.text.overlap import ORDER, n_grams

STOP_WORDS = frozenset(
    """i me my myself we our ours ourselves you you're you've you'll you'd your yours yourself yourselves he him his
    himself she she's her hers herself it it's its itself they them their theirs themselves what which who whom this
    that that'll these those am is are was were be been being have has had having do does did doing a an the and but if
    or because as until while of at by for with about against between into through during before after above below to
    from up down in out on off over under again further then once here there when where why how all any both each few
    more most other some such no nor not only own same so than too very s t can will just don don't should should've now
    d ll m o re ve y ain aren aren't couldn couldn't didn didn't doesn doesn't hadn hadn't hasn hasn't haven haven't isn
    isn't ma mightn mightn't mustn mustn't needn needn't shan shan't shouldn shouldn't wasn wasn't weren weren't won
    won't wouldn wouldn't""".split()  # noqa: SIM905  # a list of 179 literals is unreadable
)
"""NLTK's English list. It has ``no`` and ``not``: the answer *no* has no words left."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SNOWBALL = snowballstemmer.stemmer("english")


def clef_bleu(answer: str, reference: str) -> float:
    """BLEU of one answer, in [0, 1]; 1 if both have no words left.

    Example:
        >>> clef_bleu("The left lobes", "left lobe"), clef_bleu("no", "not")
        (1.0, 1.0)
    """
    answered, wanted = _words(answer), _words(reference)
    if not answered or not wanted:
        return float(not answered and not wanted)
    logarithms = 0.0
    for n in range(1, ORDER + 1):
        grams = n_grams(answered, n)
        if not (common := (grams & n_grams(wanted, n)).total()):
            if n == 1:
                return 0.0
            break
        logarithms += math.log(common / grams.total()) / ORDER
    return math.exp(min(0.0, 1 - len(wanted) / len(answered)) + logarithms)


def _words(text: str) -> list[str]:
    words = text.lower().translate(_PUNCTUATION).split()
    return [_stem(word) for word in words if word not in STOP_WORDS]


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    return str(_SNOWBALL.stemWord(word))
