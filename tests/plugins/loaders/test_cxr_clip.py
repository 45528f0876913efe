"""CXR-CLIP: a ResNet, or the first patch of a Swin transformer, and the last token of a BERT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import linear
from torchvision import transforms  # type: ignore[import-untyped]

from kdkit.plugins.loaders.cxr_clip import load_cxr_clip
from tests.errors import raises_error
from tests.plugins.loaders.more_layouts import WIDTH, make_cxr_clip, make_flair
from tests.plugins.loaders.original_layouts import CAPTIONS, add_by_files, gray_pictures
from tests.tiny_models import close

NORMS = {"resnet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "swin": ((0.5,) * 3, (0.5,) * 3)}


@pytest.mark.parametrize("kind", ["resnet", "swin"])
def test_features_are_those_of_its_stock_parts(kind: str, tmp_path: Path) -> None:
    towers = make_cxr_clip(tmp_path / "m", kind)
    facts, ours = add_by_files(tmp_path / "m", tmp_path / "project")
    assert (facts.loader, facts.dims) == ("cxr-clip", {"image": WIDTH, "text": WIDTH})
    steps = [transforms.Resize(224), transforms.CenterCrop(224), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(*NORMS[kind])])
    pixels = torch.stack([transform(image) for image in gray_pictures()[:3]])
    assert torch.equal(torch.stack([ours.preprocess(image) for image in gray_pictures()[:3]]), pixels)
    tokens = towers.tokenizer(CAPTIONS, padding="longest", truncation=True, max_length=256, return_tensors="pt")
    parts = towers.projections
    with torch.no_grad():
        seen = towers.image(pixels) if kind == "resnet" else towers.image(pixels).last_hidden_state[:, 0]
        assert close(ours.encode_image(pixels), linear(seen, parts["image"], parts["image bias"]), 1e-5)
        hidden = towers.bert(**tokens).last_hidden_state
        last = torch.stack(
            [row[int(mask.sum()) - 1] for row, mask in zip(hidden, tokens["attention_mask"], strict=True)]
        )
        assert close(ours.encode_text(CAPTIONS), linear(last, parts["text"], parts["text bias"]), 1e-5)


def test_weights_of_another_layout_name_its_loader(tmp_path: Path) -> None:
    make_flair(tmp_path / "m")
    with raises_error("KD-LOAD-022"):
        load_cxr_clip(tmp_path / "m")
    facts, _ = add_by_files(tmp_path / "m", tmp_path / "project")
    assert facts.loader == "flair"
    with raises_error("KD-LOAD-085", mentions=("FLAIR (--loader flair)",)):
        load_cxr_clip(tmp_path / "project/.kdkit/artifacts/mine")


def test_a_projection_that_is_incomplete_or_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    make_cxr_clip(tmp_path / "m", "resnet")
    (checkpoint,) = (tmp_path / "m").glob("*.tar")
    state = torch.load(checkpoint, weights_only=False)["model"]  # written just now, by make_cxr_clip
    checkpoint.unlink()
    path, weight = tmp_path / "m" / "model.safetensors", "text_projection.projection.weight"
    save_file({name: value for name, value in state.items() if name != weight}, path)
    with raises_error("KD-LOAD-085", where=str(path), mentions=(weight,)):
        load_cxr_clip(tmp_path / "m")
    save_file({**state, "text_projection.projection.bias": torch.ones(2)}, path)
    with raises_error("KD-LOAD-084", where=str(path), mentions=("bias (2,) for",)):
        load_cxr_clip(tmp_path / "m")
