"""The previous version as one more teacher: its targets for the samples that it knows, before it is trained further."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Answering, LossSpec, Reporter, Student
from kdkit.core.contracts.token_signals import EMBEDDING, HIDDEN, NAMED, TOKENS, token_signals, token_specs
from kdkit.core.distill.loop.inputs import InputCache
from kdkit.core.distill.model.sharded_rows import compute_sharded_rows
from kdkit.core.distill.plan.targets import TeacherTargets
from kdkit.core.distill.plan.types import PREVIOUS, Indices, Plan

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue

ROWS = 256
"""Samples per forward pass of a dual encoder."""
ANSWERS = 16
"""Samples per forward pass of a generating student: each has hundreds of tokens."""
FOLDER = "previous-version"
"""In the folder of a run: 25 KB per sample of 64 answer tokens."""
LABEL = "targets of the previous version"


def previous_version_targets(
    student: nn.Module,
    inputs: InputCache,
    plan: Plan,
    catalogue: Catalogue,
    folder: Path,
    reporter: Reporter,
    shown: Indices | None = None,
) -> TeacherTargets:
    """The student as it is now, as a teacher of :attr:`Plan.rehearsed`.

    A dual encoder teaches its outputs; a generating student its next-token distributions, as a column stores them.
    Each rank computes a share of the rows; all of them read the files in ``folder``. A resumed run uses them again.

    Args:
        shown: compute rows of these samples only.

    Raises:
        KdkitError: a loss that reads other signals; a student without them; a full disk.
    """
    answers = isinstance(student, Answering)
    given = [spec.name for spec in token_specs(1, 1)] if answers else list(cast(Student, student).outputs)
    _require_fitting_loss(plan.previous.loss, given, catalogue, answers=answers)
    taught = plan.rehearsed
    if shown is not None:
        taught = np.union1d(np.intersect1d(taught, shown), taught[:1])  # at least one row, for the shapes
    rows = np.full(inputs.samples, -1, dtype=np.int64)
    rows[taught] = np.arange(len(taught))
    weight = (rows >= 0).astype(np.float32)
    with _inference(student):
        stored = compute_sharded_rows(
            folder,
            taught,
            partial(_token_signals if answers else _features, student, inputs),
            size=ANSWERS if answers else ROWS,
            progress=partial(reporter.progress, LABEL),
        )
    if answers:
        return TeacherTargets(PREVIOUS, {}, rows, weight, stored.gather, token_specs(*stored.shape("topk")))
    return TeacherTargets(PREVIOUS, {name: stored.shape(name)[-1] for name in given}, rows, weight, stored.gather)


def student_features(
    student: nn.Module, inputs: InputCache, indices: Indices, reporter: Reporter, label: str
) -> dict[str, np.ndarray[Any, Any]]:
    """Output name -> (len(indices), D), for answers (len(indices), A, D), float32 of the student in eval mode."""
    parts = list[dict[str, np.ndarray[Any, Any]]]()
    step = ANSWERS if isinstance(student, Answering) else ROWS
    with _inference(student):
        for start in range(0, len(indices), step):
            parts.append(_features(student, inputs, indices[start : start + step]))
            reporter.progress(label, min(start + step, len(indices)), len(indices))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@contextmanager
def _inference(student: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; restores the student's mode."""
    mode = student.training
    student.eval()
    with torch.no_grad():
        yield
    student.train(mode)


def _features(student: nn.Module, inputs: InputCache, indices: Indices) -> dict[str, np.ndarray[Any, Any]]:
    outputs = _outputs(student, inputs, indices)
    return {name: outputs[name].float().cpu().numpy() for name in cast(Student, student).outputs}


def _token_signals(student: nn.Module, inputs: InputCache, indices: Indices) -> dict[str, np.ndarray[Any, Any]]:
    """Signal -> (len(indices), *shape) as :mod:`kdkit.core.contracts.token_signals` stores them."""
    outputs = _outputs(student, inputs, indices)
    if lacking := [name for name in (HIDDEN, TOKENS, EMBEDDING) if name not in outputs]:
        raise KdkitError(
            "KD-DIST-023",
            "the previous version of this student cannot be its teacher",
            where="increment.previous",
            why=f"a generating student is compared by its next tokens, and it gives no {', '.join(lacking)}",
            fix="remove 'previous' from the recipe's 'increment'; stored targets are still replayed",
        )
    signals = token_signals(outputs, min(NAMED, len(outputs[EMBEDDING])))
    specs = token_specs(*signals["topk"].shape[1:])
    return {spec.name: signals[spec.name].numpy().astype(spec.dtype, copy=False) for spec in specs}


def _outputs(student: nn.Module, inputs: InputCache, indices: Indices) -> Mapping[str, Tensor]:
    device = next(student.parameters()).device
    batch = {name: x.to(device) for name, x in inputs.batch(indices).items()}
    return cast(Student, student)(batch)


def _require_fitting_loss(loss: str, given: Sequence[str], catalogue: Catalogue, *, answers: bool) -> None:
    """A loss that finds no signal of the previous version would silently be 0."""
    read = catalogue.spec(LossSpec, loss).signals
    if read and set(read) <= set(given):
        return
    fitting = [spec.name for spec in catalogue.specs(LossSpec) if spec.signals and set(spec.signals) <= set(given)]
    raise KdkitError(
        "KD-DIST-024",
        f"the loss '{loss}' cannot compare the student with its previous version",
        where="increment.previous",
        why=f"it reads {', '.join(read) or 'no teacher'}; "
        f"{'a generating student' if answers else 'this student'} gives {', '.join(given)}",
        fix=f"choose one of {', '.join(fitting)}" if fitting else "remove 'previous' from the recipe's 'increment'",
    )
