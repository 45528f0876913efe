"""The whole of a distillation as one ``nn.Module``: student, bridges, losses. The loop knows nothing of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdkit.core.contracts import Loss, LossInput, Student, TeacherView
from kdkit.core.distill.bridge import PREVIOUS, Bridge, module_key


@dataclass(frozen=True)
class Term:
    """One term of the sum: ``weight * loss(...)``, over the teachers or over the previous version."""

    name: str
    weight: float
    loss: nn.Module
    previous: bool = False


class DistillTask(nn.Module):
    """``forward`` returns a dict whose ``loss`` is the only contract with the loop; the rest is for the log.

    Every trainable parameter (student, heads, losses) is a parameter of this module, hence in the optimiser
    and in the checkpoint.

    Args:
        student: fulfils :class:`~kdkit.core.contracts.Student`.
        bridges: teacher name -> bridge; ``@previous`` for the previous version.
        terms: the losses.
        pull: weight of the squared distance to the student's parameters at construction (L2 pull, as in
            ZSCL, arXiv 2303.06628, eq. 5); 0 for none.
    """

    def __init__(
        self, student: nn.Module, bridges: Mapping[str, Bridge], terms: Sequence[Term], *, pull: float = 0.0
    ) -> None:
        super().__init__()
        self.student = student
        self.teachers = tuple(bridges)
        self.bridges = nn.ModuleDict({module_key(name): bridge for name, bridge in bridges.items()})
        self.losses = nn.ModuleList([term.loss for term in terms])
        self.terms = tuple((term.name, term.weight, term.previous) for term in terms)
        self.pull = pull
        if pull:
            for number, parameter in enumerate(self._trained()):
                # Not persistent: it is the parent version, which is on disk.
                self.register_buffer(f"_start_{number}", parameter.detach().clone(), persistent=False)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        targets: Mapping[str, Mapping[str, Tensor]],
        weights: Mapping[str, Tensor],
        domain: Tensor,
    ) -> dict[str, Tensor]:
        """One step's losses.

        Args:
            inputs: this process's share of the batch, as the student prepared it.
            targets: teacher -> signal -> (B, D) of the *whole* batch, zeros where absent.
            weights: teacher -> (B,) of the whole batch.
            domain: (B,) of the whole batch.
        """
        outputs = cast(Student, self.student)(inputs)
        # Losses are computed in float32 whatever the precision of the student's forward.
        with torch.autocast(domain.device.type, enabled=False):
            whole = {name: whole_batch(x) for name, x in outputs.items()}
            views = {
                name: cast(Bridge, self.bridges[module_key(name)])(name, whole, targets[name], weights[name])
                for name in self.teachers
            }
            return self._sum(whole, views, domain)

    def _sum(self, outputs: Mapping[str, Tensor], views: dict[str, TeacherView], domain: Tensor) -> dict[str, Tensor]:
        teachers = LossInput(outputs, tuple(v for name, v in views.items() if name != PREVIOUS), domain)
        previous = LossInput(outputs, tuple(v for name, v in views.items() if name == PREVIOUS), domain)
        log: dict[str, Tensor] = {}
        total = outputs[next(iter(outputs))].new_zeros(())
        for (name, weight, of_previous), loss in zip(self.terms, self.losses, strict=True):
            value = cast(Loss, loss)(previous if of_previous else teachers)
            total = total + weight * value
            log[f"{PREVIOUS}/{name}" if of_previous else name] = value.detach()
        if self.pull:
            distance = self._distance()
            total = total + self.pull * distance
            log["pull"] = distance.detach()
        return {"loss": total, **log}

    def _distance(self) -> Tensor:
        parts = [
            (parameter - self.get_buffer(f"_start_{number}")).pow(2).sum()
            for number, parameter in enumerate(self._trained())
        ]
        return torch.stack(parts).sum()

    def _trained(self) -> Iterator[nn.Parameter]:
        return (parameter for parameter in self.student.parameters() if parameter.requires_grad)


def whole_batch(x: Tensor) -> Tensor:
    """A student's output as the losses see it: float32 (ids stay integers), rows of all processes.

    A parameter of the student has no rows of samples and is the same everywhere: it is handed on as it is. Each
    process then has the gradient of the whole loss with respect to it, and their average is just that.
    """
    if isinstance(x, nn.Parameter):
        return x
    x = x.float() if x.is_floating_point() else x
    return gather_batch(x) if x.ndim else x


def gather_batch(x: Tensor) -> Tensor:
    """(b, ...) of every process -> (world * b, ...), in rank order; the identity for one process.

    Every process computes the same loss of the whole batch. The backward pass gives each process the gradient
    of its own rows times the world size, which the average over processes in DistributedDataParallel undoes:
    the parameters' gradients are exactly those of one process with the whole batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    return cast(Tensor, _Gather.apply(x))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        world, ctx.rank, ctx.rows = dist.get_world_size(), dist.get_rank(), x.shape[0]
        ctx.world = world
        parts = [torch.empty_like(x) for _ in range(world)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        start: int = ctx.rank * ctx.rows
        return grad[start : start + int(ctx.rows)] * int(ctx.world)
