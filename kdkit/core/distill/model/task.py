"""A distillation as one ``nn.Module``: student, projections and losses in, a dict with ``loss`` out.

With several processes (ranks), each prepares inputs for its shard of the batch. Most losses compare samples with one
another and need the global batch: the student's outputs are gathered, and every rank computes the same loss. A
``per_sample`` loss is a sum over samples, so each rank computes it on its shard alone. Both give the gradients of a
single process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import CaptionView, Loss, LossInput, TeacherView
from kdkit.core.distill.loop.distributed import (
    all_reduce_sum,
    gather_outputs,
    get_world_size,
    identity,
    local_shard,
    scale_for_ddp,
    to_float32,
)
from kdkit.core.distill.model.altered_inputs import AlteredInputs
from kdkit.core.distill.model.frozen_directions import FrozenDirections
from kdkit.core.distill.model.micro_batches import MicroBatches
from kdkit.core.distill.model.projection import TeacherProjection, module_key
from kdkit.core.distill.on_policy.losses import own_figures, without_own
from kdkit.core.distill.plan.types import PREVIOUS
from kdkit.core.plugin_system.failures import plugin_errors


class Outputs(dict[str, Tensor]):
    """The student's outputs; a missing one is an error that says what to do."""

    def __missing__(self, name: str) -> Tensor:
        raise KdkitError(
            "KD-DIST-030",
            f"a loss of the recipe needs the output '{name}', which the student does not give",
            why=f"the student gives {', '.join(sorted(self))}",
            fix="choose a recipe for such students: 'kdkit recipes'",
        )


@dataclass(frozen=True)
class Term:
    """One term of the total: ``weight * loss(...)``.

    Attributes:
        previous: it compares with the previous version instead of the teachers.
        per_sample: the loss is a sum over samples, so each rank can compute its shard alone.
        supervised: it learns from the samples' own texts, so it does not read answers of the student.
    """

    name: str
    weight: float
    loss: nn.Module
    previous: bool = False
    per_sample: bool = False
    supervised: bool = False

    @property
    def sharded(self) -> bool:
        """Whether ranks compute this term on their shards."""
        return self.per_sample and get_world_size() > 1


