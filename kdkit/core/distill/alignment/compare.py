"""Compare aligners: fit them on stored features and measure them on held-out samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import SPLITS, Aligner, AlignerSpec, Reporter, Silent, Student
from kdkit.core.distill.alignment.fit import (
    FIT_ROWS,
    PairedFeatures,
    common_width,
    encode,
    fit_aligners,
    pair_features,
    subsample,
)
from kdkit.core.distill.model.student import anchored
from kdkit.core.distill.plan.targets import TeacherTargets
from kdkit.core.distill.plan.types import Indices
from kdkit.core.features.extract.missing import extraction_hint
from kdkit.core.project.recipe import NamedPart
from kdkit.core.teachers.initial_weights import with_folders

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex
    from kdkit.core.features import Column
    from kdkit.core.project.project import Project

HELD_OUT = 0.2
"""Share of the training samples for measuring."""
RANKED = 1000
"""Images, and texts, that are ranked, at most."""


@dataclass(frozen=True)
class AlignerReport:
    """Measures of an aligner for one teacher, on held-out samples. Every aligner reconstructs well; compare rankings.

    Attributes:
        aligner, teacher: names.
        reconstruction: mean cosine of ``decode(encode(x))`` with ``x``, in [-1, 1].
        ranking: Spearman correlation, before and after, of the order in which an image ranks the texts; mean over
            images, in [-1, 1]. Zero-shot classification depends on it.
        top1: share of images whose nearest text stays the same, in [0, 1].
        gap: mean cosine with another teacher's features of the same sample minus that of different samples, in the
            common space; mean over other teachers and signals. 0: unrelated spaces. None without another teacher.
        samples: held-out samples.
    """

    aligner: str
    teacher: str
    reconstruction: float
    ranking: float | None
    top1: float | None
    gap: float | None
    samples: int


def compare_aligners(
    project: Project,
    teacher: str,
    names: Sequence[str] = (),
    *,
    dim: int | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> list[AlignerReport]:
    """Align ``teacher`` and the project's other stored teachers, and measure each aligner on held-out samples.

    Args:
        project: its store must have the teacher's features; live teachers and those without features take no part.
        teacher: the measured one.
        names: aligners; empty for all of the catalogue.
        dim: width of the common space; None for the student's.
        seed: of the choice of samples and of the aligners.

    Returns:
        One report per aligner, best ranking first.

    Raises:
        KdkitError: unknown teacher or aligner, no features, or too few training samples.
    """
    from kdkit.core.data import load_index

    reporter = reporter or Silent()
    catalogue = project.catalogue
    names = [catalogue.spec(AlignerSpec, name).name for name in names] or catalogue.names("aligner")
    stored = _stored(project, teacher, load_index(project, reporter))
    width = dim or student_width(project)
    fit, held = _split(stored[0], seed, extraction_hint(project.registry, project.lock, teacher))
    reports = []
    for number, name in enumerate(names):
        reporter.progress("fitting aligners", number, len(names), name)
        part, outputs = NamedPart(name=name), {"image": width, "text": width}
        aligners = fit_aligners(catalogue, part, stored, outputs, samples=fit, seed=seed)
        measured, *others = (pair_features(one, held) for one in stored)
        codes = [encode(aligners[one.name], paired) for one, paired in zip(stored[1:], others, strict=True)]
        reports.append(
            measure_aligner(
                aligners[teacher],
                measured.features,
                [partner for code in codes for partner in _in_order_of(measured, code)],
                name=name,
                teacher=teacher,
            )
        )
    reporter.progress("fitting aligners", len(names), len(names))
    return sorted(reports, key=lambda report: -(report.ranking or 0.0))


def student_width(project: Project) -> int:
    """Width of the student's outputs."""
    entry = project.registry.student
    config = anchored(with_folders(project, entry.config), project.root)
    student = project.catalogue.make("student", entry.family, **config)
    return common_width(cast(Student, student).outputs, f"student '{entry.family}'")


def _stored(project: Project, teacher: str, index: SampleIndex) -> list[TeacherTargets]:
    """The teacher first, then the others that have features."""
    from kdkit.core.features import FeatureStore

    chosen = tuple(project.registry.teachers)
    if teacher not in chosen:
        raise KdkitError(
            "KD-DIST-001",
            f"'{teacher}' is not a teacher of this project",
            where=str(project.registry_path),
            fix=did_you_mean(teacher, chosen) if chosen else f"kdkit add-teacher {teacher}",
        )
    live = project.registry.live
    if teacher in live:
        raise KdkitError(
            "KD-DIST-002",
            f"'{teacher}' is live: its features of training samples are not stored",
            where=str(project.registry_path),
            fix=f"remove 'signals: live' from its entry, then: kdkit features extract {teacher}",
        )
    store = FeatureStore(project.features)
    others = [name for name in chosen if name not in (teacher, *live) and name in store.teachers]
    return [_dual(store.column(name), index) for name in (teacher, *others)]


