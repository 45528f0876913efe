"""Options of preprocessing that the built-in loaders of images share; they override what a model's files say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from kdkit.core.base.errors import KdkitError

INTERPOLATIONS: Mapping[str, int] = {"bicubic": 3, "bilinear": 2}
"""Names -> the numbers of Pillow."""
RESIZE_MODES = ("shortest", "longest", "squash")
LARGEST = 4096
"""Pixels of a side."""
_SQUASHED_FROM = 384
"""Pixels from which ``ConvNextImageProcessor`` of transformers crops nothing."""


@dataclass(frozen=True)
class Overrides:
    """What replaces the files' preprocessing; None keeps it.

    Attributes:
        mean, std: per channel, of pixels in [0, 1].
        interpolation: ``bicubic`` or ``bilinear``.
        resize_mode: ``shortest``: the shorter side is resized, the center cropped; ``longest``: the longer side is
            resized, the rest padded; ``squash``: both sides are resized.
        image_size: height and width in pixels.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    resize_mode: str | None = None
    image_size: int | None = None

    def require_patches(self, patch: object, where: object) -> None:
        """Raises: KdkitError: the image size is no multiple of the patch size, if there is one."""
        if self.image_size is not None and isinstance(patch, int) and self.image_size % patch:
            below = max(1, self.image_size // patch) * patch
            raise _impossible(
                where, "image_size", self.image_size, f"a multiple of {patch}, the size of a patch", below
            )


def read_overrides(
    where: object,
    *,
    mean: Any = None,
    std: Any = None,
    interpolation: str | None = None,
    resize_mode: str | None = None,
    image_size: int | None = None,
) -> Overrides:
    """Check the options.

    Args:
        where: the folder, for messages.
        mean, std: three numbers, or one for all channels.
        interpolation, resize_mode, image_size: as in :class:`Overrides`.

    Raises:
        KdkitError: an impossible value.
    """
    if interpolation is not None and interpolation not in INTERPOLATIONS:
        raise _impossible(where, "interpolation", interpolation, " or ".join(INTERPOLATIONS), "bicubic")
    if resize_mode is not None and resize_mode not in RESIZE_MODES:
        raise _impossible(where, "resize_mode", resize_mode, ", ".join(RESIZE_MODES), "shortest")
    whole = isinstance(image_size, int) and not isinstance(image_size, bool)
    if image_size is not None and not (whole and 1 <= image_size <= LARGEST):
        raise _impossible(where, "image_size", image_size, f"a number of pixels from 1 to {LARGEST}", 224)
    return Overrides(
        mean=_channels(where, "mean", mean, least=0.0),
        std=_channels(where, "std", std, least=1e-3),
        interpolation=interpolation,
        resize_mode=resize_mode,
        image_size=image_size,
    )


def open_processor(folder: Path, wanted: Overrides, **options: Any) -> Any:
    """The image processor of a folder of transformers, with the overrides.

    Pillow resizes, as the authors of CLIP and their followers used it: torchvision resizes to other gray levels.
    """
    from transformers import AutoImageProcessor

    made = AutoImageProcessor.from_pretrained(folder, backend="pil", **options)
    changes = processor_changes(made.to_dict(), wanted, folder)
    if not changes:
        return made
    changed = AutoImageProcessor.from_pretrained(folder, backend="pil", **options, **changes)
    if "size" in changes:
        _require_square(changed, wanted, folder)
    return changed


def processor_changes(settings: Mapping[str, Any], wanted: Overrides, where: object) -> dict[str, Any]:
    """Keyword arguments that make an image processor of transformers follow the overrides.

    Args:
        settings: of the processor, from its ``to_dict``.
        wanted: the overrides.
        where: the folder, for messages.

    Raises:
        KdkitError: the processor has no such resizing.
    """
    changes: dict[str, Any] = {}
    if wanted.mean is not None or wanted.std is not None:
        changes["do_normalize"] = True
    if wanted.mean is not None:
        changes["image_mean"] = list(wanted.mean)
    if wanted.std is not None:
        changes["image_std"] = list(wanted.std)
    if wanted.interpolation is not None:
        changes.update(resample=INTERPOLATIONS[wanted.interpolation], do_resize=True)
    if wanted.image_size is None and wanted.resize_mode is None:
        return changes
    size, crop = settings.get("size"), settings.get("crop_size")
    if not isinstance(size, Mapping) or not (size.get("shortest_edge") or size.get("height")):
        raise _unsupported(where, "image_size" if wanted.image_size else "resize_mode", "its images have no fixed size")
    changes["do_resize"] = True
    edge = int(size.get("shortest_edge") or size["height"])
    cropped = int(crop["height"]) if isinstance(crop, Mapping) and settings.get("do_center_crop") else edge
    side = wanted.image_size or cropped
    mode = wanted.resize_mode or ("shortest" if size.get("shortest_edge") else "squash")
    if mode == "longest":
        raise _unsupported(where, "resize_mode=longest", "image processors of transformers do not pad")
    if settings.get("crop_pct") and crop is None:  # ConvNeXt's: its mode follows from the size
        own = "squash" if side >= _SQUASHED_FROM else "shortest"
        if wanted.resize_mode not in (None, own):
            raise _unsupported(where, f"resize_mode={mode}", f"its image processor has {own} at {side} pixels")
        return {**changes, "size": {"shortest_edge": side}}
    if mode == "squash":
        return {**changes, "size": {"height": side, "width": side}, "do_center_crop": False}
    shorter = round(side * edge / cropped) if size.get("shortest_edge") else side
    square = {"height": side, "width": side}
    return {**changes, "size": {"shortest_edge": shorter}, "crop_size": square, "do_center_crop": True}


def _require_square(processor: Any, wanted: Overrides, where: object) -> None:
    """Raises: KdkitError: the processor does not follow the overrides of the size."""
    option = "resize_mode" if wanted.image_size is None else "image_size"
    try:
        height, width = processor(Image.new("RGB", (61, 47)), return_tensors="np")["pixel_values"].shape[-2:]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unsupported(where, option, " ".join(str(error).split())[:200]) from error
    if height != width or wanted.image_size not in (None, height):
        raise _unsupported(where, option, f"its image processor makes images of {width} x {height} pixels")


def _channels(where: object, name: str, value: Any, *, least: float) -> tuple[float, ...] | None:
    if value is None:
        return None
    given = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    numbers = [item for item in given if isinstance(item, (int, float)) and not isinstance(item, bool)]
    if len(given) != 3 or len(numbers) != 3 or not all(math.isfinite(n) and least <= n <= 1 for n in numbers):
        wanted = f"a number from {least:g} to 1, or three in brackets, of pixels in [0, 1]"
        raise _impossible(where, name, value, wanted, "[0.5,0.5,0.5]")
    return tuple(float(number) for number in numbers)


def _impossible(where: object, name: str, value: object, wanted: str, example: object) -> KdkitError:
    return KdkitError(
        "KD-TEACH-030",
        f"'{name}' cannot be {value!r}",
        where=str(where),
        why=f"it is {wanted}",
        fix=f"for example --option {name}={example}",
    )


def _unsupported(where: object, option: str, why: str) -> KdkitError:
    return KdkitError(
        "KD-TEACH-031",
        f"this model's preprocessing has no {option}",
        where=str(where),
        why=why,
        fix="leave the option out, or prepare the images before",
    )
