"""Fit one aligner per teacher, all to the same anchor: the space that students of ``space: shared`` learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Aligner
from kdkit.core.distill.alignment.anchor import Paired, consensus
from kdkit.core.project.recipe import NamedPart

if TYPE_CHECKING:
    from kdkit.core.plugin_system.discovery import Catalogue

Indices = np.ndarray[Any, np.dtype[np.int64]]
FIT_ROWS = 10_000
"""Samples to fit on; more do not move a map of some hundred dimensions."""


class Taught(Protocol):
    """What is needed of a teacher here (:class:`kdkit.core.distill.loop.dataloader.Teaching` has it)."""

    @property
    def name(self) -> str: ...
    @property
    def widths(self) -> Mapping[str, int]: ...
    @property
    def rows(self) -> Indices: ...
    @property
    def gather(self) -> Callable[[str, Indices], np.ndarray[Any, Any]]: ...


def fit_aligners(
    catalogue: Catalogue,
    part: NamedPart,
    teachers: Sequence[Taught],
    outputs: Mapping[str, int],
    *,
    samples: Indices,
    fixed: Mapping[str, nn.Module] | None = None,
    seed: int = 0,
) -> dict[str, nn.Module]:
    """Aligners of all ``teachers``.

    Args:
        catalogue, part: which aligner, with which options.
        teachers: all that take part, those of ``fixed`` included.
        outputs: the student's output widths, of which the teachers' signals must be a part.
        samples: rows of the sample table to fit on: training samples, never others.
        fixed: teachers whose aligners exist already (an increment). They stay as they are, so that a new teacher
            comes into the space that the student already lives in.
        seed: of the choice of samples and of the aligner.

    Raises:
        KdkitError: signals of different widths, or a teacher without samples in common with the others.
    """
    fixed = dict(fixed or {})
    dim = one_width(outputs, "the student")
    widths = {teacher.name: one_width(teacher.widths, f"teacher '{teacher.name}'") for teacher in teachers}
    chosen = subsample(samples, FIT_ROWS, seed)
    paired = {teacher.name: pair(teacher, chosen) for teacher in teachers}
    ordered = dict(sorted(paired.items(), key=lambda item: -len(item[1].rows)))
    moving = {name: teacher for name, teacher in ordered.items() if name not in fixed}
    still = {name: encoded(fixed[name], paired[name]) for name in fixed}
    anchor = consensus(moving, len(chosen), dim, fixed=still, seed=seed)
    fitted = dict(fixed)
    for teacher in teachers:
        if teacher.name not in fixed:
            aligner = catalogue.make("aligner", part.name, in_dim=widths[teacher.name], out_dim=dim, **part.options)
            fit_to(cast(Aligner, aligner), teacher.name, paired[teacher.name], anchor, seed=seed)
            fitted[teacher.name] = aligner
    return fitted


def fit_to(aligner: Aligner, name: str, teacher: Paired, anchor: Mapping[str, Tensor], *, seed: int) -> None:
    """Fit on the samples that both the teacher and the anchor have.

    Raises:
        KdkitError: when there are fewer than two.
    """
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
def encoded(aligner: nn.Module, teacher: Paired) -> Paired:
    """The teacher's features in the aligner's space."""
    encode = cast(Aligner, aligner).encode
    return Paired(teacher.rows, {signal: encode(signal, x) for signal, x in teacher.features.items()})


def pair(teacher: Taught, samples: Indices) -> Paired:
    """The teacher's features of those ``samples`` that it has, float32, numbered by their place in it."""
    rows = teacher.rows[samples]
    held = np.flatnonzero(rows >= 0)
    features = {signal: teacher.gather(signal, rows[held]) for signal in teacher.widths}
    return Paired(
        torch.from_numpy(held),
        {s: torch.from_numpy(np.asarray(x, dtype=np.float32)) for s, x in features.items()},
    )


def subsample(samples: Indices, limit: int, seed: int) -> Indices:
    """At most ``limit`` of them, ascending, the same for the same seed."""
    if len(samples) <= limit:
        return np.sort(samples)
    return np.sort(np.random.default_rng(seed).choice(samples, limit, replace=False))


def one_width(widths: Mapping[str, int], whose: str) -> int:
    """The width that all signals share.

    Raises:
        KdkitError: when they differ: one map cannot then serve image and text.
    """
    different: Iterable[int] = set(widths.values())
    if len(set(different)) != 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise KdkitError(
            "KD-DIST-006",
            f"{whose} has signals of different widths, which no aligner can bring into one space",
            why=listed,
            fix="use 'space: heads' in the recipe",
        )
    return next(iter(different))
