"""Teachers that see images and read no text: one pooled feature per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from PIL.Image import Image
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import IMAGE, Sample, SignalSpec

Pooling = Literal["cls", "mean", "cls+mean"]
POOLINGS = ("cls", "mean", "cls+mean")


class ImageEncoder(nn.Module):
    """A vision model with its own preprocessing; fulfils ``contracts.SignalSource`` with the signal ``image`` alone.

    Args:
        model: in eval mode; moved with ``.to(device)``.
        preprocess: RGB image -> (C, H, W) float32, deterministic; C is 3, or 1 for models of gray images.
        features: (model, (B, C, H, W)) -> (B, width).
        identity: everything besides the weights that determines the features.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        width: int,
        preprocess: Callable[[Image], Tensor],
        features: Callable[[nn.Module, Tensor], Tensor],
        identity: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.model, self.width = model, width
        self._preprocess, self._features, self._identity = preprocess, features, dict(identity)

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        return (SignalSpec(IMAGE, (self.width,)),)

    def identity(self) -> Mapping[str, str]:
        return dict(self._identity)

    def prepare(self, image: Image, sample: Sample) -> Tensor:
        """RGB image -> (C, H, W) float32."""
        del sample
        return self._preprocess(image)

    def compute(self, items: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """B items -> ``image`` (B, width) float32 on the CPU, not normalized."""
        return {IMAGE: self.encode_image(torch.stack(list(items))).cpu()}

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width) float32, not normalized."""
        like = next(self.model.parameters())
        return self._features(self.model, pixels.to(like)).float()


def pool_tokens(tokens: Tensor, prefix: int, pooling: str) -> Tensor:
    """(B, prefix + patches, D) -> (B, D); ``cls+mean``: (B, 2D).

    Args:
        prefix: tokens before the patches: the class token and the registers.
    """
    parts = {"cls": tokens[:, 0], "mean": tokens[:, prefix:].mean(1)}
    return torch.cat([parts[name] for name in pooling.split("+")], dim=-1)


def require_pooling(pooling: str, known: Sequence[str], where: str) -> None:
    """Raises: KdkitError for a pooling that is not one of ``known``."""
    if pooling not in known:
        raise KdkitError(
            "KD-LOAD-080",
            f"this model has no pooling '{pooling}'",
            where=where,
            fix="choose one: " + " or ".join(f"--option pooling={name}" for name in known),
        )


def vision_error(folder: object, why: str, library: str) -> KdkitError:
    """The error of a folder that ``library`` cannot load as a vision model."""
    return KdkitError(
        "KD-LOAD-081",
        f"this folder is not a vision model of {library}",
        where=str(folder),
        why=why,
        fix="check the folder and the options, or choose another loader: --loader LOADER",
    )
