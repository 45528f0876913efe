"""PMC-CLIP (Lin et al. 2023, arXiv:2303.07240): a ResNet as CLIP's and a BERT that reads its padding.

Source: github.com/WeixiongLin/PMC-CLIP at b0b81e3, src/pmc_clip/model/pmc_clip.py and RN50_fusion4.json. The fusion
module predicts masked words from image and text together. It is no part of the contrastive features.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn

from kdkit.core.base.tensors import read_tensors
from kdkit.plugins.loaders.image_encoder import require_pooling
from kdkit.plugins.loaders.layouts import PMC_CLIP, WeightFile, blocks, describe_mismatch, part, shapes_of
from kdkit.plugins.loaders.open_clip_folder import find_weights
from kdkit.plugins.loaders.precision import dtype_of
from kdkit.plugins.loaders.text_tower import Reading, read_text_tower
from kdkit.plugins.loaders.two_towers import TwoTowers

TOWER = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext"
_CONTEXT = 77
_FUSION = ("fusion_module.", "mlm_projection", "img_special_token", "positional_embedding", "ln_final.", "logit_scale")
"""Weights of the masked language model and of the loss, which no feature needs."""
_STAGE_OUT = 32
"""Width of the last stage, and pixels of an image per cell of its grid, in units of the first stage's width."""


def load_pmc_clip(
    folder: Path, *, pooling: str = "cls", weights: str | None = None, precision: str = "float32"
) -> TwoTowers:
    """A frozen teacher from the authors' checkpoint, offline and strictly.

    Args:
        folder: the weights, and ``text/`` with config and tokenizer of the text tower.
        pooling: ``cls``: the last hidden state of ``[CLS]``, as in training; ``pooler``: the BERT's
            ``pooler_output``, as in the authors' notebook.
        weights: the weights' file name, if there are several.
        precision: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        KdkitError: the folder is incomplete, or another model's.
    """
    folder = Path(folder)
    require_pooling(pooling, tuple(_POOLS), str(folder))
    dtype, path = dtype_of(precision), find_weights(folder, weights)
    state = read_tensors(path)
    file = WeightFile(str(path), "PMC-CLIP", state)
    file.require_layout(PMC_CLIP)
    file.require_known(("visual.", "text_encoder.", "text_projection", *_FUSION))
    image, size = _build_image_tower(part(state, "visual."), file)
    reading = Reading(_CONTEXT, reads_padding=True, pool=_POOLS[pooling], name=pooling)
    bert = part(state, "text_encoder.")
    text = read_text_tower(folder, bert, state["text_projection"].T.contiguous(), TOWER, reading, file)
    preprocessing = PreprocessCfg(size=(size, size))  # open_clip's defaults, from which PMC-CLIP has its own
    model = TwoTowers(
        image,
        text,
        image_transform_v2(preprocessing, is_train=False),
        {"open_clip": {key: getattr(preprocessing, key) for key in PreprocessCfg.__dataclass_fields__}},
    )
    return model.to(dtype).requires_grad_(False).eval()


def _build_image_tower(state: Mapping[str, Tensor], file: WeightFile) -> tuple[nn.Module, int]:
    """The tower and the height of its images, both from the shapes of the weights."""
    shapes = shapes_of(state)
    with torch.random.fork_rng(devices=[]), file.sizes_from_shapes():
        width = shapes["layer1.0.conv1.weight"][0]
        size = isqrt(shapes["attnpool.positional_embedding"][0] - 1) * _STAGE_OUT
        tower = ModifiedResNet(
            layers=[blocks(shapes, stage) for stage in range(1, 5)],
            output_dim=shapes["attnpool.c_proj.weight"][0],
            heads=width * _STAGE_OUT // 64,
            image_size=size,
            width=width,
        )
    file.require_fit(describe_mismatch(shapes_of(tower.state_dict()), shapes))
    tower.load_state_dict(dict(state))
    return tower, size


def _cls(output: Any, mask: Tensor) -> Tensor:
    del mask
    tokens: Tensor = output.last_hidden_state
    return tokens[:, 0]


def _pooler(output: Any, mask: Tensor) -> Tensor:
    del mask
    pooled: Tensor = output.pooler_output
    return pooled


_POOLS = {"cls": _cls, "pooler": _pooler}
