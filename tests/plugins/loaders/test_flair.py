"""FLAIR: padded photographs, a ResNet, texts in a template, and the mean over words and layers of a BERT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import Resize  # type: ignore[import-untyped]

from kdkit.plugins.loaders.flair import load_flair, preprocess_image
from tests.errors import raises_error
from tests.plugins.loaders.more_layouts import WIDTH, make_flair
from tests.plugins.loaders.original_layouts import CAPTIONS, Towers, add_by_files, gray_pictures
from tests.tiny_models import close


def _text(towers: Towers, caption: str) -> torch.Tensor:
    """Of a text alone: without padding there is nothing to mask."""
    prompt = f"A fundus photograph of {caption}"
    ids = towers.tokenizer([prompt], truncation=True, max_length=77, return_tensors="pt")["input_ids"]
    states = towers.bert(input_ids=ids, output_hidden_states=True).hidden_states
    mean = torch.stack([states[1], states[2], states[-1]]).mean(2).mean(0)
    return mean @ towers.projections["text"].T


def test_features_are_those_of_its_stock_parts(tmp_path: Path) -> None:
    towers = make_flair(tmp_path / "m")
    facts, ours = add_by_files(tmp_path / "m", tmp_path / "project")
    assert (facts.loader, facts.dims) == ("flair", {"image": WIDTH, "text": WIDTH})
    pixels = torch.stack([ours.preprocess(image) for image in gray_pictures()[:2]])
    with torch.no_grad():
        assert close(ours.encode_image(pixels), towers.image(pixels) @ towers.projections["image"].T)
        assert close(ours.encode_text(CAPTIONS), torch.cat([_text(towers, caption) for caption in CAPTIONS]))
    plain: Any = load_flair(tmp_path / "project/.kdkit/artifacts/mine", template="{}")
    assert close(plain.encode_text([f"A fundus photograph of {text}" for text in CAPTIONS]), ours.encode_text(CAPTIONS))
    assert plain.identity() != ours.identity()


def test_images_keep_their_shape_on_a_canvas() -> None:
    for image in (*gray_pictures(), Image.new("RGB", (2000, 3), (255, 0, 9))):
        array = torch.tensor(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)
        scale = max(array.shape[1:]) / 512
        height, width = (max(1, int(side / scale)) for side in array.shape[1:])
        pixels = preprocess_image(image)
        assert pixels.shape == (3, 512, 512)
        assert torch.equal(pixels[:, :height, :width], Resize((height, width), antialias=True)(array))
        assert not pixels[:, height:].any()
        assert not pixels[:, :, width:].any()


def test_a_template_without_a_place_for_the_text_is_refused(tmp_path: Path) -> None:
    with raises_error("KD-LOAD-116", mentions=("'fundus photo'",)):
        load_flair(tmp_path, template="fundus photo")
