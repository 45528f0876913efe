"""What teachers are aligned to: their consensus, found by generalized Procrustes analysis (Gower 1975)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDS = 5
"""Rounds of rotate-and-average; the consensus hardly moves after three."""


@dataclass(frozen=True)
class Paired:
    """One teacher's features of samples that are numbered the same for all teachers.

    Attributes:
        rows: (n,) numbers of the samples that it has, ascending.
        features: signal name -> (n, D).
    """

    rows: Tensor
    features: Mapping[str, Tensor]


def consensus(
    teachers: Mapping[str, Paired], count: int, dim: int, *, fixed: Mapping[str, Paired] | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Generalized Procrustes: rotate every teacher to the mean, take the mean again.

    Teachers of any width take part: a narrower one is placed into the space, a wider one is projected. All
    signals of a teacher turn together. A teacher that shares no sample with those before it (another
    specialist) has nothing to turn to and gets a random rotation: its samples then lie apart from theirs.

    Args:
        teachers: by name; those with the most rows should come first.
        count: N, samples that are numbered.
        dim: width of the consensus.
        fixed: teachers that are in the space already and stay where they are, (n, dim) features.
        seed: of the random rotations.

    Returns:
        Signal name -> (N, dim) float32 unit rows; zeros in rows that no teacher has.
    """
    generator = torch.Generator().manual_seed(seed)
    units = {
        name: Paired(t.rows, {s: F.normalize(x.double(), dim=-1) for s, x in t.features.items()})
        for name, t in teachers.items()
    }
    still = {name: Paired(t.rows, {s: x.double() for s, x in t.features.items()}) for name, t in (fixed or {}).items()}
    turned: dict[str, Paired] = {}
    for name, teacher in units.items():
        others = {**still, **turned}
        known = torch.cat([other.rows for other in others.values()]) if others else teacher.rows[:0]
        if torch.isin(teacher.rows, known).any():
            turned[name] = _turn(teacher, mean_of(others, count))
        else:
            turned[name] = _start(teacher, dim, generator)
    for _ in range(ROUNDS):
        anchor = mean_of({**still, **turned}, count)
        turned = {name: _turn(teacher, anchor) for name, teacher in units.items()}
    return {signal: x.float() for signal, x in mean_of({**still, **turned}, count).items()}


def _start(teacher: Paired, dim: int, generator: torch.Generator) -> Paired:
    axes = _main_axes(torch.cat(list(teacher.features.values())), dim)
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=axes.dtype)).Q
    return Paired(teacher.rows, {signal: x @ axes @ rotation for signal, x in teacher.features.items()})


def mean_of(aligned: Mapping[str, Paired], count: int) -> dict[str, Tensor]:
    """Signal name -> (count, dim): the direction of the mean of what the teachers have; 0 where none has."""
    sums: dict[str, Tensor] = {}
    for teacher in aligned.values():
        for signal, x in teacher.features.items():
            if signal not in sums:
                sums[signal] = x.new_zeros(count, x.shape[1])
            sums[signal].index_add_(0, teacher.rows, F.normalize(x, dim=-1))
    return {signal: F.normalize(x, dim=-1) for signal, x in sums.items()}


def _main_axes(x: Tensor, dim: int) -> Tensor:
    """(D, dim): the identity where it fits, with zeros added; else the ``dim`` main directions of ``x``."""
    width = x.shape[1]
    if width <= dim:
        return torch.eye(width, dim, dtype=x.dtype)
    axes: Tensor = torch.linalg.eigh(x.T @ x).eigenvectors[:, -dim:]
    return axes


def _turn(teacher: Paired, anchor: Mapping[str, Tensor]) -> Paired:
    """The teacher's features, rotated to where the anchor is."""
    shared = [signal for signal in teacher.features if signal in anchor]
    products = [teacher.features[s].T @ anchor[s][teacher.rows].to(teacher.features[s]) for s in shared]
    u, _, vh = torch.linalg.svd(torch.stack(products).sum(0), full_matrices=False)
    return Paired(teacher.rows, {signal: x @ (u @ vh) for signal, x in teacher.features.items()})
