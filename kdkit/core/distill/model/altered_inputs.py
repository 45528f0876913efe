"""The previous version teaches on randomly altered inputs: rehearsal without old samples."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import AltersInputs, Student
from kdkit.core.distill.loop.distributed import get_world_size, scale_for_ddp
from kdkit.core.distill.model.micro_batches import recomputed


def require_altering(student: object) -> None:
    """Raises: KdkitError: a student that cannot alter its inputs."""
    if not isinstance(student, AltersInputs):
        raise KdkitError(
            "KD-DIST-095",
            "'altered' in the recipe's 'increment' needs a student that can alter its inputs",
            where=type(student).__qualname__,
            fix="write 'frozen_energy: 0.5' there, or give the student the method 'alter' (contracts.AltersInputs)",
        )


class AlteredInputs:
    """Keeps the student's function as it was, at altered copies of the inputs that are here.

    Old samples are away, but the previous version can be asked at any input. Inputs that are altered far enough cover
    regions where old ones lay, and agreement there keeps what old ones need. It is function matching (arXiv 2106.05237)
    with the previous version as teacher; LwF (arXiv 1606.09282) asks it at the new samples as they are.

    It holds a frozen copy of the student, which belongs to no checkpoint and no version.

    Args:
        student: with the previous version's weights; fulfills :class:`~kdkit.core.contracts.AltersInputs`.
        weight: of the loss.

    Raises:
        KdkitError: a student that cannot alter its inputs.
    """

    def __init__(self, student: nn.Module, weight: float) -> None:
        require_altering(student)
        self.weight = weight
        self._previous = copy.deepcopy(student).eval().requires_grad_(False)

    @property
    def nbytes(self) -> int:
        """Memory of the copy."""
        return sum(x.nbytes for x in self._previous.state_dict().values())

    def loss(
        self, student: nn.Module, inputs: Mapping[str, Tensor], seeds: Tensor, slices: Sequence[slice] = ()
    ) -> Tensor:
        """Sum over outputs of the mean over samples of ``|s / |s| - p / |p||^2``; a scalar, of the global batch.

        Both models are in evaluation mode, so that batch statistics and dropout make no difference between them.

        Args:
            student: being trained.
            inputs: this rank's shard, (b, ...) each.
            seeds: (b,) int64 of its samples.
            slices: the micro-batches; empty for the whole shard at once.
        """
        if len(slices) < 2:
            share = self._mean(student, inputs, seeds)
        else:
            parts = [
                cast(Tensor, recomputed(self._mean, student, {k: x[rows] for k, x in inputs.items()}, seeds[rows]))
                * (rows.stop - rows.start)
                for rows in slices
            ]
            share = torch.stack(parts).sum() / len(seeds)
        return share if get_world_size() == 1 else scale_for_ddp(share / get_world_size())

    def _mean(self, student: nn.Module, inputs: Mapping[str, Tensor], seeds: Tensor) -> Tensor:
        """Of some samples."""
        altered = cast(AltersInputs, student).alter(inputs, seeds)
        with torch.no_grad():
            wanted = cast(Student, self._previous)(altered)
        with _evaluating(student):
            given = cast(Student, student)(altered)
        terms = [
            (F.normalize(given[name].float(), dim=-1) - F.normalize(wanted[name].float(), dim=-1))
            .square()
            .sum(dim=-1)
            .mean()
            for name in cast(Student, student).outputs
        ]
        return torch.stack(terms).sum()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
