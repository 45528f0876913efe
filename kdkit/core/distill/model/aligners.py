"""Aligners of a run in a shared space: known ones stay, new teachers are fitted to the space of the student."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from kdkit.core.distill.alignment.fit import FIT_ROWS, fit_aligners, subsample
from kdkit.core.distill.model.projection import module_key
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.targets import TeacherTargets
from kdkit.core.distill.plan.types import PREVIOUS, Indices, Plan

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.recipe import NamedPart

Features = Callable[[Indices, str], Mapping[str, np.ndarray[Any, Any]]]


def make_aligners(
    catalogue: Catalogue,
    plan: Plan,
    inventory: TeachingInventory,
    teachers: Sequence[TeacherTargets],
    outputs: Mapping[str, int],
    saved: Mapping[str, Tensor],
    student: Features | None,
) -> dict[str, nn.Module]:
    """Teacher -> aligner, if the recipe's space is shared; known teachers of an increment keep theirs.

    A new teacher that shares no sample with a known one is aligned to the student's own outputs, which live in the
    space. Otherwise it would get a random rotation, which the student would have to learn anew.

    Args:
        outputs: the student's output widths.
        saved: tensors of the parent's task.
        student: (samples, label) -> the parent's outputs; None for a run from scratch.
    """
    part = plan.recipe.aligner
    if part is None or not teachers:
        return {}
    fixed = _known_aligners(catalogue, part, teachers, outputs, saved)
    # Features of domains that a teacher may not teach must not influence its rotation.
    taught = [replace(t, rows=np.where(t.weight > 0, t.rows, -1)) for t in teachers]
    samples, seed = inventory.rows("train"), plan.settings.seed
    if student is not None and _any_isolated(taught, fixed):
        taught.append(_as_targets(student, subsample(samples, FIT_ROWS, seed), len(inventory.index)))
        fixed[PREVIOUS] = _Identity()
    fitted = fit_aligners(catalogue, part, taught, outputs, samples=samples, fixed=fixed, seed=seed)
    return {teacher.name: fitted[teacher.name] for teacher in teachers}


def _known_aligners(
    catalogue: Catalogue,
    part: NamedPart,
    teachers: Sequence[TeacherTargets],
    outputs: Mapping[str, int],
    saved: Mapping[str, Tensor],
) -> dict[str, nn.Module]:
    width = next(iter(outputs.values()))
    known: dict[str, nn.Module] = {}
    for teacher in teachers:
        prefix = f"projections.{module_key(teacher.name)}.aligner."
        state = {name.removeprefix(prefix): x for name, x in saved.items() if name.startswith(prefix)}
        if state:
            sizes = {"in_dim": next(iter(teacher.widths.values())), "out_dim": width}
            aligner = catalogue.make("aligner", part.name, **sizes, **part.options)
            aligner.load_state_dict(state)
            known[teacher.name] = aligner
    return known


def _any_isolated(teachers: Sequence[TeacherTargets], fixed: Mapping[str, nn.Module]) -> bool:
    """Whether a teacher that is to be fitted shares no sample with the known ones."""
    known = [teacher.rows >= 0 for teacher in teachers if teacher.name in fixed]
    covered = np.any(known, axis=0) if known else np.zeros(len(teachers[0].rows), dtype=bool)
    return any(not (covered & (t.rows >= 0)).any() for t in teachers if t.name not in fixed)


def _as_targets(student: Features, chosen: Indices, total: int) -> TeacherTargets:
    features = student(chosen, "computing the student's features")
    rows = np.full(total, -1, dtype=np.int64)
    rows[chosen] = np.arange(len(chosen))
    widths = {signal: array.shape[1] for signal, array in features.items()}
    return TeacherTargets(PREVIOUS, widths, rows, (rows >= 0).astype(np.float32), lambda s, at: features[s][at])


class _Identity(nn.Module):
    """The aligner of features that are in the space already."""

    def encode(self, name: str, x: Tensor) -> Tensor:  # noqa: ARG002  # the protocol's
        return x
