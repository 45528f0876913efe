"""What a loaded teacher does to images and texts, measured; and where this differs from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kdkit.core.base.result import format_size
from kdkit.core.contracts import LimitsTexts, SignalSource, Teacher, TeacherSpec, sources_of

TOLERANCE = 2e-3
"""Mean and std are published with three digits or more."""
_SIDE = 64


@dataclass(frozen=True)
class Measured:
    """Measured by the probe, on this machine. None or empty: the model does not tell.

    Attributes:
        dims: signal -> width.
        image_size: (height, width) of prepared images.
        mean, std: per channel, of pixels in [0, 1].
        context_length: tokens of a text.
        images_per_second: one at a time, with preprocessing and a short text.
        weights_bytes: memory of its weights.
    """

    dims: Mapping[str, int]
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    context_length: int | None = None
    images_per_second: float | None = None
    weights_bytes: int | None = None

    @property
    def cost(self) -> str:
        """Speed and memory in one line; empty if neither is known."""
        what = "texts" if set(self.dims) == {"text"} else "images"
        speed = f"{self.images_per_second:.3g} {what}/s here, one at a time" if self.images_per_second else ""
        memory = f"{format_size(self.weights_bytes)} of memory for its weights" if self.weights_bytes else ""
        return "; ".join(filter(None, (speed, memory)))


def measure(model: Teacher, signals: SignalSource, dims: Mapping[str, int], seconds: float | None) -> Measured:
    """Measure a teacher that the probe accepted.

    Args:
        model: from its loader.
        signals: the same as a signal source.
        dims: signal -> width.
        seconds: that it took for one sample; None if it computed none.
    """
    black, white = (_pixels(signals, shade) for shade in (0, 255))
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    if black is not None and white is not None:
        size = (int(black.shape[1]), int(black.shape[2]))
        mean, std = _normalization(black, white)
    return Measured(
        dims=dict(dims),
        image_size=size,
        mean=mean,
        std=std,
        context_length=model.context_length if isinstance(model, LimitsTexts) else None,
        images_per_second=1 / seconds if seconds else None,
        weights_bytes=_weights_bytes(model),
    )


def differences(spec: TeacherSpec, found: Measured, overridden: Mapping[str, Any]) -> Iterator[str]:
    """Where the model is not what the catalogue says, one line each.

    Args:
        spec: of the catalogue.
        found: of the model.
        overridden: options of the project; facts of the same name are meant to differ.
    """
    size = found.image_size
    shown = size[0] if size and size[0] == size[1] else size
    pairs: dict[str, tuple[Any, Any]] = {
        "image_dim": (spec.image_dim, found.dims.get("image")),
        "text_dim": (spec.text_dim, found.dims.get("text")),
        "image_size": (spec.image_size, shown),
        "context_length": (spec.context_length, found.context_length),
        "mean": (spec.mean, found.mean),
        "std": (spec.std, found.std),
    }
    sources = sources_of(spec)
    for name, (said, is_now) in pairs.items():
        if name in overridden or said in (None, ()) or is_now in (None, ()) or _same(said, is_now):
            continue
        place = "; ".join(source.source for source in sources.get(name, ()))
        yield f"{name.replace('_', ' ')}: {_show(is_now)}; the catalogue says {_show(said)}" + (
            f" ({place})" if place else ""
        )


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, tuple) or not isinstance(other, tuple):
        return bool(one == other)
    return len(one) == len(other) and all(abs(a - b) <= TOLERANCE for a, b in zip(one, other, strict=True))


def _show(value: Any) -> str:
    return ", ".join(f"{item:.4g}" for item in value) if isinstance(value, tuple) else str(value)


def _pixels(signals: SignalSource, shade: int) -> Any:
    """(3, H, W) of an image of one shade of gray; None if what the model prepares is something else."""
    from pathlib import Path

    import torch
    from PIL import Image

    from kdkit.core.contracts import Sample

    image = Image.new("RGB", (_SIDE, _SIDE), (shade, shade, shade))
    item = signals.prepare(image, Sample(id="probe", image=Path("probe.png"), text="a gray image", domain="probe"))
    pixels = item[0] if isinstance(item, tuple) and item else item
    fits = isinstance(pixels, torch.Tensor) and pixels.dim() == 3 and pixels.shape[0] == 3
    return pixels.double() if fits else None


def _normalization(black: Any, white: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) with which pixels in [0, 1] are normalized, from the middle of a black and of a white image."""
    row, column = black.shape[1] // 2, black.shape[2] // 2
    low, high = black[:, row, column].tolist(), white[:, row, column].tolist()
    if any(b <= a for a, b in zip(low, high, strict=True)):
        return (), ()
    std = tuple(1 / (b - a) for a, b in zip(low, high, strict=True))
    return tuple(round(-a * s, 6) for a, s in zip(low, std, strict=True)), tuple(round(s, 6) for s in std)


def _weights_bytes(model: object) -> int | None:
    from torch import nn

    if not isinstance(model, nn.Module):
        return None
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
