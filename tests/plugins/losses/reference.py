"""The losses once more, in float64 numpy, written from the equations with loops. Slow and plain on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Rows = Mapping[str, Array]


@dataclass(frozen=True)
class View:
    """One teacher: trust (B,), target and student rows."""

    weight: Array
    target: Rows
    student: Rows


def average(values: Array, weights: Array, over: str) -> float:
    """(T, B) values by (T, B) weights."""
    teachers, samples = weights.shape
    total = mass = 0.0
    for t in range(teachers):
        for b in range(samples):
            w = weights[t, b]
            if w == 0:
                continue
            if over == "samples":
                w = w / weights[:, b].sum()
            if over == "teachers":
                w = w / weights[t].sum()
            total, mass = total + w * values[t, b], mass + w
    return total / mass if mass else 0.0


def unit(row: Array) -> Array:
    return np.asarray(row / np.sqrt((row * row).sum()))


def fd(views: Sequence[View], *, reduction: str = "sum", unit_student: bool = True, over: str = "pairs") -> float:
    """Sum over signals of |s - t|^2."""
    values = np.zeros((len(views), len(views[0].weight)))
    for t, view in enumerate(views):
        for b in places(view.weight):
            for signal in view.target:
                s = view.student[signal][b]
                difference = (unit(s) if unit_student else s) - view.target[signal][b]
                square = (difference**2).sum()
                values[t, b] += square if reduction == "sum" else square / len(difference)
    return average(values, np.stack([view.weight for view in views]), over)


def places(weight: Array) -> list[int]:
    """Samples with weight."""
    return [int(b) for b in np.flatnonzero(weight)]


def log_softmax_at(logits: list[float], place: int) -> float:
    top = max(logits)
    return logits[place] - top - float(np.log(sum(np.exp(x - top) for x in logits)))


def icl(views: Sequence[View], scale: float, *, over: str = "pairs") -> float:
    """-log softmax over the teacher's rows, both directions, halved."""
    values = np.zeros((len(views), len(views[0].weight)))
    for t, view in enumerate(views):
        seen = places(view.weight)
        for b in seen:
            for query, key in (("image", "text"), ("text", "image")):
                logits = [scale * float(unit(view.student[query][b]) @ view.target[key][j]) for j in seen]
                values[t, b] -= log_softmax_at(logits, seen.index(b)) / 2
    return average(values, np.stack([view.weight for view in views]), over)


def clip(
    student: Rows, scale: float, weight: Sequence[float] | None = None, text: Sequence[int] | None = None
) -> float:
    """Symmetric InfoNCE over the samples with weight, the mean over the positives of each row."""
    size, total = len(student["image"]), 0.0
    weight, text = weight or [1.0] * size, text or list(range(size))
    seen = [j for j in range(size) if weight[j] > 0]
    for query, key in (("image", "text"), ("text", "image")):
        for b in seen:
            logits = [scale * float(unit(student[query][b]) @ unit(student[key][j])) for j in seen]
            positives = [place for place, j in enumerate(seen) if text[j] == text[b]]
            mean = sum(log_softmax_at(logits, place) for place in positives) / len(positives)
            total -= weight[b] * mean / size / 2
    return total


def similarity_row(rows: Rows, query: str, key: str, b: int, seen: list[int], scale: float) -> Array:
    """Softmax of sample b's similarities to the samples ``seen``."""
    logits = np.array([scale * float(unit(rows[query][b]) @ unit(rows[key][j])) for j in seen])
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def crd(
    views: Sequence[View],
    student: Rows,
    scale: float,
    *,
    temperatures: Sequence[float],
    domain: Array | None = None,
    over: str = "pairs",
) -> float:
    """KL(teacher || student) over the samples that the teacher covers, both directions, halved."""
    values = np.zeros((len(views), len(views[0].weight)))
    for t, view in enumerate(views):
        covered = places(view.weight)
        for b in covered:
            seen = [j for j in covered if domain is None or domain[j] == domain[b]]
            for query, key in (("image", "text"), ("text", "image")):
                p = similarity_row(view.target, query, key, b, seen, 1 / temperatures[t])
                q = similarity_row(student, query, key, b, seen, scale)
                values[t, b] += float((p * (np.log(p) - np.log(q))).sum()) / 2
    return average(values, np.stack([view.weight for view in views]), over)


def crd_ensemble(
    views: Sequence[View],
    student: Rows,
    scale: float,
    *,
    temperatures: Sequence[float],
    domain: Array | None = None,
) -> float:
    """KL(trust-weighted mean of the teachers' rows || student) over the samples that any teacher covers."""
    weights = np.stack([view.weight for view in views])
    total = weights.sum(0)
    values = np.zeros((1, len(total)))
    for b in places(total):
        seen = [j for j in places(total) if domain is None or domain[j] == domain[b]]
        for query, key in (("image", "text"), ("text", "image")):
            p = np.zeros(len(seen))
            for t, view in enumerate(views):
                if weights[t, b] > 0:
                    own = [j for j in seen if weights[t, j] > 0]
                    row = similarity_row(view.target, query, key, b, own, 1 / temperatures[t])
                    for j, value in zip(own, row, strict=True):
                        p[seen.index(j)] += weights[t, b] / total[b] * value
            q = similarity_row(student, query, key, b, seen, scale)
            values[0, b] += sum(float(x * (np.log(x) - np.log(y))) for x, y in zip(p, q, strict=True) if x > 0) / 2
    return average(values, total[None], "pairs")
