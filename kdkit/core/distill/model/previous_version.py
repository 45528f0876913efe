"""The previous version as one more teacher: what it says of the samples that it knows, before it is trained on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Answering, LossSpec, Reporter, Student
from kdkit.core.contracts.token_signals import EMBEDDING, HIDDEN, NAMED, TOKENS, token_signals, token_specs
from kdkit.core.distill.loop.dataloader import StudentInputs, Teaching
from kdkit.core.distill.loop.sampler import Indices
from kdkit.core.distill.model.projection import PREVIOUS
from kdkit.core.distill.model.sharded_rows import make_together
from kdkit.core.distill.plan.plan import Plan

if TYPE_CHECKING:
    from kdkit.core.plugin_system.discovery import Catalogue
    from kdkit.core.project.project import Project

ROWS = 256
"""Samples of a dual encoder at a time."""
ANSWERS = 16
"""Samples of a generating student at a time: each is hundreds of tokens."""
FOLDER = "remembered"
"""Below the project's state, while a run lasts: 25 KB a sample of 64 answer tokens."""
LABEL = "remembering the previous version"


def remembered(plan: Plan) -> Indices:
    """The samples of which the previous version speaks: the replayed ones.

    Without replay the new ones instead (LwF, arXiv 1606.09282), which are all there is.
    """
    pools = plan.pools[:-1] or plan.pools
    return cast(Indices, np.unique(np.concatenate([pool.indices for pool in pools])))


def remember(
    project: Project,
    student: nn.Module,
    inputs: StudentInputs,
    plan: Plan,
    total: int,
    reporter: Reporter,
    shown: Indices | None = None,
) -> Teaching:
    """The student as it is now, as a teacher of the :func:`remembered` samples.

    A dual encoder teaches its outputs; a student that answers its next-token distributions, as a column would hold
    them. Of several processes each asks it about a share of the samples; the rows are on disk, for all, until
    :func:`forget`.

    Args:
        total: samples of the table.
        shown: it is asked about no others.

    Raises:
        KdkitError: a loss that reads something else, or a student that gives neither; no room on the disk.
    """
    answers = isinstance(student, Answering)
    given = [spec.name for spec in token_specs(1, 1)] if answers else list(cast(Student, student).outputs)
    _require_fitting(plan.previous.loss, given, project.catalogue, answers=answers)
    used = remembered(plan)
    if shown is not None:
        used = np.union1d(np.intersect1d(used, shown), used[:1])  # a row at least, which tells the shapes
    rows = np.full(total, -1, dtype=np.int64)
    rows[used] = np.arange(len(used))
    weight = (rows >= 0).astype(np.float32)
    with _asked(student):
        kept = make_together(
            project.state / FOLDER,
            used,
            partial(_next_tokens if answers else _features, student, inputs),
            size=ANSWERS if answers else ROWS,
            progress=partial(reporter.progress, LABEL),
        )
    if answers:
        return Teaching(PREVIOUS, {}, rows, weight, kept.gather, token_specs(*kept.shape("topk")))
    return Teaching(PREVIOUS, {name: kept.shape(name)[-1] for name in given}, rows, weight, kept.gather)


def forget(project: Project) -> None:
    """Remove what was remembered: nobody reads it any more."""
    shutil.rmtree(project.state / FOLDER, ignore_errors=True)


def student_features(
    student: nn.Module, inputs: StudentInputs, indices: Indices, reporter: Reporter, label: str
) -> dict[str, np.ndarray[Any, Any]]:
    """Output name -> (len(indices), D), of answers (len(indices), A, D), float32 of the student in eval mode."""
    parts = list[dict[str, np.ndarray[Any, Any]]]()
    step = ANSWERS if isinstance(student, Answering) else ROWS
    with _asked(student):
        for start in range(0, len(indices), step):
            parts.append(_features(student, inputs, indices[start : start + step]))
            reporter.progress(label, min(start + step, len(indices)), len(indices))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@contextmanager
def _asked(student: nn.Module) -> Iterator[None]:
    """The student in eval mode and without gradients, and then in the mode that it was in."""
    mode = student.training
    student.eval()
    with torch.no_grad():
        yield
    student.train(mode)


def _features(student: nn.Module, inputs: StudentInputs, indices: Indices) -> dict[str, np.ndarray[Any, Any]]:
    outputs = _outputs(student, inputs, indices)
    return {name: outputs[name].float().cpu().numpy() for name in cast(Student, student).outputs}


def _next_tokens(student: nn.Module, inputs: StudentInputs, indices: Indices) -> dict[str, np.ndarray[Any, Any]]:
    """Signal -> (len(indices), *shape) as :mod:`kdkit.core.contracts.token_signals` stores them."""
    outputs = _outputs(student, inputs, indices)
    if lacking := [name for name in (HIDDEN, TOKENS, EMBEDDING) if name not in outputs]:
        raise KdkitError(
            "KD-DIST-023",
            "the previous version of this student cannot be its teacher",
            where="increment.previous",
            why=f"a student that answers is compared by its next tokens, and it gives no {', '.join(lacking)}",
            fix="leave it out; what the project still has is replayed from the store",
        )
    made = token_signals(outputs, min(NAMED, len(outputs[EMBEDDING])))
    specs = token_specs(*made["topk"].shape[1:])
    return {spec.name: made[spec.name].numpy().astype(spec.dtype, copy=False) for spec in specs}


def _outputs(student: nn.Module, inputs: StudentInputs, indices: Indices) -> Mapping[str, Tensor]:
    device = next(student.parameters()).device
    batch = {name: x.to(device) for name, x in inputs.batch(indices).items()}
    return cast(Student, student)(batch)


def _require_fitting(loss: str, given: Sequence[str], catalogue: Catalogue, *, answers: bool) -> None:
    """A loss that finds nothing in the previous version would silently be 0."""
    read = catalogue.spec(LossSpec, loss).signals
    if read and set(read) <= set(given):
        return
    specs = catalogue.specs(LossSpec)
    fitting = [spec.name for spec in specs if spec.signals and set(spec.signals) <= set(given)]
    raise KdkitError(
        "KD-DIST-024",
        f"the loss '{loss}' cannot compare the student with its previous version",
        where="increment.previous",
        why=f"it reads {', '.join(read) or 'no teacher'}; "
        f"{'a student that answers' if answers else 'this student'} gives {', '.join(given)}",
        fix=f"choose one of {', '.join(fitting)}" if fitting else "leave it out",
    )
