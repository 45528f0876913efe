"""How a task is trained over ranks: by itself, by DistributedDataParallel, or sharded by FSDP2."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

from kdkit.core.distill.loop import sharding
from kdkit.core.distill.loop.distributed import get_world_size
from kdkit.core.distill.loop.optimizer import make_optimizer
from kdkit.core.distill.plan.types import TrainSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

Strategy = Literal["one process", "ddp", "fsdp2"]


class Training:
    """A task with its optimizer and moving average, on all ranks.

    Args:
        task: is trained in place; while its weights are sharded, a copy of it is, until :meth:`finish`.
        sharded: shard the weights, if there are several ranks.

    Attributes:
        task: what is trained: the task, or its sharded copy.
        model: what the loop calls.
        average: the moving average of the weights, or None.
    """

    def __init__(self, task: nn.Module, settings: TrainSettings, accelerator: Accelerator, *, sharded: bool) -> None:
        self._original, self._accelerator = task, accelerator
        self.optimizer: Any
        ema = settings.ema
        if sharded and get_world_size() > 1:
            sharding.require_sharding()
            task.to("cpu")  # the copies are on the device, in parts
            self.task = self.model = copy.deepcopy(task)
            average = None if ema is None else get_ema_avg_fn(ema)  # type: ignore[no-untyped-call]  # torch's
            self.average = None if average is None else AveragedModel(task, avg_fn=average)
            for module in (self.task, *(() if self.average is None else (self.average.module,))):
                sharding.shard(module, accelerator.device)
            self.optimizer = make_optimizer(self.task, settings)
            for group in self.optimizer.param_groups:
                if len({type(p) for p in group["params"]}) > 1:
                    group["foreach"] = False  # torch cannot step over sharded and whole tensors in one call
        else:
            self.task = task
            self.model, self.optimizer = accelerator.prepare(task, make_optimizer(task, settings))
            average = None if ema is None else get_ema_multi_avg_fn(ema)  # type: ignore[no-untyped-call]  # torch's
            self.average = None if average is None else AveragedModel(task, multi_avg_fn=average)
        self.strategy: Strategy = self._strategy()

    def _strategy(self) -> Strategy:
        """What the ranks do, as found in the model."""
        if sharding.is_sharded(self.task):
            return "fsdp2"
        return "ddp" if isinstance(self.model, DistributedDataParallel) else "one process"

    @property
    def sharded(self) -> bool:
        """Whether all ranks must take part in a checkpoint."""
        return self.strategy == "fsdp2"

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
            sharding.average_whole_gradients(self.task)

    def clip(self, most: float) -> None:
        """Scale the gradients so that their norm is at most ``most``."""
        if self.sharded:
            sharding.clip_gradients(self.task, most)
        else:
            self._accelerator.clip_grad_norm_(self.model.parameters(), most)

    def finish(self) -> None:
        """Give the task the trained weights, or their moving average."""
        if self.sharded:
            trained = self.task if self.average is None else self.average.module
            sharding.copy_back(trained, self._original, self._accelerator.device)
        elif self.average is not None:
            self.task.load_state_dict(self.average.module.state_dict())
