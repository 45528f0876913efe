"""What stands between the student's outputs and one teacher's signals, so that a loss can compare the two.

Either the student goes to the teacher (a linear head per signal, in the teacher's own space), or the teacher
comes to the student (a fitted, frozen aligner). The losses cannot tell which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdkit.core.contracts import Aligner, TeacherView

PREVIOUS = "@previous"
"""Name of the view of the student's previous version; no teacher can be called so."""


def module_key(teacher: str) -> str:
    """A teacher's name as a key of ``nn.ModuleDict``, which forbids dots and its own method names."""
    return "@" + teacher.replace(".", ":")


class Bridge(nn.Module):
    """One teacher's bridge.

    Args:
        heads: signal name -> linear map from the student's width to the teacher's; the same module under
            several names is one shared head. None: the student's outputs are taken as they are.
        aligner: fitted :class:`~kdkit.core.contracts.Aligner` (frozen here), or None.
        norms: signal name -> target normalisation, applied after the aligner.
    """

    def __init__(
        self,
        heads: Mapping[str, nn.Module] | None = None,
        aligner: nn.Module | None = None,
        norms: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.heads = None if heads is None else nn.ModuleDict(heads)
        self.aligner = None if aligner is None else aligner.requires_grad_(False).eval()
        self.norms = nn.ModuleDict(norms or {})

    def train(self, mode: bool = True) -> Bridge:
        super().train(mode)
        if self.aligner is not None:
            self.aligner.eval()  # frozen: the target of a sample must not depend on its batch
        return self

    def forward(
        self, name: str, student: Mapping[str, Tensor], target: Mapping[str, Tensor], weight: Tensor
    ) -> TeacherView:
        """Student outputs (B, D_s) and targets (B, D_t) -> a view in which those of one name have one width.

        A target that no output is named after passes through as it is.
        """
        return TeacherView(
            name=name,
            weight=weight,
            target={signal: self.target(signal, y) if signal in student else y for signal, y in target.items()},
            student={signal: self._student(signal, student[signal]) for signal in target if signal in student},
        )

    def _student(self, signal: str, x: Tensor) -> Tensor:
        return x if self.heads is None else cast(Tensor, self.heads[signal](x))

    def target(self, signal: str, y: Tensor) -> Tensor:
        """A target row as the losses see it: aligned and normalised."""
        if self.aligner is not None:
            y = cast(Aligner, self.aligner).encode(signal, y)
        return cast(Tensor, self.norms[signal](y)) if signal in self.norms else y


def linear_heads(
    student: Mapping[str, int], teacher: Mapping[str, int], *, shared_towers: bool
) -> dict[str, nn.Module]:
    """Bias-free linear heads from the student's widths to the teacher's, orthogonal at the start.

    An orthogonal map keeps cosines, so at the start the teacher's space sees the student's own geometry.
    With ``shared_towers`` one head serves all signals of equal widths: cosines *between* image and text in
    the teacher's space then are cosines in one image of the student's space.
    """
    heads: dict[str, nn.Module] = {}
    by_width: dict[tuple[int, int], nn.Module] = {}
    for signal, width in teacher.items():
        key = (student[signal], width)
        if not shared_towers or key not in by_width:
            head: Any = nn.Linear(*key, bias=False)
            nn.init.orthogonal_(head.weight)
            by_width[key] = head
        heads[signal] = by_width[key]
    return heads


RIDGE = 1e-2
"""Of :func:`fit_heads`, as a share of the features' mean square: directions that the student hardly uses stay small."""


@torch.no_grad()
def fit_heads(bridge: Bridge, student: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Set the heads to the ridge regression of the targets on the student's unit features, in place.

    A new teacher then starts from what the student knows already, and its first gradients do not pull the
    student towards a random rotation of that teacher's space.

    Args:
        student: signal -> (N, D_s); ``target``: signal -> (N, D_t), as they are in the store.
    """
    assert bridge.heads is not None
    shared: dict[int, list[str]] = {}
    for signal, head in bridge.heads.items():
        shared.setdefault(id(head), []).append(signal)
    for signals in shared.values():
        x = torch.cat([F.normalize(student[signal], dim=-1) for signal in signals]).double()
        y = torch.cat([bridge.target(signal, target[signal]) for signal in signals]).double()
        gram = x.T @ x
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        solution = torch.linalg.solve(gram, x.T @ y)
        cast(nn.Linear, bridge.heads[signals[0]]).weight.copy_(solution.T)
