"""The Accelerator of a run: device, precision, processes. Launcher settings that a run cannot follow are errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.distill.loop.launcher import check_settings, hide_sharding

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = ("no", "bf16")
"""Precision of the student's forward pass; ``no`` is float32. (float16 would need its loss scale in checkpoints.)"""


def make_accelerator(precision: str, *, cpu: bool) -> Accelerator:
    """Set up device, precision and process group.

    Args:
        precision: one of :data:`PRECISIONS`.
        cpu: use the CPU even if there is a GPU.

    Raises:
        KdkitError: an unknown precision; settings of ``accelerate launch`` that a run cannot follow; several
            processes on an accelerator that accelerate does not distribute over (Apple's), or for a second run.
    """
    if precision not in PRECISIONS:
        raise KdkitError(
            "KD-DIST-010",
            f"there is no precision '{precision}'",
            where="--precision",
            fix=did_you_mean(precision, PRECISIONS),
        )
    check_settings(precision)
    hide_sharding()
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
    if accelerator.num_processes > get_world_size() == 1:
        raise KdkitError(
            "KD-DIST-525",
            "the processes of a launcher train once, and these have done so",
            why="they left each other when the training ended, and the first one evaluated alone",
            fix="start the launcher again for each run, as 'kdkit distill --gpus N' does",
            code=ExitCode.USAGE,
        )
    if accelerator.num_processes != get_world_size():
        raise KdkitError(
            "KD-DIST-011",
            f"{get_world_size()} processes cannot share a batch on '{accelerator.device.type}'",
            fix="add --cpu",
        )
    return accelerator


def end_process_group(accelerator: Accelerator) -> None:
    """End the process group; the main process continues alone, for any time."""
    accelerator.wait_for_everyone()
    accelerator.end_training()  # a process that exits with its group alive may abort, and torchrun then ends all
