"""A batch in parts: the memory of a few samples, the losses and gradients of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.memory import free_memory
from kdkit.core.contracts import Reporter, Silent, Student
from kdkit.core.distill.loop.distributed import get_world_size
from kdkit.core.distill.loop.sharding import own_part

PROBE_ROWS = (1, 3)
"""Samples of the two forward passes that measure activations: what both keep, such as weights in lower precision, is
not a sample's."""
SHARE = 0.5
"""Of the free memory that activations may fill; losses and temporary buffers need the rest."""


class MicroBatches:
    """Runs a student on parts of a batch and joins their outputs.

    No part keeps its activations: the backward pass computes each part again, with the same random numbers, and frees
    it. Losses see the outputs of the whole batch, so contrastive losses keep all their negatives, and every gradient is
    that of the whole batch, to rounding: also of the logit scale, which accumulation over micro-batches gets wrong.
    This is GradCache (arXiv 2101.06983, section 3.2), as one activation checkpoint per part. It costs one more forward
    pass. Dropout draws other masks than for the whole batch.

    Args:
        size: samples per part; ``auto`` measures the activations at the first batch and fills half of the free memory;
            None for whole batches.
        reporter: receives the size that ``auto`` chose.

    Example:
        >>> class Encoder(nn.Linear):
        ...     def forward(self, inputs):
        ...         return {"image": super().forward(inputs["pixels"])}
        >>> encoder, inputs = Encoder(3, 2), {"pixels": torch.ones(5, 3)}
        >>> outputs = MicroBatches(2).forward(encoder, inputs)
        >>> torch.equal(outputs["image"], encoder(inputs)["image"])
        True
    """

    def __init__(self, size: int | Literal["auto"] | None = None, reporter: Reporter | None = None) -> None:
        self._size, self._reporter = size, reporter or Silent()

    def __deepcopy__(self, _: object) -> MicroBatches:
        return self  # copies of a task share the size, and a reporter cannot be copied

    @property
    def splits(self) -> bool:
        """Whether a batch may be split."""
        return self._size is not None

    def forward(self, student: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The outputs of the student for (b, ...) inputs.

        Outputs with a row per sample are joined. Parameters and scalars, such as the logit scale, belong to no sample:
        those of the first part count.
        """
        slices = self.slices(student, inputs)
        if len(slices) == 1:
            return cast(Student, student)(inputs)
        parts = [
            cast(Mapping[str, Tensor], recomputed(student, {name: x[rows] for name, x in inputs.items()}))
            for rows in slices
        ]
        first = parts[0]
        return {name: torch.cat([part[name] for part in parts]) if _has_rows(x) else x for name, x in first.items()}

    def slices(self, student: nn.Module, inputs: Mapping[str, Tensor]) -> list[slice]:
        """The parts of a batch; the last one may be smaller."""
        total = len(next(iter(inputs.values())))
        if self._size == "auto" and total > PROBE_ROWS[1]:
            self._size = self._measure(student, inputs, total)
        size = self._size if isinstance(self._size, int) else total
        return [slice(start, min(start + size, total)) for start in range(0, total, size)]

    def advise(self, student: nn.Module, inputs: Mapping[str, Tensor]) -> str:
        """What to change after a step that found no memory: the setting, and by how much. No collective call."""
        total = len(next(iter(inputs.values())))
        now = self._size if isinstance(self._size, int) else total
        if now == 1:
            return "one sample at a time is too much: share the weights by --gpus N --shard, or use a smaller student"
        try:
            size, each, free = _fitting(student, inputs, total)
            measured = f"a sample has {each / 2**20:.1f} MiB of activations, {free / 2**30:.1f} GiB are free"
        except (RuntimeError, MemoryError):  # not even for three samples
            size, measured = now, "measuring a sample's activations found no memory either"
        size = min(size, now // 2)
        at = "samples at a time" if isinstance(self._size, int) else "samples of a process at once"
        return (
            f"write 'optimizer: {{micro_batch: {size}}}' in registry.yaml instead of {now} {at} ({measured}): the "
            "student is the same, to rounding"
        )

    def _measure(self, student: nn.Module, inputs: Mapping[str, Tensor], total: int) -> int:
        """The largest size whose activations fit, equal on all ranks."""
        fitting, each, free = _fitting(student, inputs, total)
        size = torch.tensor(fitting, device=next(student.parameters()).device)
        if get_world_size() > 1:
            dist.all_reduce(size, op=dist.ReduceOp.MIN)
        found = int(size)
        if found < total:
            self._reporter.say(
                f"micro-batches of {found}: a sample has {each / 2**20:.1f} MiB of activations, "
                f"{free / 2**30:.1f} GiB are free"
            )
        return found


def _fitting(student: nn.Module, inputs: Mapping[str, Tensor], total: int) -> tuple[int, float, float]:
    """The largest size whose activations fit on this rank, at most ``total``; bytes of a sample's, and free bytes."""
    device = next(student.parameters()).device
    trained = [own_part(p) for p in student.parameters() if p.requires_grad]
    states = 3 * sum(p.nbytes for p in trained)  # gradient, and two of AdamW
    free = max(0.0, free_memory(device) - states)
    few, more = (activation_bytes(student, spread_rows(inputs, rows)) for rows in PROBE_ROWS)
    each = (more - few) / (PROBE_ROWS[1] - PROBE_ROWS[0])
    return min(total, max(1, int(SHARE * free / max(each, 1)))), each, free


def recomputed(function: Callable[..., object], *arguments: object) -> object:
    """``function(*arguments)``, computed again in the backward pass instead of keeping its activations."""
    return checkpoint(function, *arguments, use_reentrant=False)


def require_separable(student: nn.Module) -> None:
    """Raises: KdkitError: a student whose outputs for a sample depend on the other samples of the batch."""
    for name, module in student.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            raise KdkitError(
                "KD-DIST-270",
                "'optimizer.micro_batch' would change what this student learns",
                where=f"{type(student).__qualname__}.{name}",
                why=f"{type(module).__name__} takes its statistics from the samples that are computed together",
                fix="remove 'micro_batch'; gradient checkpointing and --precision bf16 save memory too",
            )


def spread_rows(inputs: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Samples from all over a batch, as views: neighbors may be turns of one conversation, which cost less together."""
    step = max(1, len(next(iter(inputs.values()))) // count)
    return {name: x[: step * count : step] for name, x in inputs.items()}


def activation_bytes(student: nn.Module, inputs: Mapping[str, Tensor]) -> int:
    """Bytes that one forward pass keeps for the backward pass, without the parameters."""
    parameters = {own_part(p).untyped_storage().data_ptr() for p in student.parameters()}
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.random.fork_rng(), saved_tensors_hooks(keep, lambda x: x):
        outputs = cast(Student, student)(inputs)  # holds the graph, so that no storage is used twice
        total = sum(kept.values())
        del outputs
    return total


def _has_rows(x: Tensor) -> bool:
    return x.ndim > 0 and not isinstance(x, nn.Parameter)
