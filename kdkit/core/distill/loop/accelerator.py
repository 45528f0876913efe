"""The Accelerator of a run: device, precision, processes. Launcher settings that a run cannot follow are errors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError, did_you_mean

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = ("no", "bf16")
"""Precision of the student's forward pass; ``no`` is float32. (float16 would need its loss scale in checkpoints.)"""
_SHARDED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}
_FSDP = "ACCELERATE_USE_FSDP"
_FSDP_SETTINGS = {
    "FSDP_OFFLOAD_PARAMS": "set fsdp_offload_params: false; optimizer.micro_batch saves memory",
    "FSDP_ACTIVATION_CHECKPOINTING": "set it to false; optimizer.micro_batch, or gradient_checkpointing of the student",
    "FSDP_SHARDING_STRATEGY": "choose FULL_SHARD: weights are sharded over all processes",
}


def make_accelerator(precision: str, *, cpu: bool) -> Accelerator:
    """Set up device, precision and process group.

    Args:
        precision: one of :data:`PRECISIONS`.
        cpu: use the CPU even if there is a GPU.

    Raises:
        KdkitError: an unknown precision; settings of ``accelerate launch`` that a run cannot follow; several
            processes on an accelerator that accelerate does not distribute over (Apple's).
    """
    if precision not in PRECISIONS:
        raise KdkitError(
            "KD-DIST-010",
            f"there is no precision '{precision}'",
            where="--precision",
            fix=did_you_mean(precision, PRECISIONS),
        )
    _check_launcher_settings(precision)
    os.environ.pop(_FSDP, None)  # see launcher_shards
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    from kdkit.core.distill.loop.distributed import TIMEOUT, get_world_size

    # A batch may leave parameters unused (an absent teacher, a loss without logit scale).
    kwargs = DistributedDataParallelKwargs(find_unused_parameters=True)
    timeout = InitProcessGroupKwargs(timeout=TIMEOUT)
    # Without a GPU, accelerate forms no process group unless cpu is set.
    cpu = cpu or not torch.accelerator.is_available()
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=[kwargs, timeout])
    if accelerator.num_processes != get_world_size():
        raise KdkitError(
            "KD-DIST-011",
            f"{get_world_size()} processes cannot share a batch on '{accelerator.device.type}'",
            fix="add --cpu",
        )
    return accelerator


def launcher_shards() -> bool:
    """Whether ``accelerate launch`` asks for FSDP. Accelerate itself gets no such wish: on a CPU it would drop it.

    Raises:
        KdkitError: settings of FSDP that a run cannot follow.
    """
    if os.environ.pop(_FSDP, "").lower() not in ("true", "1"):
        return False
    for variable, fix in _FSDP_SETTINGS.items():
        if os.environ.get(variable, "").lower() in ("true", "1", "hybrid_shard", "hybrid_shard_zero2"):
            raise KdkitError(
                "KD-DIST-404",
                f"{os.environ[variable]} is not supported with FSDP",
                where=variable,
                fix=fix,
            )
    return True


def _check_launcher_settings(precision: str) -> None:
    """Refuse settings of accelerate's launcher that would change the run or be ignored."""
    for variable, name in _SHARDED.items():
        if os.environ.get(variable, "").lower() in ("true", "1"):
            raise KdkitError(
                "KD-DIST-012",
                f"{name} is not supported",
                where=variable,
                fix="use torchrun or accelerate's multi-GPU, with --shard for sharded weights (FSDP2); LoRA, "
                "gradient checkpointing, optimizer.micro_batch and --precision bf16 save memory too",
            )
    mixed = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if mixed not in ("no", precision):
        raise KdkitError(
            "KD-DIST-013",
            f"accelerate has mixed precision '{mixed}', kdkit has --precision {precision}",
            where="ACCELERATE_MIXED_PRECISION",
            fix="add --precision bf16" if mixed == "bf16" else "set both to no, or both to bf16",
        )
    if os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") != "1":
        raise KdkitError(
            "KD-DIST-014",
            "gradient accumulation is not used",
            where="ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
            why="losses between samples (clip, icl, crd) need their whole batch at once",
            fix="set it to 1; optimizer.micro_batch in the recipe or registry saves the same memory, exactly",
        )


def end_process_group(accelerator: Accelerator) -> None:
    """End the process group; the main process continues alone, for any time."""
    accelerator.wait_for_everyone()
    accelerator.end_training()  # a process that exits with its group alive may abort, and torchrun then ends all
