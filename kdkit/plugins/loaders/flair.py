"""FLAIR (Silva-Rodriguez et al. 2024, arXiv:2308.07898): ResNet-50 and Bio_ClinicalBERT for fundus photographs.

Source: github.com/jusiro/FLAIR at d6652d5, flair/modeling/model.py. The original averages over the padding of a batch,
so a text's features depend on its neighbors; here they are those of the text alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.transforms.functional import resize  # type: ignore[import-untyped]

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.tensors import read_tensors
from kdkit.plugins.loaders.image_towers import Projected, build_resnet
from kdkit.plugins.loaders.layouts import FLAIR, WeightFile, part
from kdkit.plugins.loaders.open_clip_folder import find_weights
from kdkit.plugins.loaders.precision import dtype_of
from kdkit.plugins.loaders.text_tower import (
    AVERAGED,
    BIO_CLINICAL_BERT,
    Reading,
    TextTower,
    mean_of_layers,
    read_text_tower,
)
from kdkit.plugins.loaders.two_towers import TwoTowers

_IMAGE, _TEXT = "vision_model.", "text_model."
_SIZE, _CONTEXT = 512, 77
TEMPLATE = "A fundus photograph of {}"


def load_flair(
    folder: Path, *, template: str = TEMPLATE, weights: str | None = None, precision: str = "float32"
) -> TwoTowers:
    """A frozen teacher from the authors' weights, offline and strictly.

    Args:
        folder: the weights, and ``text/`` with config and tokenizer of the text tower.
        template: every text takes the place of ``{}``, as in the authors' code; ``"{}"`` leaves texts as they are.
        weights: the weights' file name, if there are several.
        precision: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        KdkitError: the folder is incomplete, or another model's; ``template`` has no ``{}``.
    """
    folder = Path(folder)
    if "{}" not in template:
        raise KdkitError(
            "KD-LOAD-116",
            f"the template '{template}' has no place for the text",
            where="--option template",
            why="all texts would be the same",
            fix=f"put {{}} where the text belongs: --option template='{TEMPLATE}'",
        )
    dtype, path = dtype_of(precision), find_weights(folder, weights)
    state = read_tensors(path)
    file = WeightFile(str(path), "FLAIR", state)
    file.require_layout(FLAIR)
    file.require_known((f"{_IMAGE}model.", f"{_TEXT}model.", *FLAIR[:2], "logit_scale"))
    image = Projected(build_resnet(part(state, f"{_IMAGE}model."), file), state[FLAIR[0]])
    reading = Reading(_CONTEXT, reads_padding=False, pool=mean_of_layers, name=f"mean of layers {AVERAGED}")
    text = read_text_tower(folder, part(state, f"{_TEXT}model."), state[FLAIR[1]], BIO_CLINICAL_BERT, reading, file)
    preprocessing = {"resize": "bilinear, longest side", "size": _SIZE, "pad": "right and bottom", "divide": 255}
    model = Templated(image, text, preprocess_image, {"flair": preprocessing, "template": template}, template)
    return model.to(dtype).requires_grad_(False).eval()


def preprocess_image(image: Image) -> Tensor:
    """RGB image -> (3, 512, 512) float32 in [0, 1]: the longest side resized to 512, zeros at the right and below."""
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / np.float32(255)).permute(2, 0, 1)
    scale = max(pixels.shape[-2:]) / _SIZE
    height, width = (max(1, int(side / scale)) for side in pixels.shape[-2:])
    small = resize(pixels, [height, width], antialias=True)
    return pad(small, (0, _SIZE - width, 0, _SIZE - height))


class Templated(TwoTowers):
    """Two towers whose texts are put into a template."""

    def __init__(
        self,
        image: nn.Module,
        text: TextTower,
        preprocess: Callable[[Image], Tensor],
        preprocessing: Mapping[str, Any],
        template: str,
    ) -> None:
        super().__init__(image, text, preprocess, preprocessing)
        self._template = template

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D) float32, not normalized."""
        return super().encode_text([self._template.replace("{}", text) for text in texts])
