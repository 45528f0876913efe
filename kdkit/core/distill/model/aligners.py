"""Aligners of a run in a shared space: old ones stay, new teachers come into the space that the student lives in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from kdkit.core.distill.alignment.fit import FIT_ROWS, fit_aligners, subsample
from kdkit.core.distill.loop.dataloader import Teaching
from kdkit.core.distill.loop.sampler import Indices
from kdkit.core.distill.model.projection import PREVIOUS, module_key
from kdkit.core.distill.plan.inventory import Survey
from kdkit.core.distill.plan.plan import Plan

if TYPE_CHECKING:
    from kdkit.core.plugin_system.discovery import Catalogue

Features = Callable[[Indices, str], Mapping[str, np.ndarray[Any, Any]]]


def aligners_of(
    catalogue: Catalogue,
    plan: Plan,
    survey: Survey,
    teachers: Sequence[Teaching],
    outputs: Mapping[str, int],
    saved: Mapping[str, Tensor],
    student: Features | None,
) -> list[nn.Module]:
    """One per teacher in a shared space; those of an increment's old teachers stay as they were.

    A new teacher that shares no sample with an old one (another domain, or the old ones are not here) has nothing to
    be aligned to but the student itself, whose outputs are in the space: without it, it would get a random rotation,
    and the student would have to unlearn its own.

    Args:
        outputs: the student's output widths.
        saved: what the parent's task held.
        student: (samples, label) -> the parent's outputs; None for a run from scratch.
    """
    part = plan.recipe.aligner
    if part is None or not teachers:
        return []
    fixed = _kept(catalogue, plan, teachers, outputs, saved)
    # What a teacher says about domains that it may not teach must not turn the others.
    taught = [replace(t, rows=np.where(t.weight > 0, t.rows, -1)) for t in teachers]
    samples, seed = survey.samples("train"), plan.settings.seed
    if student is not None and _alone(taught, fixed):
        taught.append(_as_teaching(student, subsample(samples, FIT_ROWS, seed), len(survey.table)))
        fixed[PREVIOUS] = _InPlace()
    fitted = fit_aligners(catalogue, part, taught, outputs, samples=samples, fixed=fixed, seed=seed)
    return [fitted[teacher.name] for teacher in teachers]


def _kept(
    catalogue: Catalogue,
    plan: Plan,
    teachers: Sequence[Teaching],
    outputs: Mapping[str, int],
    saved: Mapping[str, Tensor],
) -> dict[str, nn.Module]:
    """Aligners that the parent had, of teachers that take part."""
    part, width = plan.recipe.aligner, next(iter(outputs.values()))
    assert part is not None
    kept: dict[str, nn.Module] = {}
    for teacher in teachers:
        prefix = f"bridges.{module_key(teacher.name)}.aligner."
        state = {name.removeprefix(prefix): x for name, x in saved.items() if name.startswith(prefix)}
        if state:
            sizes = {"in_dim": next(iter(teacher.widths.values())), "out_dim": width}
            aligner = catalogue.make("aligner", part.name, **sizes, **part.options)
            aligner.load_state_dict(state)
            kept[teacher.name] = aligner
    return kept


def _alone(teachers: Sequence[Teaching], fixed: Mapping[str, nn.Module]) -> bool:
    """Whether a teacher that is to be fitted shares no sample with those that stay."""
    old = [teacher.rows >= 0 for teacher in teachers if teacher.name in fixed]
    covered = np.any(old, axis=0) if old else np.zeros(len(teachers[0].rows), dtype=bool)
    return any(not (covered & (t.rows >= 0)).any() for t in teachers if t.name not in fixed)


def _as_teaching(student: Features, chosen: Indices, total: int) -> Teaching:
    features = student(chosen, "where the student stands")
    rows = np.full(total, -1, dtype=np.int64)
    rows[chosen] = np.arange(len(chosen))
    widths = {signal: array.shape[1] for signal, array in features.items()}
    return Teaching(PREVIOUS, widths, rows, (rows >= 0).astype(np.float32), lambda signal, at: features[signal][at])


class _InPlace(nn.Module):
    """The aligner of what is in the space already."""

    def encode(self, name: str, x: Tensor) -> Tensor:  # noqa: ARG002  # the protocol's
        return x
