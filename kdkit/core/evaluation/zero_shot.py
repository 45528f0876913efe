"""Zero-shot classification: images against prompts, for trust and for the ``zero-shot`` task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError

Array = np.ndarray[Any, Any]
Prompts = Mapping[str, Mapping[str, Sequence[str]]]
"""Domain -> class -> its prompts."""

LOGIT_SCALE = 100.0
"""Softmax scale of every reported probability: the maximum of CLIP's own (Radford et al. 2021, 2.5)."""


def unit_rows(features: Array, *, what: str, where: str = "", names: Sequence[str] = ()) -> Array:
    """(N, D) of any float type -> (N, D) float32 with rows of length 1.

    Args:
        names: of the rows, for the error; by default their numbers.

    Raises:
        KdkitError: rows that are NaN, infinite or zero, naming ``what``, how many and the first.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0]]), what="image features").round(1).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    rows = np.asarray(features, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = ~(np.isfinite(length[:, 0]) & (length[:, 0] > 0))
    if bad.any():
        first = f"'{names[bad.argmax()]}'" if names else f"row {bad.argmax()}"
        raise KdkitError(
            "KD-EVAL-013",
            f"{int(bad.sum())} of {len(rows)} {what} are NaN, infinite or zero (first: {first})",
            where=where,
            why="such a row has no direction, so it cannot be compared with a prompt",
            fix="check the model's files and preprocessing, then extract its features again",
            code=ExitCode.FOUND,
        )
    return np.asarray(rows / length, dtype=np.float32)


def class_embeddings(
    prompts: Mapping[str, Sequence[str]], encode: Callable[[Sequence[str]], Array], *, where: str = ""
) -> Array:
    """One unit row per class, (C, D): the prompt ensemble.

    ``w_c`` is the mean of the unit embeddings of the class's prompts, made unit again (Radford et al.,
    Learning Transferable Visual Models From Natural Language Supervision, 2021, section 3.1.4).

    Args:
        prompts: class -> at least one prompt; the order of classes is kept.
        encode: P texts -> (P, D); rows need not be unit.
        where: the model, for error messages.
    """
    texts = list(dict.fromkeys(text for group in prompts.values() for text in group))
    row = {text: number for number, text in enumerate(texts)}
    unit = unit_rows(encode(texts), what="prompt embeddings", where=where)
    means = np.stack([unit[[row[text] for text in group]].mean(axis=0) for group in prompts.values()])
    return unit_rows(means, what="class embeddings", where=where)


def class_probabilities(image: Array, classes: Array, scale: float = LOGIT_SCALE) -> Array:
    """Softmax of ``scale * cosine``: unit rows (N, D) and (C, D) -> (N, C) float64, rows sum to 1."""
    odds = np.exp(_shifted_logits(image, classes, scale))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def class_log_odds(image: Array, classes: Array, scale: float = LOGIT_SCALE) -> Array:
    """``log(p / (1 - p))`` of :func:`class_probabilities`, (N, C) float64.

    Same ranking as the probabilities, without the ties that arise where probabilities round to 1 (at scale 100 from a
    cosine margin of .36 on). AUC is computed from it.
    """
    logits = _shifted_logits(image, classes, scale)
    odds = np.exp(logits)
    best = odds.argmax(axis=1)[:, None]
    others = odds.copy()
    np.put_along_axis(others, best, 0.0, axis=1)
    rest = others.sum(axis=1, keepdims=True)
    # 1 - p of the best class is the sum of the others, without cancellation.
    against = rest + 1.0 - odds
    np.put_along_axis(against, best, rest, axis=1)
    with np.errstate(divide="ignore"):
        return np.asarray(logits - np.log(against))


def _shifted_logits(image: Array, classes: Array, scale: float) -> Array:
    logits = scale * (image.astype(np.float64) @ classes.astype(np.float64).T)
    return np.asarray(logits - logits.max(axis=1, keepdims=True))
