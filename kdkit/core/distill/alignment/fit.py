"""Fit one aligner per teacher, all to the same consensus: the space that students of ``space: shared`` learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Aligner
from kdkit.core.distill.plan.targets import TeacherTargets
from kdkit.core.distill.plan.types import Indices
from kdkit.core.project.recipe import NamedPart

if TYPE_CHECKING:
    from kdkit.core.plugin_system.discovery import Catalogue

FIT_ROWS = 10_000
"""Samples for fitting; more do not change a map of some hundred dimensions."""
ITERATIONS = 5
"""Of rotating and averaging; the consensus hardly changes after three."""


@dataclass(frozen=True)
class PairedFeatures:
    """Features of one teacher for samples with common numbers.

    Attributes:
        rows: (n,) numbers of the samples, ascending.
        features: signal name -> (n, D).
    """

    rows: Tensor
    features: Mapping[str, Tensor]

    def map(self, function: Callable[[Tensor], Tensor]) -> PairedFeatures:
        """The same samples with ``function`` of the features of each signal."""
        return PairedFeatures(self.rows, {signal: function(x) for signal, x in self.features.items()})


def fit_aligners(
    catalogue: Catalogue,
    part: NamedPart,
    teachers: Sequence[TeacherTargets],
    outputs: Mapping[str, int],
    *,
    samples: Indices,
    fixed: Mapping[str, nn.Module] | None = None,
    seed: int = 0,
) -> dict[str, nn.Module]:
    """Aligners of all ``teachers``, by name.

    Args:
        catalogue, part: the aligner and its options.
        teachers: with those of ``fixed``.
        outputs: widths of the student's outputs, which include the teachers' signals.
        samples: rows of the sample index for fitting: training samples only.
        fixed: existing aligners (in an increment); new teachers are aligned to their space.
        seed: of the choice of samples and of the aligner.

    Raises:
        KdkitError: signals of different widths, or a teacher without samples in common with the others.
    """
    fixed = dict(fixed or {})
    dim = common_width(outputs, "the student")
    widths = {teacher.name: common_width(teacher.widths, f"teacher '{teacher.name}'") for teacher in teachers}
    chosen = subsample(samples, FIT_ROWS, seed)
    paired = {teacher.name: pair_features(teacher, chosen) for teacher in teachers}
    ordered = dict(sorted(paired.items(), key=lambda item: -len(item[1].rows)))
    new = {name: teacher for name, teacher in ordered.items() if name not in fixed}
    old = {name: encode(fixed[name], paired[name]) for name in fixed}
    anchor = consensus(new, len(chosen), dim, fixed=old, seed=seed)
    fitted = dict(fixed)
    for teacher in teachers:
        if teacher.name not in fixed:
            aligner = catalogue.make("aligner", part.name, in_dim=widths[teacher.name], out_dim=dim, **part.options)
            _fit(cast(Aligner, aligner), teacher.name, paired[teacher.name], anchor, seed=seed)
            fitted[teacher.name] = aligner
    return fitted


def _fit(aligner: Aligner, name: str, teacher: PairedFeatures, anchor: Mapping[str, Tensor], *, seed: int) -> None:
    """Fit on the samples that both the teacher and the anchor have."""
    signals = [signal for signal in teacher.features if signal in anchor]
    known = torch.stack([anchor[signal][teacher.rows].any(-1) for signal in signals]).all(0)
    if int(known.sum()) < 2:
        raise KdkitError(
            "KD-DIST-005",
            f"teacher '{name}' has no samples in common with the other teachers, so it cannot be aligned",
            fix="use 'space: heads' in the recipe, or extract its features for the others' samples too",
        )
    rows = teacher.rows[known]
    with torch.no_grad():
        aligner.fit(
            {signal: teacher.features[signal][known] for signal in signals},
            {signal: anchor[signal][rows].float() for signal in signals},
            seed=seed,
        )


@torch.no_grad()
def encode(aligner: nn.Module, teacher: PairedFeatures) -> PairedFeatures:
    """The teacher's features in the aligner's space."""
    fitted = cast(Aligner, aligner)
    return PairedFeatures(teacher.rows, {signal: fitted.encode(signal, x) for signal, x in teacher.features.items()})


def pair_features(teacher: TeacherTargets, samples: Indices) -> PairedFeatures:
    """The teacher's float32 features of those ``samples`` that have some, numbered by their position."""
    rows = teacher.rows[samples]
    held = np.flatnonzero(rows >= 0)
    features = {signal: teacher.gather(signal, rows[held]) for signal in teacher.widths}
    return PairedFeatures(
        torch.from_numpy(held),
        {s: torch.from_numpy(np.asarray(x, dtype=np.float32)) for s, x in features.items()},
    )


