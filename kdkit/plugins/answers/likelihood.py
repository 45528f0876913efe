"""Multiple choice by likelihood: the option that the model finds most likely as its answer.

OmniMedVQA's prefix-based score (Hu et al., CVPR 2024; ``Prefix_based_Score`` of OpenGVLab/Multi-Modality-Arena at
ddd9465) takes the option whose tokens have the least mean cross entropy: it is normalized by length. Its prompt is
``Question: ... The answer is``, and options get a full stop; here both are the model's own chat and the option alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import ModelAnswers, ModelLikelihoods, Sample
from kdkit.core.evaluation.metrics import Metric
from kdkit.plugins.answers.choices import LETTERS, referred_option
from kdkit.plugins.answers.replies import CHOICES, share

WORDINGS = ("text", "letter")


def check_wording(name: str) -> str:
    """``name``, empty or one of :data:`WORDINGS`. Raises: KdkitError for another one."""
    if name and name not in WORDINGS:
        raise KdkitError(
            "KD-ANS-613",
            f"options have no '{name}' whose likelihood could be computed",
            where="option 'likelihood' of the task 'answers'",
            fix=did_you_mean(name, WORDINGS),
        )
    return name


def likelihood_metrics(model: ModelAnswers, samples: Sequence[Sample], wording: str) -> dict[str, Metric]:
    """``choice_likelihood`` and ``choice_likelihood_mean`` over the samples with options; none for a model that cannot
    tell likelihoods.

    The first takes the option with the highest sum of the log-probabilities of its tokens and the end token, which is
    the probability that it is the answer. The second takes the highest mean per token. Of equals, the first option.

    Args:
        samples: N of one domain.
        wording: ``text`` or ``letter``: what stands for an option as the answer.
    """
    rows = [row for row, sample in enumerate(samples) if sample.extra.get(CHOICES)]
    asked = [replace(samples[row], text=text) for row in rows for text in _wordings(samples[row], wording)]
    told = model.log_likelihoods(asked) if asked and isinstance(model, ModelLikelihoods) else None
    if told is None:
        return {}
    values, own = iter(told), np.zeros(len(samples))
    right = {"choice_likelihood": np.zeros(len(samples)), "choice_likelihood_mean": np.zeros(len(samples))}
    for row in rows:
        options = samples[row].extra[CHOICES]
        tokens = [next(values) for _ in options]
        wanted, own[row] = referred_option(samples[row].text.strip(), options), 1.0
        for name, scores in zip(right, ([sum(x) for x in tokens], [sum(x) / len(x) for x in tokens]), strict=True):
            right[name][row] = wanted is not None and options[int(np.argmax(scores))] == options[wanted]
    return {name: share(found, own) for name, found in right.items()}


def _wordings(sample: Sample, wording: str) -> list[str]:
    options = [str(option) for option in sample.extra[CHOICES]]
    return options if wording == "text" else list(LETTERS[: len(options)])
