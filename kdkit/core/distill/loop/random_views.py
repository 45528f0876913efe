"""Random views of training images, as in CLIP's training: a random part, resized to the input's size, and a mirror.

Only samples that no teacher covers get them: stored features belong to the plain image. Each view follows from its own
number, which the data loader draws by seed, step and place in the global batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from PIL import Image
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample
from kdkit.core.project.recipe import AugmentPart

TRIES = 10
PLAIN = -1
"""In the place of a view's number: the image as it is."""
Box = tuple[int, int, int, int]


class RandomViews:
    """The views of a recipe's ``augment``.

    Args:
        part: of the recipe.
        size: (width, height) of the student's input.
    """

    def __init__(self, part: AugmentPart, size: tuple[int, int]) -> None:
        self._part, self._size = part, size

    def view(self, image: Image.Image, sample: Sample, number: int) -> Image.Image:
        """View ``number`` of an image, of the student's size: ``RandomResizedCrop`` and a flip of torchvision."""
        rng = np.random.default_rng(number)
        box = draw_box(rng, *image.size, area=self._part.crop, ratio=self._part.ratio)
        found = image.crop(box).resize(self._size, Image.Resampling.BICUBIC)
        mirrored = bool({sample.domain, "*"} & {*self._part.flip}) and rng.random() < 0.5
        return found.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else found


def draw_box(
    rng: np.random.Generator, width: int, height: int, area: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """(left, upper, right, lower) of a random part, drawn as torchvision's ``RandomResizedCrop.get_params`` does.

    Args:
        rng: the source of numbers.
        width, height: of the image.
        area: smallest and largest share of the image's area, uniform.
        ratio: smallest and largest width over height; uniform in its logarithm.
    """
    for _ in range(TRIES):
        wanted = width * height * rng.uniform(*area)
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(wanted * shape)), round(math.sqrt(wanted / shape))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, upper, left + w, upper + h
    w = min(width, max(1, round(height * ratio[1])))  # the largest part in the middle with a ratio in the range
    h = min(height, max(1, round(width / ratio[0])))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h


def input_size(row: Mapping[str, Tensor]) -> tuple[int, int]:
    """(width, height) of the image among prepared inputs.

    Raises:
        KdkitError: there is no image of shape (C, H, W).
    """
    shapes = [x.shape for x in row.values() if x.is_floating_point() and x.ndim == 3 and x.shape[0] <= 4]
    if len(shapes) != 1:
        raise KdkitError(
            "KD-DIST-221",
            "this student takes no random views of images",
            where="augment",
            why="its inputs hold no single image of one size",
            fix="remove 'augment' from the recipe",
        )
    return int(shapes[0][2]), int(shapes[0][1])