def subsample(samples: Indices, limit: int, seed: int) -> Indices:
    """At most ``limit`` samples, ascending."""
    if len(samples) <= limit:
        return np.sort(samples)
    return np.sort(np.random.default_rng(seed).choice(samples, limit, replace=False))


def common_width(widths: Mapping[str, int], whose: str) -> int:
    """The width that all signals share.

    Raises:
        KdkitError: different widths: one map cannot serve image and text then.
    """
    if len(set(widths.values())) != 1:
        raise KdkitError(
            "KD-DIST-006",
            f"{whose} has signals of different widths, which no aligner can map to one space",
            why=", ".join(f"{name} {width}" for name, width in widths.items()),
            fix="use 'space: heads' in the recipe",
        )
    return next(iter(widths.values()))


def consensus(
    teachers: Mapping[str, PairedFeatures],
    count: int,
    dim: int,
    *,
    fixed: Mapping[str, PairedFeatures] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Generalized Procrustes analysis (Gower 1975): rotate every teacher to the mean, then recompute the mean.

    A teacher narrower than ``dim`` is embedded, a wider one is projected. All signals of a teacher share one rotation.
    A teacher without samples in common with those before it gets a random rotation.

    Args:
        teachers: by name, in descending order of rows.
        count: N, numbered samples.
        dim: width of the consensus.
        fixed: teachers that are in the space already, with (n, dim) features.
        seed: of the random rotations.

    Returns:
        Signal name -> (N, dim) float32 unit rows; zeros in rows that no teacher has.
    """
    generator = torch.Generator().manual_seed(seed)
    units = {name: teacher.map(lambda x: F.normalize(x.double(), dim=-1)) for name, teacher in teachers.items()}
    fixed_units = {name: teacher.map(torch.Tensor.double) for name, teacher in (fixed or {}).items()}
    rotated: dict[str, PairedFeatures] = {}
    for name, teacher in units.items():
        others = {**fixed_units, **rotated}
        known = torch.cat([other.rows for other in others.values()]) if others else teacher.rows[:0]
        if torch.isin(teacher.rows, known).any():
            rotated[name] = _rotate_to(teacher, mean_of(others, count))
        else:
            rotated[name] = _rotate_randomly(teacher, dim, generator)
    for _ in range(ITERATIONS):
        anchor = mean_of({**fixed_units, **rotated}, count)
        rotated = {name: _rotate_to(teacher, anchor) for name, teacher in units.items()}
    return {signal: x.float() for signal, x in mean_of({**fixed_units, **rotated}, count).items()}


def _rotate_randomly(teacher: PairedFeatures, dim: int, generator: torch.Generator) -> PairedFeatures:
    axes = _principal_axes(torch.cat(list(teacher.features.values())), dim)
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=axes.dtype)).Q
    return teacher.map(lambda x: x @ axes @ rotation)


def mean_of(aligned: Mapping[str, PairedFeatures], count: int) -> dict[str, Tensor]:
    """Signal name -> (count, dim): normalized mean over the teachers; 0 in rows that none has."""
    sums: dict[str, Tensor] = {}
    for teacher in aligned.values():
        for signal, x in teacher.features.items():
            if signal not in sums:
                sums[signal] = x.new_zeros(count, x.shape[1])
            sums[signal].index_add_(0, teacher.rows, F.normalize(x, dim=-1))
    return {signal: F.normalize(x, dim=-1) for signal, x in sums.items()}


def _principal_axes(x: Tensor, dim: int) -> Tensor:
    """(D, dim): the identity padded with zeros if D <= dim; else the ``dim`` principal directions of ``x``."""
    width = x.shape[1]
    if width <= dim:
        return torch.eye(width, dim, dtype=x.dtype)
    axes: Tensor = torch.linalg.eigh(x.T @ x).eigenvectors[:, -dim:]
    return axes


def _rotate_to(teacher: PairedFeatures, anchor: Mapping[str, Tensor]) -> PairedFeatures:
    """The teacher's features, rotated to the anchor (orthogonal Procrustes)."""
    shared = [signal for signal in teacher.features if signal in anchor]
    products = [teacher.features[s].T @ anchor[s][teacher.rows].to(teacher.features[s]) for s in shared]
    u, _, vh = torch.linalg.svd(torch.stack(products).sum(0), full_matrices=False)
    return teacher.map(lambda x: x @ (u @ vh))
