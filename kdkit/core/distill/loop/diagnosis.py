"""Why a step is not finite: the step is computed again, and the first value that is not finite is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.data.names import name_some
from kdkit.core.distill.loop.distributed import get_rank, get_world_size
from kdkit.core.distill.loop.finite_steps import NORM, BadStep, float_parts
from kdkit.core.distill.loop.parallel import Training
from kdkit.core.distill.loop.sharding import own_part

CONTINUE = "the same command continues from the last checkpoint"


def not_finite_error(training: Training, bad: BadStep, inputs: Mapping[str, Any], limit: int) -> KdkitError:
    """The error for the step that ended the run; the same on all ranks, which call it together.

    Args:
        inputs: of the task in that step, whose random numbers are seeded.
        limit: of skipped steps in a row.
    """
    ids, causes = bad.names(), _over_ranks(find_causes(training, bad, inputs))
    samples = f"its {len(ids)} samples: {name_some(ids)}" if ids else ""
    usual = "usually a learning rate that is too high, or a teacher with broken features"
    why = "; ".join([*(causes or [usual]), *([samples] if samples else [])])
    broken = [one for one in bad.broken if "/" not in one and one not in ("loss", NORM)]
    terms = ", ".join(f"{name} = {bad.found[name]:g}" for name in broken)
    object_ = "loss" if "loss" in bad.broken else "gradient"
    what = f"the {object_} is not a finite number at step {bad.step}{f' ({terms})' if terms else ''}"
    fix = "lower optimizer.lr in the recipe; 'kdkit features verify' checks the features"
    if limit == 1:
        fix = f"{fix}; 'optimizer: {{on_nan: skip}}' in registry.yaml skips such steps, and {CONTINUE}"
        return KdkitError("KD-DIST-017", what, why=why, fix=fix, code=ExitCode.FOUND)
    return KdkitError(
        "KD-DIST-530",
        f"{what}, the last of {limit} in a row that were skipped",
        why=why,
        fix=f"{fix}; optimizer.max_skipped is the limit, and {CONTINUE}",
        code=ExitCode.FOUND,
    )


def find_causes(training: Training, bad: BadStep, inputs: Mapping[str, Any]) -> list[str]:
    """What this rank finds: parts of the batch, a weight, or else the first module whose output or gradient is not
    finite. Computes the step again; with several ranks, all of them do."""
    found = [_batch_cause(name, x, bad) for name, x in float_parts(inputs) if not bool(x.isfinite().all())]
    weights = [name for name, x in training.task.named_parameters() if not bool(own_part(x).isfinite().all())]
    if weights:
        found.append(f"before the step, {name_some(weights)} of the weights {_is_are(weights)} not finite")
    first = _first_broken_module(training, inputs)
    if first and not found:
        found.append(f"the first module with an output that is not finite is {first}")
    if not found:
        gradients = [n for n, p in training.task.named_parameters() if p.grad is not None and _is_broken(p.grad)]
        if gradients:
            found.append(f"the losses are finite, the gradient of {name_some(gradients)} is not")
    return found


def _batch_cause(name: str, x: Tensor, bad: BadStep) -> str:
    """``x`` (rows, ...) is not finite."""
    ids = bad.names()
    rows = (~x.isfinite()).flatten(1).any(1) if x.ndim > 1 else ~x.isfinite()
    first = 0 if len(x) == len(ids) else get_rank() * len(x)
    places = [first + row for row in torch.nonzero(rows).flatten().tolist()]
    of = f" for {name_some(ids[place] for place in places)}" if places and places[-1] < len(ids) else ""
    kind, _, rest = name.partition("/")
    teacher, _, signal = rest.partition("/")
    if kind == "targets" and signal:
        return f"teacher '{teacher}' has {signal} targets that are not finite{of}"
    return f"'{name}' of the batch is not finite{of}"


def _first_broken_module(training: Training, inputs: Mapping[str, Any]) -> str:
    """The first module in the order of computation, innermost first; empty if all outputs are finite. Leaves the
    gradients of the step."""
    found: list[str] = []

    def look(name: str, output: Any) -> None:
        outputs = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple) else (output,)
        if not found and any(isinstance(x, Tensor) and _is_broken(x) for x in outputs):
            found.append(name)

    training.optimizer.zero_grad(set_to_none=True)
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: look(name, output))
        for name, module in training.task.named_modules()
        if name and not isinstance(module, nn.ModuleList | nn.ModuleDict)
    ]
    try:
        training.backward(training.forward(inputs)["loss"])
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""


def _over_ranks(causes: list[str]) -> list[str]:
    everyone = [causes] * get_world_size()
    if len(everyone) > 1:
        dist.all_gather_object(everyone, causes)
    return list(dict.fromkeys(cause for found in everyone for cause in found))


def _is_broken(x: Tensor) -> bool:
    part = own_part(x)
    return part.is_floating_point() and not bool(part.isfinite().all())


def _is_are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
