"""A distillation as one ``nn.Module``: student, projections and losses in, a dict with ``loss`` out.

With several processes (ranks), each prepares inputs and targets for its shard of the batch, and computes its share of
the losses. A ``per_sample`` loss is a sum over samples, so a rank needs its shard alone. A ``by_rows`` loss compares
samples with one another: a rank computes its rows against the student's and the teachers' rows of all ranks. Every rank
computes other losses for the gathered global batch. All give the gradients of a single process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import CaptionView, JointLosses, Loss, LossInput
from kdkit.core.distill.loop.distributed import gather_rows, get_world_size, own_rows, to_float32
from kdkit.core.distill.loop.sharding import is_sharded
from kdkit.core.distill.model.altered_inputs import AlteredInputs
from kdkit.core.distill.model.frozen_directions import FrozenDirections
from kdkit.core.distill.model.loss_inputs import LossInputs, Share, Targets
from kdkit.core.distill.model.micro_batches import MicroBatches
from kdkit.core.distill.model.projection import TeacherProjection, module_key
from kdkit.core.distill.model.rank_gradients import GatheredOutputs, losses_over_ranks
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
        by_rows: it is a sum over samples, each compared with the whole batch.
        supervised: it learns from the samples' own texts, so it does not read answers of the student.
        together: computes it with the other terms that have the same one.
    """

    name: str
    weight: float
    loss: nn.Module
    previous: bool = False
    per_sample: bool = False
    by_rows: bool = False
    supervised: bool = False
    together: JointLosses | None = None

    @property
    def share(self) -> Share:
        """What each rank computes; the samples of a single process are the whole batch."""
        if self.per_sample or get_world_size() == 1:
            return "samples"
        return "rows" if self.by_rows else "whole"


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
            targets: teacher -> signal -> (b, ...) of this rank's shard, zeros where absent.
            weights: teacher -> (B,) of the *global* batch; with ``own``, a rank need know those of its shard alone.
            domain: (B,) of the global batch; ``captions`` likewise.
            seeds: (b,) of this rank's shard, if inputs are to be :attr:`altered`.
            own: (b,) bool, answers of this rank's shard that are the student's own; None for none.
        """
        if own is not None and get_world_size() > 1:
            weights = {name: gather_rows(weight[own_rows(len(domain))]) for name, weight in weights.items()}
        outputs = self.micro_batches.forward(self.student, inputs)
        # Losses are computed in float32 for every precision of the student's forward.
        with torch.autocast(domain.device.type, enabled=False):
            outputs = {name: to_float32(x) for name, x in outputs.items()}
            total, values = self._losses(outputs, Targets(targets, weights, domain, captions), own)
            names = (f"{PREVIOUS}/{term.name}" if term.previous else term.name for term in self.terms)
            log = dict(zip(names, values, strict=True))
            if self.pull:
                distance = self._distance()
                total = total + self.pull * distance
                log["pull"] = distance.detach()
        if own is not None:
            rows = own_rows(len(domain))
            log |= own_figures(outputs, own, {name: weight[rows] for name, weight in weights.items()})
        if self.altered is not None and seeds is not None:
            kept = self.altered.loss(self.student, inputs, seeds, self.micro_batches.slices(self.student, inputs))
            total = total + self.altered.weight * kept
            log[f"{PREVIOUS}/altered"] = kept.detach()
        return {"loss": total, **log}

    def constrain(self, skipped: Tensor | None = None) -> None:
        """Called after every optimizer step: undoes its changes in frozen directions, unless it was ``skipped``."""
        if self.frozen is not None:
            self.frozen.restore(skipped)

    def advise_memory(self, inputs: Mapping[str, Tensor], **_: object) -> str:
        """After a step that found no memory: the setting to change, and by how much."""
        return self.micro_batches.advise(self.student, inputs)

    def _losses(
        self, outputs: Mapping[str, Tensor], targets: Targets, answers: Tensor | None
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The weighted sum of the losses of the global batch, with a graph, and the value of each without."""
        if get_world_size() == 1:
            values = self._values(outputs, lambda: outputs, targets, answers)
            total = torch.stack([term.weight * value for term, value in zip(self.terms, values, strict=True)]).sum()
            return total, [value.detach() for value in values]

        def compute(gathered: GatheredOutputs) -> list[Tensor]:
            return self._values(gathered.own, gathered.whole, targets, answers)

        parameters = [*self.projections.parameters(), *self.losses.parameters()]
        weights, shared = [t.weight for t in self.terms], [t.share != "whole" for t in self.terms]
        return losses_over_ranks(outputs, parameters, compute, weights, shared, uniform=is_sharded(self))

    def _values(
        self,
        own: Mapping[str, Tensor],
        whole: Callable[[], Mapping[str, Tensor]],
        targets: Targets,
        answers: Tensor | None,
    ) -> list[Tensor]:
        """The value of each term on this rank; ``answers`` (b,) are the student's own."""
        inputs = {
            previous: LossInputs(
                Outputs(own),
                lambda: Outputs(whole()),
                targets,
                {
                    name: cast(TeacherProjection, self.projections[module_key(name)])
                    for name in self.teachers
                    if (name == PREVIOUS) == previous
                },
            )
            for previous in {term.previous for term in self.terms}
        }
        values: dict[int, Tensor] = {}
        for numbers in computed_together(self.terms):
            terms = [self.terms[number] for number in numbers]
            batches = [self._batch(term, inputs[term.previous], answers) for term in terms]
            named = " and ".join(f"'{term.name}'" for term in terms)
            with plugin_errors(f"loss {named} failed", terms[0].loss):
                found = _joint_values(terms, batches) if len(terms) > 1 else [cast(Loss, terms[0].loss)(batches[0])]
            for number, term, value in zip(numbers, terms, found, strict=True):
                _require_scalar(term, value)
                values[number] = value
        return [values[number] for number in range(len(self.terms))]

    def _batch(self, term: Term, inputs: LossInputs, answers: Tensor | None) -> LossInput:
        batch = inputs.get(term.share)
        if answers is None or not term.supervised:
            return batch
        given = answers if term.share == "samples" else gather_rows(answers.byte()).bool()
        return replace(batch, student=Outputs(without_own(batch.student, given)))

    def _distance(self) -> Tensor:
        parts = [
            (parameter - self.get_buffer(f"_start_{number}")).pow(2).sum()
            for number, parameter in enumerate(self._trained())
        ]
        return torch.stack(parts).sum()

    def _trained(self) -> Iterator[nn.Parameter]:
        return (parameter for parameter in self.student.parameters() if parameter.requires_grad)


def computed_together(terms: Sequence[Term]) -> list[list[int]]:
    """The numbers of the terms, those that one call computes in one list; in the order of the first of each."""
    found: dict[object, list[int]] = {}
    for number, term in enumerate(terms):
        key = term.together if term.together is not None and term.per_sample else number
        found.setdefault(key, []).append(number)
    return list(found.values())


def _joint_values(terms: Sequence[Term], batches: Sequence[LossInput]) -> list[Tensor]:
    """The value of each term; their weighted sum has the gradient of the joint total, which the first one carries."""
    together = terms[0].together
    assert together is not None
    total, values = together([cast(Loss, t.loss) for t in terms], batches, [t.weight for t in terms])
    return [values[0] + (total - total.detach()) / terms[0].weight, *values[1:]]


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
