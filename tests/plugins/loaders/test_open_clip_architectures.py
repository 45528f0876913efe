"""Weights without a config: their architecture follows from their shapes, or the choice is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from kdkit.plugins.loaders.open_clip import load_open_clip
from kdkit.plugins.loaders.open_clip_architectures import Sizes, find_architecture, matching_architectures
from tests.errors import raises_error
from tests.plugins.loaders.original_layouts import add_by_files
from tests.tiny_models import TEXTS, close, pictures

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VIT = {"embed_dim": 24, "text_cfg": TEXT}
VIT["vision_cfg"] = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
RESNET = {"embed_dim": 24, "text_cfg": TEXT}
RESNET["vision_cfg"] = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": None}


@pytest.fixture(scope="module", autouse=True)
def _registered(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("architectures")
    for name, config in {"kdkit-vit": VIT, "kdkit-resnet": RESNET}.items():
        (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
        quick = {**config, "quick_gelu": True}
        (folder / f"{name}-quickgelu.json").write_text(json.dumps(quick), encoding="utf-8")
    open_clip.add_model_config(folder)


def save_weights(name: str, to: Path, **extra: torch.Tensor) -> Any:
    """Random weights of an architecture, alone in a folder; returns the stock model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(name).eval()
    to.mkdir()
    save_file({**model.state_dict(), **extra}, to / "best.safetensors")
    return model


def same(folder: Path, model: Any, **options: Any) -> bool:
    ours = load_open_clip(folder, **options)
    pixels = torch.stack([ours.preprocess(image) for image in pictures()])
    tokens = open_clip.get_tokenizer("ViT-B-32")(TEXTS)
    with torch.no_grad():
        return close(ours.encode_image(pixels), model.encode_image(pixels)) and close(
            ours.encode_text(TEXTS), model.encode_text(tokens)
        )


@pytest.mark.parametrize("name", ["kdkit-vit", "kdkit-resnet"])
def test_the_activation_is_asked_for_and_all_else_found(name: str, tmp_path: Path) -> None:
    """As CheXzero and PathGen-CLIP are published."""
    model = save_weights(f"{name}-quickgelu", tmp_path / "m")
    with raises_error("KD-LOAD-101", where=str(tmp_path / "m")) as caught:
        load_open_clip(tmp_path / "m")
    assert caught.value.fix.endswith(f"--option arch={name}-quickgelu")
    assert same(tmp_path / "m", model, arch=f"{name}-quickgelu")
    assert not same(tmp_path / "m", model, arch=name)


@pytest.mark.parametrize("name", ["kdkit-vit", "kdkit-resnet"])
def test_archives_of_openai_need_no_option(name: str, tmp_path: Path) -> None:
    """They hold three sizes as buffers, and their activation is known."""
    sizes = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    buffers = {key: torch.tensor(value) for key, value in sizes.items()}
    assert same(tmp_path / "m", save_weights(f"{name}-quickgelu", tmp_path / "m", **buffers))


def test_files_alone_identify_a_clip_without_a_config(tmp_path: Path) -> None:
    """From OpenAI's archive to a teacher, without a single option."""
    sizes = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    model = save_weights("kdkit-vit-quickgelu", tmp_path / "m")
    (tmp_path / "m" / "best.safetensors").unlink()
    torch.save({**model.state_dict(), **{key: torch.tensor(n) for key, n in sizes.items()}}, tmp_path / "m" / "a.pt")
    facts, ours = add_by_files(tmp_path / "m", tmp_path / "project")
    assert (facts.loader, facts.options) == ("open_clip", {})
    tokens = open_clip.get_tokenizer("ViT-B-32")(TEXTS)
    with torch.no_grad():
        assert close(ours.encode_text(TEXTS), model.encode_text(tokens))


def test_a_bare_model_cfg_of_any_name_is_a_config(tmp_path: Path) -> None:
    """As FetalCLIP is published."""
    model = save_weights("kdkit-vit-quickgelu", tmp_path / "m")
    (tmp_path / "m" / "FetalCLIP_config.json").write_text(json.dumps({**VIT, "quick_gelu": True}), encoding="utf-8")
    assert same(tmp_path / "m", model)


def test_names_of_wrappers_are_no_obstacle(tmp_path: Path) -> None:
    model = save_weights("kdkit-vit", tmp_path / "m")
    names = {f"module._orig_mod.{name}": value for name, value in model.state_dict().items()}
    save_file(names, tmp_path / "m" / "best.safetensors")
    assert same(tmp_path / "m", model, arch="kdkit-vit")


def test_sizes_that_no_architecture_has_are_told(tmp_path: Path) -> None:
    model = save_weights("kdkit-vit", tmp_path / "m")
    state = model.state_dict()
    state["positional_embedding"] = torch.zeros(117, 32)
    save_file(state, tmp_path / "m" / "best.safetensors")
    with raises_error("KD-LOAD-100", mentions=("117 tokens", "patches of 8", "32 pixels")):
        load_open_clip(tmp_path / "m")


def test_sizes_of_known_models_are_unique_up_to_their_activation() -> None:
    clip = Sizes(512, (224, 768, 12, 32), (77, 49408, 512, 12))
    assert matching_architectures(clip) == ["ViT-B-32", "ViT-B-32-quickgelu"]
    resnet = Sizes(1024, (224, 64, (3, 4, 6, 3), None), (77, 49408, 512, 12))
    assert matching_architectures(resnet) == ["RN50", "RN50-quickgelu"]


def test_other_weights_are_left_to_other_loaders() -> None:
    assert find_architecture({"vision_model.embeddings.class_embedding": (8,)}, "here") is None


def test_one_of_several_files_is_named_or_listed(tmp_path: Path) -> None:
    model = save_weights("kdkit-vit", tmp_path / "m")
    (tmp_path / "m" / "run").mkdir()
    for name in ("a.safetensors", "run/last.safetensors"):
        save_file(model.state_dict(), tmp_path / "m" / name)
    with raises_error("KD-LOAD-022", mentions=("a.safetensors, best.safetensors",)):
        load_open_clip(tmp_path / "m", arch="kdkit-vit")
    assert same(tmp_path / "m", model, arch="kdkit-vit", weights="run/last.safetensors")
    with raises_error("KD-LOAD-022"):
        load_open_clip(tmp_path / "m" / "run", arch="kdkit-vit", weights="../a.safetensors")
