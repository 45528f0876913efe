"""A process's place in a run: device, precision, one process or many. What a launcher asks for is done or refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError, did_you_mean

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = ("no", "bf16")
"""Of the student's forward pass; ``no`` is float32. (float16 would need its loss scale in the checkpoints.)"""
_SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}


def accelerate(precision: str, *, cpu: bool) -> Accelerator:
    """Bring the processes of a run together.

    Args:
        precision: one of :data:`PRECISIONS`.
        cpu: stay on the CPU even where there is a GPU.

    Raises:
        KdkitError: for another precision; for settings of ``accelerate launch`` that a run cannot follow; for
            processes that accelerate cannot bring together on this machine's accelerator (Apple's).
    """
    if precision not in PRECISIONS:
        raise KdkitError(
            "KD-DIST-010",
            f"there is no precision '{precision}'",
            where="--precision",
            fix=did_you_mean(precision, PRECISIONS),
        )
    _refuse_what_cannot_be_followed(precision)
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    from kdkit.core.distill.loop.distributed import PATIENCE, world_size

    # A batch need not use every parameter (a teacher absent from it, a loss without a logit scale).
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    patient = InitProcessGroupKwargs(timeout=PATIENCE)
    # Where there is no accelerator, accelerate takes each of several processes for the only one, unless it is told.
    cpu = cpu or not torch.accelerator.is_available()
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=[unused, patient])
    if accelerator.num_processes != world_size():
        raise KdkitError(
            "KD-DIST-011",
            f"{world_size()} processes cannot share a batch on '{accelerator.device.type}'",
            fix="add --cpu",
        )
    return accelerator


def _refuse_what_cannot_be_followed(precision: str) -> None:
    """Settings that accelerate reads from its launcher and that would otherwise change the run, or be forgotten."""
    for variable, name in _SHARDED.items():
        if os.environ.get(variable, "").lower() in ("true", "1"):
            raise KdkitError(
                "KD-DIST-012",
                f"a run cannot be shared by {name}",
                where=variable,
                why="each process holds the whole student; only batches are shared",
                fix="launch it with plain data parallelism (torchrun, or accelerate's multi-GPU); LoRA, gradient "
                "checkpointing and --precision bf16 save memory",
            )
    mixed = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if mixed not in ("no", precision):
        raise KdkitError(
            "KD-DIST-013",
            f"mixed precision '{mixed}' is asked of accelerate and --precision {precision} of kdkit",
            where="ACCELERATE_MIXED_PRECISION",
            fix="--precision bf16" if mixed == "bf16" else "leave it at no, or bf16 in both places",
        )
    if os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") != "1":
        raise KdkitError(
            "KD-DIST-014",
            "gradients are not accumulated over steps",
            where="ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
            why="losses between samples (clip, icl, crd) need their whole batch at once",
            fix="leave it at 1, and choose optimizer.batch_size in the recipe",
        )


def part(accelerator: Accelerator) -> None:
    """End the collaboration of the processes: the main one goes on alone, however long that takes."""
    accelerator.wait_for_everyone()
    accelerator.end_training()  # a process that ends with its group alive may abort, and torchrun then ends all
