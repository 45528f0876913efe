"""Fit aligners on the store and judge them on samples that they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import SPLITS, AlignerSpec, Reporter, Silent, Student
from kdkit.core.distill.alignment.anchor import Paired
from kdkit.core.distill.alignment.judge import AlignerReport, judge_aligner
from kdkit.core.distill.alignment.shared import FIT_ROWS, Indices, encoded, fit_aligners, one_width, pair, subsample
from kdkit.core.project.recipe import NamedPart

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex
    from kdkit.core.features import Column
    from kdkit.core.project.project import Project

HELD_OUT = 0.2
"""Share of the training samples that judges instead of fitting."""


@dataclass(frozen=True)
class Stored:
    """A column as :class:`~kdkit.core.distill.alignment.shared.Taught`."""

    name: str
    widths: Mapping[str, int]
    rows: Indices
    gather: Callable[[str, Indices], np.ndarray[Any, Any]]


def compare_aligners(
    project: Project,
    teacher: str,
    names: Sequence[str] = (),
    *,
    dim: int | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> list[AlignerReport]:
    """Bring ``teacher``, and the project's other teachers with it, into one space; say what that costs it.

    Args:
        project: its store must have the teacher's features; other teachers without any, and live ones, are left out.
        teacher: the one to judge.
        names: aligners; all of the catalogue where empty.
        dim: width of the common space; the student's where None.
        seed: of the choice of samples and of the aligners.

    Returns:
        One report per aligner, the best ranking first.

    Raises:
        KdkitError: unknown teacher or aligner, no features, or too few training samples.
    """
    from kdkit.core.data import load_index

    reporter = reporter or Silent()
    catalogue = project.catalogue
    names = [catalogue.spec(AlignerSpec, name).name for name in names] or catalogue.names("aligner")
    stored = _stored(project, teacher, load_index(project, reporter))
    width = dim or student_width(project)
    fit, held = _parts(stored[0], seed)
    reports = []
    for number, name in enumerate(names):
        reporter.progress("fitting aligners", number, len(names), name)
        part, outputs = NamedPart(name=name), {"image": width, "text": width}
        aligners = fit_aligners(catalogue, part, stored, outputs, samples=fit, seed=seed)
        judged, *others = (pair(one, held) for one in stored)
        codes = [encoded(aligners[one.name], paired) for one, paired in zip(stored[1:], others, strict=True)]
        reports.append(
            judge_aligner(
                aligners[teacher],
                judged.features,
                [partner for code in codes for partner in _common(judged, code)],
                name=name,
                teacher=teacher,
            )
        )
    reporter.progress("fitting aligners", len(names), len(names))
    return sorted(reports, key=lambda report: -(report.ranking or 0.0))


def student_width(project: Project) -> int:
    """Width of the student's outputs, from making one."""
    entry = project.registry.student
    student = project.catalogue.make("student", entry.family, **entry.config)
    return one_width(cast(Student, student).outputs, f"student '{entry.family}'")


def _stored(project: Project, teacher: str, table: SampleIndex) -> list[Stored]:
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
            f"'{teacher}' is live: its features of training samples, on which aligners are fitted, are not stored",
            where=str(project.registry_path),
            fix=f"take 'signals: live' out of its entry, then: kdkit features extract {teacher}",
        )
    store = FeatureStore(project.features)
    others = [name for name in chosen if name not in (teacher, *live) and name in store.teachers]
    return [_dual(store.column(name), table) for name in (teacher, *others)]


def _dual(column: Column, table: SampleIndex) -> Stored:
    widths = {s.name: int(np.prod(s.shape)) for s in column.signals if s.name in ("image", "text")}
    if not widths:
        raise KdkitError(
            "KD-DIST-003",
            f"teacher '{column.teacher}' gives no image or text features, there is nothing to align",
            why="it gives " + ", ".join(signal.name for signal in column.signals),
        )
    rows = np.where(table.split_index == SPLITS.index("train"), column.locate(table), -1)
    return Stored(column.teacher, widths, rows, partial(_gather, column))


def _gather(column: Column, signal: str, rows: Indices) -> np.ndarray[Any, Any]:
    return column.gather(signal, rows).reshape(len(rows), -1)


def _parts(teacher: Stored, seed: int) -> tuple[Indices, Indices]:
    """Samples to fit on and to judge on."""
    has = np.flatnonzero(teacher.rows >= 0).astype(np.int64)
    if len(has) < 20:
        raise KdkitError(
            "KD-DIST-004",
            f"'{teacher.name}' has features of {len(has)} training samples; judging aligners needs 20",
            fix=f"kdkit features extract {teacher.name}",
            code=ExitCode.MISSING,
        )
    mixed = np.random.default_rng(seed).permutation(subsample(has, FIT_ROWS, seed))
    cut = int(len(mixed) * HELD_OUT)
    return np.sort(mixed[cut:]), np.sort(mixed[:cut])


def _common(judged: Paired, other: Paired) -> list[dict[str, Tensor]]:
    """The other teacher's codes in the order of ``judged``, if it has all of these samples."""
    if not torch.isin(judged.rows, other.rows).all():
        return []
    place = torch.searchsorted(other.rows, judged.rows)
    return [{signal: x[place] for signal, x in other.features.items()}]
