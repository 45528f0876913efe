"""The previous version as one more teacher: what it says of the samples that it knows, before it is trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from kdkit.core.contracts import Answering, LossSpec, Reporter, Student
from kdkit.core.distill.batches import Indices
from kdkit.core.distill.bridge import PREVIOUS
from kdkit.core.distill.feed import StudentInputs, Teaching
from kdkit.core.distill.plan import Plan
from kdkit.core.errors import KdkitError
from kdkit.core.token_signals import EMBEDDING, HIDDEN, NAMED, TOKENS, token_signals, token_specs

if TYPE_CHECKING:
    from kdkit.core.discovery import Catalogue
    from kdkit.core.workspace import Workspace

ROWS = 256
"""Samples of a dual encoder at a time."""
ANSWERS = 16
"""Samples of a generating student at a time: each is hundreds of tokens."""
LABEL = "remembering the previous version"


def remember(
    workspace: Workspace, student: nn.Module, inputs: StudentInputs, plan: Plan, total: int, reporter: Reporter
) -> Teaching:
    """The student as it is now, as a teacher of what it knows: the replayed samples.

    Without replay it speaks about the new samples instead (LwF, arXiv 1606.09282), which is all there is. A dual
    encoder teaches its outputs; a student that answers its next-token distributions, as a column would hold them.

    Args:
        total: samples of the table.

    Raises:
        KdkitError: a loss that reads something else, or a student that gives neither.
    """
    answers = isinstance(student, Answering)
    given = [spec.name for spec in token_specs(1, 1)] if answers else list(cast(Student, student).outputs)
    _require_fitting(plan.previous.loss, given, workspace.catalogue, answers=answers)
    pools = plan.pools[:-1] or plan.pools
    used = np.unique(np.concatenate([pool.indices for pool in pools]))
    rows = np.full(total, -1, dtype=np.int64)
    rows[used] = np.arange(len(used))
    weight = (rows >= 0).astype(np.float32)
    if answers:
        said = _token_rows(student, inputs, used, workspace.state, reporter)
        raw = token_specs(*said["topk"].shape[1:])
        return Teaching(PREVIOUS, {}, rows, weight, lambda signal, chosen: said[signal][chosen], raw)
    features = student_features(student, inputs, used, reporter, LABEL)
    widths = {signal: array.shape[1] for signal, array in features.items()}
    return Teaching(PREVIOUS, widths, rows, weight, lambda signal, chosen: features[signal][chosen])


@torch.no_grad()
def student_features(
    student: nn.Module, inputs: StudentInputs, indices: Indices, reporter: Reporter, label: str
) -> dict[str, np.ndarray[Any, Any]]:
    """Output name -> (len(indices), D), of answers (len(indices), A, D), float32 of the student in eval mode."""
    mode, parts = student.training, list[Mapping[str, Tensor]]()
    step = ANSWERS if isinstance(student, Answering) else ROWS
    student.eval()
    for start in range(0, len(indices), step):
        outputs = _outputs(student, inputs, indices[start : start + step])
        parts.append({name: outputs[name].float().cpu() for name in cast(Student, student).outputs})
        reporter.progress(label, min(start + step, len(indices)), len(indices))
    student.train(mode)
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


@torch.no_grad()
def _token_rows(
    student: nn.Module, inputs: StudentInputs, indices: Indices, scratch: Path, reporter: Reporter
) -> dict[str, np.ndarray[Any, Any]]:
    """Signal -> (len(indices), *shape) as :mod:`kdkit.core.token_signals` stores them, of the student in eval mode.

    On disk, read as they are needed: 25 KB a sample of 64 places.
    """
    mode, said = student.training, dict[str, np.ndarray[Any, Any]]()
    scratch.mkdir(parents=True, exist_ok=True)
    student.eval()
    for start in range(0, len(indices), ANSWERS):
        chosen = indices[start : start + ANSWERS]
        outputs = _outputs(student, inputs, chosen)
        if lacking := [name for name in (HIDDEN, TOKENS, EMBEDDING) if name not in outputs]:
            raise KdkitError(
                "the previous version of this student cannot be its teacher",
                where="increment.previous",
                why=f"a student that answers is compared by its next tokens, and it gives no {', '.join(lacking)}",
                fix="leave it out; what the project still has is replayed from the store",
            )
        made = token_signals(outputs, min(NAMED, len(outputs[EMBEDDING])))
        for spec in () if said else token_specs(*made["topk"].shape[1:]):
            with tempfile.TemporaryFile(dir=scratch) as file:  # without a name: it goes with the last who maps it
                said[spec.name] = np.memmap(file, spec.dtype, "w+", shape=(len(indices), *spec.shape))
        for name, rows in said.items():
            rows[start : start + len(chosen)] = made[name].numpy()
        reporter.progress(LABEL, start + len(chosen), len(indices))
    student.train(mode)
    return said


def _outputs(student: nn.Module, inputs: StudentInputs, indices: Indices) -> Mapping[str, Tensor]:
    device = next(student.parameters()).device
    batch = {name: x.to(device) for name, x in inputs.batch(indices).items()}
    return cast(Student, student)(batch)


def _require_fitting(loss: str, given: Sequence[str], catalogue: Catalogue, *, answers: bool) -> None:
    """A loss that finds nothing in the previous version would silently be 0."""
    read = cast(LossSpec, catalogue.get("loss", loss).spec).signals
    if read and set(read) <= set(given):
        return
    specs = [cast(LossSpec, entry.spec) for entry in catalogue.entries("loss")]
    fitting = [spec.name for spec in specs if spec.signals and set(spec.signals) <= set(given)]
    raise KdkitError(
        f"the loss '{loss}' cannot compare the student with its previous version",
        where="increment.previous",
        why=f"it reads {', '.join(read) or 'no teacher'}; "
        f"{'a student that answers' if answers else 'this student'} gives {', '.join(given)}",
        fix=f"choose one of {', '.join(fitting)}" if fitting else "leave it out",
    )
