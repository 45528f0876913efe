"""KEEP: the features of its stock towers, from a folder whose code is not run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision import transforms  # type: ignore[import-untyped]

from kdkit.plugins.loaders.keep import load_keep
from tests.errors import raises_error
from tests.plugins.loaders.more_layouts import make_keep
from tests.plugins.loaders.original_layouts import CAPTIONS, HIDDEN, add_by_files, gray_pictures
from tests.tiny_models import close


@pytest.mark.parametrize("scale", ["weight", "gamma"])
def test_features_are_those_of_its_stock_parts(scale: str, tmp_path: Path) -> None:
    towers, head = make_keep(tmp_path / "m", scale)
    facts, ours = add_by_files(tmp_path / "m", tmp_path / "project")
    assert (facts.loader, facts.dims) == ("keep", {"image": HIDDEN, "text": HIDDEN})
    assert not list((tmp_path / "project").rglob("*.py"))
    transform = transforms.Compose(
        [
            transforms.Resize(64, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(64),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    pixels = torch.stack([transform(image) for image in gray_pictures()])
    assert torch.equal(torch.stack([ours.preprocess(image) for image in gray_pictures()]), pixels)
    tokens = towers.tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        assert close(ours.encode_image(pixels), head(towers.image(pixels)))
        assert close(ours.encode_text(CAPTIONS), towers.bert(**tokens).pooler_output)


def test_a_head_with_another_layer_is_refused_by_name(tmp_path: Path) -> None:
    make_keep(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), "visual_head.4.weight": torch.ones(2, 2)}, path)
    with raises_error("KD-LOAD-084", where=str(path), mentions=("unexpected: visual_head.4.weight",)):
        load_keep(tmp_path)
