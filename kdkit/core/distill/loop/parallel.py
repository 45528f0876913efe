"""How a task is trained over ranks: by itself, by DistributedDataParallel, or sharded by FSDP2."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

from kdkit.core.distill.loop.distributed import get_world_size
from kdkit.core.distill.loop.masking import MASKED, StepMask, limit_of
from kdkit.core.distill.loop.optimizer import make_optimizer
from kdkit.core.distill.loop.sharding import (
    Sharding,
    average_whole_gradients,
    clip_gradients,
    copy_back,
    is_sharded,
    replicas_of,
    require_sharding,
    shard,
)
from kdkit.core.distill.plan.types import TrainSettings

if TYPE_CHECKING:
    from accelerate import Accelerator


class Training:
    """A task with its optimizer and moving average, on all ranks.

    Args:
        task: is trained in place; while its weights are sharded, a copy of it is, until :meth:`finish`.
        sharding: how the ranks share the weights, if there are several; None if each has all of them.

    Attributes:
        task: what is trained: the task, or its sharded copy.
        model: what the loop calls.
        sharded: whether all ranks must take part in a checkpoint.
        average: the moving average of the weights, or None.
        strategy: what the ranks do, as found in the model: ``one process``, ``ddp``, ``fsdp2``, or ``hsdp 2x4`` for two
            groups of four.
        mask: of updates, on devices whose values the host does not read at every step; else None.
    """

    def __init__(
        self, task: nn.Module, settings: TrainSettings, accelerator: Accelerator, sharding: Sharding | None = None
    ) -> None:
        self._original, self._accelerator = task, accelerator
        self.optimizer: Any
        masked = accelerator.device.type in MASKED
        self.mask = StepMask(accelerator.device, limit_of(settings)) if masked else None
        ema = settings.ema
        if sharding is not None and get_world_size() > 1:
            require_sharding()
            task.to("cpu")  # the copies are on the device, in parts
            self.task = self.model = copy.deepcopy(task)
            average = None if ema is None else self._average_of_one(ema)
            self.average = None if average is None else AveragedModel(task, avg_fn=average)
            for module in (self.task, *(() if self.average is None else (self.average.module,))):
                shard(module, accelerator.device, sharding)
            self.optimizer = made = make_optimizer(self.task, settings, fused=self.mask is not None)
        else:
            self.task = task
            made = make_optimizer(task, settings, fused=self.mask is not None)
            model = task if get_world_size() == 1 else _WithIdleParameter(task)
            self.model, self.optimizer = accelerator.prepare(model, made)
            if ema is None:
                self.average = None
            elif self.mask is not None:
                self.average = AveragedModel(task, avg_fn=self.mask.average(ema))
            else:
                all_at_once = get_ema_multi_avg_fn(ema)  # type: ignore[no-untyped-call]  # torch's
                self.average = AveragedModel(task, multi_avg_fn=all_at_once)
        if self.mask is not None:
            vars(made)["found_inf"] = self.mask.skipped  # fused AdamW reads it, as torch's GradScaler sets it
        self.sharded = is_sharded(self.task)
        self.strategy = self._strategy()

    def _average_of_one(self, decay: float) -> Any:
        """The moving average of one tensor at a time: sharded and whole ones cannot be averaged in one call."""
        if self.mask is not None:
            return self.mask.average(decay)
        return get_ema_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's

    def _strategy(self) -> str:
        if self.sharded:
            groups = replicas_of(self.task)
            return "fsdp2" if groups == 1 else f"hsdp {groups}x{get_world_size() // groups}"
        return "ddp" if isinstance(self.model, DistributedDataParallel) else "one process"

    def forward(self, batch: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """The task's losses."""
        if not self.sharded:
            return cast(Mapping[str, Tensor], self.model(**batch))
        with self._accelerator.autocast():  # what accelerate's wrapper of a model does
            return cast(Mapping[str, Tensor], self.model(**batch))

    def backward(self, loss: Tensor) -> None:
        """Gradients, averaged over ranks."""
        self._accelerator.backward(loss)
        if self.sharded:
            average_whole_gradients(self.task)

    def clip(self, most: float | None) -> Tensor:
        """Scale the gradients so that their norm is at most ``most``, if that is given.

        Returns:
            () the norm before, equal on all ranks.
        """
        if self.sharded:
            return clip_gradients(self.task, most)
        parameters = list(self.model.parameters())
        if most is None:
            return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        return cast(Tensor, self._accelerator.clip_grad_norm_(parameters, most))

    def finish(self) -> None:
        """Give the task the trained weights, or their moving average."""
        if self.sharded:
            trained = self.task if self.average is None else self.average.module
            copy_back(trained, self._original, self._accelerator.device)
        elif self.average is not None:
            self.task.load_state_dict(self.average.module.state_dict())


class _WithIdleParameter(nn.Module):
    """A task, and a parameter that is never used.

    Which parameters a step uses depends on its teachers, so DistributedDataParallel must look for unused ones. It warns
    on every rank if it finds none in the first step.
    """

    def __init__(self, task: nn.Module) -> None:
        super().__init__()
        self.task = task
        self.idle = nn.Parameter(torch.zeros(()))

    def forward(self, **batch: Any) -> Mapping[str, Tensor]:
        return cast(Mapping[str, Tensor], self.task(**batch))
