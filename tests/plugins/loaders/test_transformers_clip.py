"""The transformers loader gives the features of stock transformers, from complete folders only."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from kdkit.plugins.loaders.transformers_clip import load_transformers_clip
from tests.errors import raises_error
from tests.tiny_models import TEXTS, close, pictures


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_features_equal_stock_transformers(name: str, folders: dict[str, Path], encoders: dict[str, Any]) -> None:
    model: Any = transformers.AutoModel.from_pretrained(folders[name]).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folders[name])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[name])
    padding = "max_length" if name == "siglip" else True  # as SigLIP was trained
    tokens = tokenizer(TEXTS, padding=padding, truncation=True, max_length=16, return_tensors="pt")
    inputs = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    pixels = processor(images=pictures(), return_tensors="pt")["pixel_values"]
    ours = encoders[name]
    assert torch.equal(torch.stack([ours.preprocess(image) for image in pictures()]), pixels)
    with torch.no_grad():
        whole = model(**inputs, pixel_values=pixels)
    unit = torch.nn.functional.normalize
    assert close(unit(ours.encode_image(pixels)), whole.image_embeds)
    assert close(unit(ours.encode_text(TEXTS)), whole.text_embeds)


def test_processor_saved_in_one_file_is_the_same(
    folders: dict[str, Path], encoders: dict[str, Any], tmp_path: Path
) -> None:
    """transformers 5 writes image processor and tokenizer of a ``CLIPProcessor`` into processor_config.json."""
    folder = Path(shutil.copytree(folders["clip"], tmp_path / "m"))
    whole = transformers.CLIPProcessor(
        image_processor=transformers.AutoImageProcessor.from_pretrained(folder),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
    )
    (folder / "preprocessor_config.json").unlink()
    whole.save_pretrained(folder)
    identity = load_transformers_clip(folder).identity()
    assert identity["preprocessing"] == encoders["clip"].identity()["preprocessing"]


@pytest.mark.parametrize("folder", ["clip"], indirect=True)
def test_transformers_folder_with_a_missing_weight_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with raises_error("KD-LOAD-031", mentions=("visual_projection.weight",)):
        load_transformers_clip(folder)


def test_transformers_folder_of_another_kind_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with raises_error("KD-LOAD-031"):
        load_transformers_clip(tmp_path)
    with raises_error("KD-LOAD-031"):
        load_transformers_clip(folders["biomedclip"] / "text")
