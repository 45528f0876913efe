"""MedCLIP: gray squares, a Swin transformer or a ResNet, and the mean over words and layers of a BERT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdkit.core.teachers.pickles import convert_pickles
from kdkit.plugins.loaders.medclip import load_medclip, preprocess_image
from kdkit.plugins.loaders.open_clip_companions import BIO_CLINICAL_BERT, medclip_companions
from tests.errors import raises_error
from tests.plugins.loaders.original_layouts import CAPTIONS, add_by_files, gray_pictures, make_medclip
from tests.tiny_models import close

MEAN, STD = 0.5862785803043838, 0.27950088968644304


@pytest.mark.parametrize("kind", ["swin", "resnet"])
def test_features_are_those_of_its_stock_parts(kind: str, tmp_path: Path) -> None:
    towers = make_medclip(tmp_path / "m", kind)
    facts, ours = add_by_files(tmp_path / "m", tmp_path / "project")
    assert (facts.loader, facts.dims) == ("medclip", {"image": 24, "text": 24})
    pixels = torch.stack([ours.preprocess(image) for image in gray_pictures()[:2]])
    with torch.no_grad():
        if kind == "swin":
            image = towers.image(pixels).pooler_output @ towers.projections["image"].T
        else:
            image = towers.image(pixels)
        assert close(ours.encode_image(pixels), image)
        assert close(ours.encode_text(CAPTIONS), torch.cat([_text(towers, caption) for caption in CAPTIONS]))


def _text(towers: object, caption: str) -> torch.Tensor:
    """Of a text alone: without padding there is nothing to mask."""
    bert, tokenizer = towers.bert, towers.tokenizer  # type: ignore[attr-defined]
    ids = tokenizer([caption], truncation=True, max_length=77, return_tensors="pt")["input_ids"]
    states = bert(input_ids=ids, output_hidden_states=True).hidden_states
    mean = torch.stack([states[1], states[2], states[-1]]).mean(2).mean(0)
    return mean @ towers.projections["text"].T  # type: ignore[attr-defined, no-any-return]


def test_images_are_gray_on_a_black_square() -> None:
    """No gray level off against Pillow, done by hand for each case of sizes."""
    for image in gray_pictures():
        side = max(224, *image.size)
        left, top = (side - image.width) // 2, (side - image.height) // 2
        square = np.zeros((side, side), dtype=np.uint8)
        square[top : top + image.height, left : left + image.width] = np.asarray(image.convert("L"))
        expected = np.asarray(Image.fromarray(square).resize((224, 224), Image.Resampling.BICUBIC))
        pixels = preprocess_image(image)
        assert pixels.shape == (3, 224, 224)
        assert torch.equal(pixels[0], pixels[2])
        assert np.array_equal(np.rint((pixels[1].numpy() * STD + MEAN) * 255), expected)
        assert np.abs(pixels[0].numpy() - (expected / 255 - MEAN) / STD).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "value", "id"),
    [
        ("vision_model.projection_head.weight", None, "KD-LOAD-085"),
        ("vision_model.model.embeddings.patch_embeddings.projection.weight", None, "KD-LOAD-085"),
        ("vision_model.model.layernorm.weight", None, "KD-LOAD-084"),
        ("vision_model.surprise", torch.zeros(1), "KD-LOAD-084"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, name: str, value: torch.Tensor | None, id: str) -> None:
    make_medclip(tmp_path, "swin")
    state = torch.load(tmp_path / "pytorch_model.bin")
    state.pop(name, None)
    torch.save({**state, **({} if value is None else {name: value})}, tmp_path / "pytorch_model.bin")
    convert_pickles(tmp_path, "here")
    with raises_error(id, where=str(tmp_path / "model.safetensors"), mentions=("MedCLIP (--loader medclip)",)):
        load_medclip(tmp_path)


def test_its_text_tower_is_a_companion(tmp_path: Path) -> None:
    assert [item.source for item in medclip_companions(tmp_path)] == [BIO_CLINICAL_BERT]
