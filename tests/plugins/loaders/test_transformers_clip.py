"""The transformers loader gives the features of stock transformers, from complete folders only."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from kdkit.core.base.errors import ExitCode
from kdkit.plugins.loaders.transformers_clip import load_transformers_clip
from tests.errors import raises_error
from tests.plugins.loaders.vision_models import transformers_folder
from tests.tiny_models import TEXTS, bert_tower_files, close, make_transformers_clip_folder, pictures


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_features_equal_stock_transformers(name: str, folders: dict[str, Path], encoders: dict[str, Any]) -> None:
    model: Any = transformers.AutoModel.from_pretrained(folders[name]).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folders[name], backend="pil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[name])
    padding = "max_length" if name == "siglip" else True  # as SigLIP was trained
    tokens = tokenizer(TEXTS, padding=padding, truncation=True, max_length=16, return_tensors="pt")
    # SigLIP attends to padding: its authors' code has no mask
    inputs = {key: tokens[key] for key in ("input_ids", "attention_mask")[: 1 if name == "siglip" else 2]}
    pixels = processor(images=pictures(), return_tensors="pt")["pixel_values"]
    ours = encoders[name]
    assert torch.equal(torch.stack([ours.preprocess(image) for image in pictures()]), pixels)
    with torch.no_grad():
        whole = model(**inputs, pixel_values=pixels)
    unit = torch.nn.functional.normalize
    assert close(unit(ours.encode_image(pixels)), whole.image_embeds)
    assert close(unit(ours.encode_text(TEXTS)), whole.text_embeds)


def test_two_encoders_that_were_trained_together_equal_stock_transformers(tmp_path: Path) -> None:
    """A ``VisionTextDualEncoderModel``: a ViT and a BERT."""
    config, files = bert_tower_files(48)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    vision = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = transformers.BertConfig.from_dict(config)
    whole = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=24)
    model: Any = transformers.VisionTextDualEncoderModel(whole).eval()
    model.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    ours = load_transformers_clip(tmp_path)
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)(TEXTS, padding=True, truncation=True, max_length=512)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    pixels = processor(images=pictures(), return_tensors="pt")["pixel_values"]
    assert torch.equal(torch.stack([ours.preprocess(image) for image in pictures()]), pixels)
    with torch.no_grad():
        found = model(**tokens.convert_to_tensors("pt"), pixel_values=pixels)
    unit = torch.nn.functional.normalize
    assert close(unit(ours.encode_image(pixels)), found.image_embeds)
    assert close(unit(ours.encode_text(TEXTS)), found.text_embeds)


def test_images_are_resized_as_pillow_does(encoders: dict[str, Any]) -> None:
    """Written out by hand; torchvision's resizing, the library's default, gives other gray levels."""
    image = pictures()[1]
    small = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    assert close(encoders["siglip"].preprocess(image), torch.from_numpy((small - 0.5) / 0.5).permute(2, 0, 1).float())


@pytest.mark.parametrize("folder", ["siglip"], indirect=True)
def test_siglip2_of_one_image_size_reads_lowercase_texts(folder: Path, encoders: dict[str, Any]) -> None:
    """It has the code of SigLIP, and the tokenizer of Gemma, which keeps capitals."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "GemmaTokenizer"}))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "normalizer": None}))
    siglip2 = load_transformers_clip(folder)
    assert torch.equal(siglip2.encode_text(["A CT Scan"]), siglip2.encode_text(["a ct scan"]))
    assert "lowercase" in siglip2.identity()["tokenizer"]
    assert "lowercase" not in encoders["siglip"].identity()["tokenizer"]


@pytest.mark.parametrize("folder", ["clip", "siglip"], indirect=True)
def test_what_the_tokenizer_returns_by_default_changes_nothing(
    folder: Path, request: pytest.FixtureRequest, encoders: dict[str, Any]
) -> None:
    name = request.node.callspec.params["folder"]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for names in (["input_ids"], ["input_ids", "attention_mask"]):
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_input_names": names}))
        found = load_transformers_clip(folder).encode_text(TEXTS)
        assert torch.equal(found, encoders[name].encode_text(TEXTS)), names


@pytest.mark.parametrize("folder", ["siglip"], indirect=True)
def test_a_tokenizer_of_sentencepiece_works_or_names_its_packages(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer"}))
    (folder / "spiece.model").write_bytes(b"no model")
    if find_spec("sentencepiece") and find_spec("google.protobuf"):
        with raises_error("KD-LOAD-031"):
            load_transformers_clip(folder)
    else:
        with raises_error("KD-LOAD-033", where=str(folder), code=ExitCode.MISSING) as caught:
            load_transformers_clip(folder)
        assert "kdkit[sentencepiece]" in caught.value.fix


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


@pytest.mark.parametrize("names", [["tokenizer.json"], ["preprocessor_config.json", "processor_config.json"]])
def test_a_missing_tokenizer_or_image_processor_is_named(tmp_path: Path, names: list[str]) -> None:
    folder = make_transformers_clip_folder(tmp_path / "a")
    for name in names:
        (folder / name).unlink(missing_ok=True)
    with raises_error("KD-TEACH-032", where=str(folder), mentions=(names[0],)):
        load_transformers_clip(folder)


def test_weights_of_another_shape_are_named_with_both_shapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_transformers_clip_folder(tmp_path / "a", embed_dim=32)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "projection_dim": 48}), encoding="utf-8")
    with raises_error("KD-LOAD-031", mentions=("visual_projection.weight", "(32, 32)", "(48, 32)")):
        load_transformers_clip(folder)
    assert "REPORT" not in capsys.readouterr().err


def test_a_vision_model_is_refused_with_its_loader(tmp_path: Path) -> None:
    with raises_error("KD-LOAD-031", mentions=("transformers-vision",)):
        load_transformers_clip(transformers_folder(tmp_path / "a", "vit"))
