"""Losses of dual encoders with several teachers: kdkit's, and what a good engineer would write with plain torch.

Every contender computes one loss of the same features and its gradient; all give the same value, where they minimize
the same thing (:func:`agree`).

    python benchmarks/loss_contenders.py NAME BATCH TEACHERS WIDTH

prints the MiB by which a process grows for one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from measuring import peak_here, peak_of
from torch import Tensor, nn

from kdkit.core.contracts import LossInput, TeacherView
from kdkit.plugins.losses.clip import ClipLoss
from kdkit.plugins.losses.crd import RelationalDistillation
from kdkit.plugins.losses.icl import InteractiveContrast

SCALE = 20.0
"""1 / temperature of teachers and student, as in the recipe ``kdkit``."""


@dataclass(frozen=True)
class Features:
    """Student features (B, D) with gradients, and teachers' unit features: image and text, each (B, D)."""

    image: Tensor
    text: Tensor
    scale: Tensor
    teachers: tuple[tuple[Tensor, Tensor], ...]

    def batch(self) -> LossInput:
        """As kdkit's losses get them; every teacher covers all samples with equal trust."""
        student = {"image": self.image, "text": self.text, "logit_scale": self.scale}
        ones = torch.ones_like(self.image[:, 0].detach())
        views = tuple(
            TeacherView(f"t{number}", ones, {"image": image, "text": text}, student)
            for number, (image, text) in enumerate(self.teachers)
        )
        return LossInput(student, views, torch.zeros(len(ones), dtype=torch.int64, device=ones.device))

    def gradients(self, loss: Callable[[Features], Tensor]) -> list[Tensor]:
        """Of image, text and scale."""
        for x in (self.image, self.text, self.scale):
            x.grad = None
        torch.autograd.backward(loss(self))
        return [x.grad for x in (self.image, self.text, self.scale) if x.grad is not None]

    def to(self, dtype: torch.dtype) -> Features:
        image, text, scale = (x.detach().to(dtype).requires_grad_() for x in (self.image, self.text, self.scale))
        return Features(image, text, scale, tuple((i.to(dtype), t.to(dtype)) for i, t in self.teachers))


def make_features(
    batch: int, teachers: int, width: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> Features:
    """Random features, equal for equal arguments."""
    generator = torch.Generator(device).manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(batch, width, generator=generator, device=device, dtype=dtype)

    pairs = tuple((F.normalize(draw(), dim=-1), F.normalize(draw(), dim=-1)) for _ in range(teachers))
    scale = torch.tensor(SCALE, device=device, dtype=dtype, requires_grad=True)
    return Features(draw().requires_grad_(), draw().requires_grad_(), scale, pairs)


def crd_kdkit(features: Features, chunk: int | None = None) -> Tensor:
    """One KL from the mean of the teachers' probabilities, in tiles."""
    loss = RelationalDistillation(targets="ensemble", temperature=1 / SCALE, chunk=chunk)
    return loss(features.batch())


def crd_open_clip(features: Features) -> Tensor:
    """open_clip's ``DistillClipLoss`` once per teacher; the mean of its distillation terms."""
    from open_clip.loss import DistillClipLoss  # slow to import, and only this contender needs it

    image, text = F.normalize(features.image, dim=-1), F.normalize(features.text, dim=-1)
    loss = DistillClipLoss()
    parts = [loss(image, text, features.scale, i, t, SCALE)[1] for i, t in features.teachers]
    return torch.stack(parts).mean()


def crd_shared(features: Features) -> Tensor:
    """By hand: the student's logits once, the teachers' probabilities summed into one target."""
    image, text = F.normalize(features.image, dim=-1), F.normalize(features.text, dim=-1)
    logits = features.scale * image @ text.T
    parts = []
    for turned in (False, True):
        with torch.no_grad():
            target = torch.zeros_like(logits)
            for i, t in features.teachers:
                target += (SCALE * (t @ i.T if turned else i @ t.T)).softmax(-1)
            target /= len(features.teachers)
        parts.append(-(target * (logits.T if turned else logits).log_softmax(-1)).sum(-1).mean())
    return torch.stack(parts).mean()


def clip_kdkit(features: Features) -> Tensor:
    return ClipLoss(positives="own")(replace(features.batch(), teachers=()))


def clip_plain(features: Features) -> Tensor:
    """As in CLIP's paper, figure 3."""
    image, text = F.normalize(features.image, dim=-1), F.normalize(features.text, dim=-1)
    return _both_ways(features.scale * image @ text.T)


def icl_kdkit(features: Features) -> Tensor:
    loss: nn.Module = InteractiveContrast(learnable=False).to(features.image)
    value: Tensor = loss(features.batch())
    return value + 0 * features.scale


def icl_plain(features: Features) -> Tensor:
    """CLIP-KD's interactive contrast, teacher by teacher."""
    image, text = F.normalize(features.image, dim=-1), F.normalize(features.text, dim=-1)
    labels = torch.arange(len(image), device=image.device)
    c = 1 / 0.07
    parts = [
        (F.cross_entropy(c * image @ t.T, labels) + F.cross_entropy(c * text @ i.T, labels)) / 2
        for i, t in features.teachers
    ]
    return torch.stack(parts).mean() + 0 * features.scale


def _both_ways(logits: Tensor) -> Tensor:
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


LOSSES: dict[str, Callable[[Features], Tensor]] = {
    "crd kdkit": crd_kdkit,
    "crd open_clip": crd_open_clip,
    "crd shared": crd_shared,
    "clip kdkit": clip_kdkit,
    "clip plain": clip_plain,
    "icl kdkit": icl_kdkit,
    "icl plain": icl_plain,
}


def agree(features: Features, ours: str, other: str) -> float:
    """The largest difference of any gradient, relative to its largest value."""
    pairs = zip(features.gradients(LOSSES[ours]), features.gradients(LOSSES[other]), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)


def rank_share(batch: LossInput, rank: int, world: int) -> LossInput:
    """What a ``by_rows`` loss gets on one of ``world`` ranks; a gather repeats the rank's own rows."""
    size = len(batch.domain) // world
    rows = slice(rank * size, (rank + 1) * size)
    views = tuple(replace(v, student={n: x if x.ndim == 0 else x[rows] for n, x in v.student.items()})
                  for v in batch.teachers)  # fmt: skip
    return replace(batch, teachers=views, rows=rows, gather=lambda x: torch.cat([x] * world))


def loss_peak(name: str, batch: int, teachers: int, width: int) -> float:
    """MiB that the loss takes beyond its features in main memory, in a process of its own."""
    return peak_of(__file__, [name, str(batch), str(teachers), str(width)])


def warm_up(features: Features) -> None:
    """Products of the sizes to come, forward and backward: the library keeps buffers for them, whose loss it is not."""
    image, text = (x.detach().clone().requires_grad_() for x in (features.image, features.text))
    torch.autograd.backward((image @ text.T).sum())


def main() -> None:
    name, sizes = sys.argv[1], [int(word) for word in sys.argv[2:]]
    torch.set_num_threads(1)
    make_features(64, 2, 32, torch.device("cpu")).gradients(LOSSES[name])  # libraries allocate at their first use
    batch, teachers, width = sizes
    features = make_features(batch, teachers, width, torch.device("cpu"))
    warm_up(features)
    print(peak_here(lambda: features.gradients(LOSSES[name])))


if __name__ == "__main__":
    main()
