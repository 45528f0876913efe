"""The whole of a distillation as one ``nn.Module``: student, bridges, losses. The loop knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Loss, LossInput, Student, TeacherView
from kdkit.core.distill.loop.distributed import (
    all_rows,
    as_seen,
    of_all,
    over_processes,
    own_rows,
    whole_batch,
    world_size,
)
from kdkit.core.distill.model.projection import PREVIOUS, Bridge, module_key


class Outputs(dict[str, Tensor]):
    """What the student gave; a loss that looks for anything else is of another kind of student."""

    def __missing__(self, name: str) -> Tensor:
        raise KdkitError(
            "KD-DIST-030",
            f"a loss of the recipe needs the output '{name}', which the student does not give",
            why=f"the student gives {', '.join(sorted(self))}",
            fix="name a recipe for such students: 'kdkit recipes'",
        )


@dataclass(frozen=True)
class Term:
    """One term of the sum: ``weight * loss(...)``, over the teachers or over the previous version.

    ``per_sample``: the loss is a sum over samples, of which each process computes its own.
    """

    name: str
    weight: float
    loss: nn.Module
    previous: bool = False
    per_sample: bool = False


class DistillTask(nn.Module):
    """``forward`` returns a dict whose ``loss`` is the only contract with the loop; the rest is for the log.

    Every trainable parameter (student, heads, losses) is a parameter of this module, hence in the optimizer
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
        self.terms = tuple(terms)
        self.own = frozenset(name for name in self.teachers if self._is_own(name))
        """Teachers that only losses read of which each process computes its own share: it needs their rows alone."""
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
            targets: teacher -> signal -> (B, D) of the *whole* batch, zeros where absent; of teachers in
                :attr:`own` (b, D), this process's share.
            weights: teacher -> (B,) of the whole batch.
            domain: (B,) of the whole batch.
        """
        outputs = cast(Student, self.student)(inputs)
        # Losses are computed in float32 whatever the precision of the student's forward.
        with torch.autocast(domain.device.type, enabled=False):
            return self._sum(self._seen(outputs, targets, weights, domain))

    @staticmethod
    def _apart(term: Term) -> bool:
        return term.per_sample and world_size() > 1

    def _is_own(self, teacher: str) -> bool:
        return all(term.per_sample for term in self.terms if term.previous == (teacher == PREVIOUS))

    def _seen(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Mapping[str, Tensor]],
        weights: Mapping[str, Tensor],
        domain: Tensor,
    ) -> dict[tuple[bool, bool], LossInput]:
        """(of this process alone, of the previous version instead of the teachers) -> what such losses see."""
        seen: dict[tuple[bool, bool], LossInput] = {}
        for own in sorted({self._apart(term) for term in self.terms}):
            rows, total = (own_rows, over_processes) if own else (all_rows, all_rows)
            student = Outputs({name: as_seen(x) if own else whole_batch(x) for name, x in outputs.items()})
            for previous in sorted({term.previous for term in self.terms if self._apart(term) == own}):
                views = tuple(
                    self._view(name, student, targets[name], weights[name], rows)
                    for name in self.teachers
                    if (name == PREVIOUS) == previous
                )
                seen[own, previous] = LossInput(student, views, rows(domain), total)
        return seen

    def _view(
        self,
        name: str,
        student: Mapping[str, Tensor],
        target: Mapping[str, Tensor],
        weight: Tensor,
        rows: Callable[[Tensor], Tensor],
    ) -> TeacherView:
        here = target if name in self.own else {signal: rows(y) for signal, y in target.items()}
        return cast(TeacherView, self.bridges[module_key(name)](name, student, here, rows(weight)))

    def _sum(self, seen: Mapping[tuple[bool, bool], LossInput]) -> dict[str, Tensor]:
        log: dict[str, Tensor] = {}
        values: list[Tensor] = []
        for term in self.terms:
            own = self._apart(term)
            value = cast(Loss, term.loss)(seen[own, term.previous])
            value = of_all(value) if own else value
            values.append(term.weight * value)
            log[f"{PREVIOUS}/{term.name}" if term.previous else term.name] = value.detach()
        total = torch.stack(values).sum()
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
