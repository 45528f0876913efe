"""Vision models of transformers without text: the features of the stock library, from complete folders only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from kdkit.core.contracts import SignalSource
from kdkit.core.teachers.probe import probe
from kdkit.core.teachers.recognize import recognize_loader
from kdkit.plugins.loaders import kdkit_loaders
from kdkit.plugins.loaders.transformers_vision import load_transformers_vision
from tests.errors import raises_error
from tests.plugins.loaders.vision_models import MODELS, stacked, transformers_folder
from tests.tiny_models import close, pictures


@pytest.fixture(scope="module")
def transformers_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model type -> its folder."""
    root = tmp_path_factory.mktemp("vision")
    return {name: transformers_folder(root / name, name) for name in MODELS}


@pytest.mark.parametrize("name", list(MODELS))
def test_features_equal_stock_transformers(name: str, transformers_folders: dict[str, Path]) -> None:
    folder = transformers_folders[name]
    model: Any = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(images=pictures(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        out = model(pixel_values=pixels)
    tokens = out.last_hidden_state
    poolings = {"pooler": out.pooler_output.flatten(1)}
    if name not in ("convnext", "swin"):
        patches = tokens[:, 1 + getattr(model.config, "num_register_tokens", 0) :]
        assert patches.shape[1] == 4
        poolings |= {"cls": tokens[:, 0], "mean": patches.mean(1)}
        poolings |= {"cls+mean": torch.cat([tokens[:, 0], patches.mean(1)], dim=-1)}
    for pooling, wanted in poolings.items():
        ours = load_transformers_vision(folder, pooling=pooling)
        assert torch.equal(stacked(ours), pixels)
        assert ours.signals[0].shape == (wanted.shape[1],)
        assert close(ours.compute(list(pixels))["image"], wanted)
    default = load_transformers_vision(folder)
    assert default.identity()["pooling"] == next(iter([*[p for p in poolings if p == "cls"], "pooler"]))
    assert isinstance(default, SignalSource)
    assert set(probe(default, name).signals) == {"image"}
    assert recognize_loader(kdkit_loaders(), folder, name) == "transformers-vision"


def test_a_pooler_that_is_missing_matters_only_where_it_is_used(
    transformers_folders: dict[str, Path], tmp_path: Path
) -> None:
    source, folder = transformers_folders["vit"], tmp_path / "vit"
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    tensors = {k: v for k, v in load_file(source / "model.safetensors").items() if not k.startswith("pooler.")}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    load_transformers_vision(folder)
    with raises_error("KD-LOAD-081", mentions=("pooler.dense",)):
        load_transformers_vision(folder, pooling="pooler")
    with raises_error("KD-LOAD-080", mentions=("'max'", "cls+mean")):
        load_transformers_vision(folder, pooling="max")
    needed = next(name for name in tensors if name.endswith("mlp.fc1.weight") or "intermediate.dense.weight" in name)
    del tensors[needed]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with raises_error("KD-LOAD-081", mentions=("missing",)):
        load_transformers_vision(folder)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with raises_error("KD-LOAD-071", mentions=("bert",)):
        load_transformers_vision(tmp_path)