class DistillTask(nn.Module):
    """Student, projections and losses; every trainable parameter of a run is a parameter of this module.

    ``forward`` returns a dict: ``loss`` for the loop, everything else for the log.

    Args:
        student: fulfills :class:`~kdkit.core.contracts.Student`.
        projections: teacher name -> projection; ``@previous`` for the previous version.
        terms: the losses.
        pull: weight of the squared distance to the student's initial parameters (L2 pull, as in ZSCL, arXiv
            2303.06628, eq. 5); 0 for none.
        frozen: directions of the student's weights that stay as they are, or None.
        altered: the previous version's outputs at altered inputs, which the student keeps; or None.
        micro_batches: the parts in which the student sees a batch.

    Example:
        >>> class Mse(nn.Module):
        ...     def forward(self, batch):
        ...         (teacher,) = batch.teachers
        ...         return (teacher.student["image"] - teacher.target["image"]).square().mean()
        >>> class Encoder(nn.Linear):
        ...     def forward(self, inputs):
        ...         return {"image": super().forward(inputs["pixels"])}
        >>> task = DistillTask(Encoder(3, 2), {"radio": TeacherProjection()}, [Term("mse", 2.0, Mse())])
        >>> parts = task(
        ...     inputs={"pixels": torch.ones(4, 3)},
        ...     targets={"radio": {"image": torch.zeros(4, 2)}},
        ...     weights={"radio": torch.ones(4)},
        ...     domain=torch.zeros(4, dtype=torch.int64),
        ... )
        >>> sorted(parts)
        ['loss', 'mse']
        >>> bool(parts["loss"] == 2 * parts["mse"])
        True
    """

    def __init__(
        self,
        student: nn.Module,
        projections: Mapping[str, TeacherProjection],
        terms: Sequence[Term],
        *,
        pull: float = 0.0,
        frozen: FrozenDirections | None = None,
        altered: AlteredInputs | None = None,
        micro_batches: MicroBatches | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.teachers = tuple(projections)
        self.projections = nn.ModuleDict({module_key(name): module for name, module in projections.items()})
        self.losses = nn.ModuleList([term.loss for term in terms])
        self.terms = tuple(terms)
        self.local_teachers = frozenset(name for name in self.teachers if self._needs_local_rows(name))
        """Teachers that only ``per_sample`` losses read: a rank loads the rows of its shard alone."""
        self.frozen, self.altered = frozen, altered
        self.micro_batches = micro_batches or MicroBatches()
        self.pull = pull
        if pull:
            for number, parameter in enumerate(self._trained()):
                # Not persistent: the parent version on disk has the same values.
                self.register_buffer(f"_start_{number}", parameter.detach().clone(), persistent=False)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        targets: Mapping[str, Mapping[str, Tensor]],
        weights: Mapping[str, Tensor],
        domain: Tensor,
        captions: CaptionView | None = None,
        seeds: Tensor | None = None,
        own: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute one step's losses.

        Args:
            inputs: this rank's shard of the batch, as the student prepared it.
            targets: teacher -> signal -> (B, D) of the *global* batch, zeros where absent; for
                :attr:`local_teachers` (b, D) of this rank's shard.
            weights: teacher -> (B,) of the global batch.
            domain: (B,) of the global batch; ``captions`` likewise.
            seeds: (b,) of this rank's shard, if inputs are to be :attr:`altered`.
            own: (b,) bool, answers of this rank's shard that are the student's own; None for none.
        """
        outputs = self.micro_batches.forward(self.student, inputs)
        # Losses are computed in float32 for every precision of the student's forward.
        with torch.autocast(domain.device.type, enabled=False):
            loss_inputs = self._loss_inputs(outputs, targets, weights, domain, captions)
            values: list[Tensor] = []
            log: dict[str, Tensor] = {}
            for term in self.terms:
                loss_input = loss_inputs[term.sharded, term.previous]
                if own is not None and term.supervised:
                    loss_input = replace(loss_input, student=Outputs(without_own(loss_input.student, own)))
                with plugin_errors(f"loss '{term.name}' failed", term.loss):
                    value = cast(Loss, term.loss)(loss_input)
                _require_scalar(term, value)
                value = scale_for_ddp(value) if term.sharded else value
                values.append(term.weight * value)
                log[f"{PREVIOUS}/{term.name}" if term.previous else term.name] = value.detach()
            total = torch.stack(values).sum()
            if self.pull:
                distance = self._distance()
                total = total + self.pull * distance
                log["pull"] = distance.detach()
        if own is not None:
            local = local_shard if get_world_size() > 1 else identity
            log |= own_figures(outputs, own, {name: local(weight) for name, weight in weights.items()})
        if self.altered is not None and seeds is not None:
            kept = self.altered.loss(self.student, inputs, seeds, self.micro_batches.slices(self.student, inputs))
            total = total + self.altered.weight * kept
            log[f"{PREVIOUS}/altered"] = kept.detach()
        return {"loss": total, **log}

    def constrain(self) -> None:
        """Called after every optimizer step: undoes its changes in frozen directions."""
        if self.frozen is not None:
            self.frozen.restore()

    def _loss_inputs(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Mapping[str, Tensor]],
        weights: Mapping[str, Tensor],
        domain: Tensor,
        captions: CaptionView | None,
    ) -> dict[tuple[bool, bool], LossInput]:
        """(sharded, previous) of a term -> its input: the global batch, or, for sharded terms, this rank's shard."""
        loss_inputs: dict[tuple[bool, bool], LossInput] = {}
        for sharded in sorted({term.sharded for term in self.terms}):
            rows, total = (local_shard, all_reduce_sum) if sharded else (identity, identity)
            collect = to_float32 if sharded else gather_outputs
            student = Outputs({name: collect(x) for name, x in outputs.items()})
            own = captions and CaptionView(rows(captions.weight), rows(captions.text))
            for previous in sorted({term.previous for term in self.terms if term.sharded == sharded}):
                views: list[TeacherView] = []
                for name in self.teachers:
                    if (name == PREVIOUS) == previous:
                        local = name in self.local_teachers
                        target = {signal: y if local else rows(y) for signal, y in targets[name].items()}
                        projection = self.projections[module_key(name)]
                        views.append(cast(TeacherView, projection(name, student, target, rows(weights[name]))))
                loss_inputs[sharded, previous] = LossInput(student, tuple(views), rows(domain), total, own)
        return loss_inputs

    def _needs_local_rows(self, teacher: str) -> bool:
        return all(term.per_sample for term in self.terms if term.previous == (teacher == PREVIOUS))

    def _distance(self) -> Tensor:
        parts = [
            (parameter - self.get_buffer(f"_start_{number}")).pow(2).sum()
            for number, parameter in enumerate(self._trained())
        ]
        return torch.stack(parts).sum()

    def _trained(self) -> Iterator[nn.Parameter]:
        return (parameter for parameter in self.student.parameters() if parameter.requires_grad)


def _require_scalar(term: Term, value: object) -> None:
    if isinstance(value, Tensor) and value.ndim == 0:
        return
    shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise KdkitError(
        "KD-DIST-070",
        f"loss '{term.name}' returned {shape}, not a scalar tensor",
        where=f"{type(term.loss).__module__}.{type(term.loss).__qualname__}",
        fix="report this to the authors of the plugin; 'kdkit plugins verify NAME' checks it",
        code=ExitCode.PLUGIN,
    )