def _dual(column: Column, index: SampleIndex) -> TeacherTargets:
    widths = {s.name: int(np.prod(s.shape)) for s in column.signals if s.name in ("image", "text")}
    if not widths:
        raise KdkitError(
            "KD-DIST-003",
            f"teacher '{column.teacher}' has no image or text features to align",
            why="its signals: " + ", ".join(signal.name for signal in column.signals),
            fix="align a dual encoder; 'kdkit features' shows the signals of each teacher",
        )
    rows = np.where(index.split_index == SPLITS.index("train"), column.locate(index), -1)
    return TeacherTargets(
        name=column.teacher,
        widths=widths,
        rows=rows,
        weight=(rows >= 0).astype(np.float32),
        gather=lambda signal, rows: column.gather(signal, rows).reshape(len(rows), -1),
    )


def _split(teacher: TeacherTargets, seed: int, hint: str) -> tuple[Indices, Indices]:
    """Samples for fitting and for measuring."""
    has = np.flatnonzero(teacher.rows >= 0).astype(np.int64)
    if len(has) < 20:
        raise KdkitError(
            "KD-DIST-004",
            f"'{teacher.name}' has features of {len(has)} training samples; measuring aligners needs 20",
            fix=hint,
            code=ExitCode.MISSING,
        )
    mixed = np.random.default_rng(seed).permutation(subsample(has, FIT_ROWS, seed))
    cut = int(len(mixed) * HELD_OUT)
    return np.sort(mixed[cut:]), np.sort(mixed[:cut])


def _in_order_of(measured: PairedFeatures, other: PairedFeatures) -> list[dict[str, Tensor]]:
    """The other teacher's features in the order of ``measured``, if it has all of these samples."""
    if not torch.isin(measured.rows, other.rows).all():
        return []
    place = torch.searchsorted(other.rows, measured.rows)
    return [{signal: x[place] for signal, x in other.features.items()}]


@torch.no_grad()
def measure_aligner(
    aligner: nn.Module,
    features: Mapping[str, Tensor],
    others: Sequence[Mapping[str, Tensor]] = (),
    *,
    name: str = "",
    teacher: str = "",
) -> AlignerReport:
    """Measure a fitted aligner.

    Args:
        aligner: implements :class:`~kdkit.core.contracts.Aligner`.
        features: signal name -> (N, in_dim) of one teacher, for N held-out samples.
        others: other teachers' features of the same samples in the common space: signal name -> (N, out_dim).
        name, teacher: for the report.
    """
    fitted = cast(Aligner, aligner)
    codes = {signal: fitted.encode(signal, x) for signal, x in features.items()}
    back = [
        F.cosine_similarity(fitted.decode(signal, codes[signal]), x, dim=-1).mean() for signal, x in features.items()
    ]
    ranking = top1 = None
    if "image" in features and "text" in features:
        ranking, top1 = compare_rankings(features, codes)
    gaps = [same_minus_different(codes[s], x) for other in others for s, x in other.items() if s in codes]
    return AlignerReport(
        aligner=name,
        teacher=teacher,
        reconstruction=float(torch.stack(back).mean()),
        ranking=ranking,
        top1=top1,
        gap=sum(gaps) / len(gaps) if gaps else None,
        samples=len(next(iter(features.values()))),
    )


def compare_rankings(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> tuple[float, float]:
    """(mean Spearman correlation, share with the same first text) of images' rankings of the distinct texts."""
    texts = _distinct(before["text"])[:RANKED]
    first, second = (
        F.normalize(space["image"][:RANKED], dim=-1) @ F.normalize(space["text"][texts], dim=-1).T
        for space in (before, after)
    )
    same = (first.argmax(1) == second.argmax(1)).float().mean()
    return float(_spearman(first, second).mean()), float(same)


def same_minus_different(a: Tensor, b: Tensor) -> float:
    """Mean cosine of rows with the same index, minus that of rows with different indices; (N, D) each."""
    cosine = F.normalize(a[:RANKED], dim=-1) @ F.normalize(b[:RANKED], dim=-1).T
    count = len(cosine)
    same = cosine.diagonal().mean()
    different = (cosine.sum() - cosine.diagonal().sum()) / max(1, count * (count - 1))
    return float(same - different)


def _distinct(rows: Tensor) -> Tensor:
    """Index of the first of each set of equal rows, since equal captions would compare noise."""
    _, group = torch.unique(rows, dim=0, return_inverse=True)
    first = torch.full((int(group.max()) + 1,), len(rows), dtype=torch.long)
    return first.scatter_reduce(0, group, torch.arange(len(rows)), "amin").sort().values


def _spearman(a: Tensor, b: Tensor) -> Tensor:
    """(N,) rank correlation of the rows of two (N, K) tensors; 0 where a row is constant or K is 1."""
    ranks = [x.argsort(-1).argsort(-1).double() for x in (a, b)]
    centered = [r - r.mean(-1, keepdim=True) for r in ranks]
    norm = centered[0].norm(dim=-1) * centered[1].norm(dim=-1)
    return (centered[0] * centered[1]).sum(-1) / torch.where(norm > 0, norm, 1)
