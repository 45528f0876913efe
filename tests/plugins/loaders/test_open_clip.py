"""The open_clip loader gives the features of stock open_clip, from complete folders only."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from kdkit.plugins.loaders.open_clip import OpenClipEncoder, load_open_clip
from tests.errors import raises_error
from tests.tiny_models import (
    BIOMED_TEXT_TOWER,
    TEXTS,
    WORDS,
    close,
    make_biomedclip_folder,
    make_open_clip_folder,
    open_clip_config,
    pictures,
)


def stock_biomedclip(folder: Path, scratch: Path) -> str:
    """A copy with the text tower's config where stock open_clip expects it."""
    shutil.copytree(folder, scratch)
    config = json.loads((scratch / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = str(scratch / "text")
    (scratch / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{scratch}"


@pytest.mark.parametrize("name", ["open_clip", "biomedclip"])
def test_features_equal_stock_open_clip(
    name: str, folders: dict[str, Path], encoders: dict[str, Any], tmp_path: Path
) -> None:
    source = f"local-dir:{folders[name]}"
    if name == "biomedclip":
        source = stock_biomedclip(folders[name], tmp_path / "repaired")
    model, _, transform = open_clip.create_model_and_transforms(source)
    tokenizer, ours = open_clip.get_tokenizer(source), encoders[name]
    model.eval()
    pixels = torch.stack([transform(image) for image in pictures()])
    assert torch.equal(torch.stack([ours.preprocess(image) for image in pictures()]), pixels)
    assert torch.equal(ours.tokenizer(TEXTS), tokenizer(TEXTS))
    with torch.no_grad():
        assert close(ours.encode_image(pixels), model.encode_image(pixels))
        assert close(ours.encode_text(TEXTS), model.encode_text(tokenizer(TEXTS)))


def test_published_layout_with_pickled_tensors_gives_the_same_features(
    encoders: dict[str, Any], tmp_path: Path
) -> None:
    """BiomedCLIP's authors publish a .bin; the text tower's config may also lie beside it."""
    folder = make_biomedclip_folder(tmp_path / "m", text_repo=tmp_path / "tower", weights="bin")
    with raises_error("KD-LOAD-023", mentions=(BIOMED_TEXT_TOWER,)):
        load_open_clip(folder)
    shutil.copy(tmp_path / "tower" / "config.json", folder / "config.json")
    assert close(load_open_clip(folder).encode_text(TEXTS), encoders["biomedclip"].encode_text(TEXTS))


def test_the_text_tower_uses_the_first_token(encoders: dict[str, Any]) -> None:
    """cls_last_hidden_state_pooler, then the projection: written out by hand."""
    encoder: OpenClipEncoder = encoders["biomedclip"]
    tower: Any = encoder.model.text
    tokens = encoder.tokenizer(TEXTS)
    with torch.no_grad():
        hidden = tower.transformer(input_ids=tokens, attention_mask=(tokens != 0).long()).last_hidden_state
        assert close(encoder.encode_text(TEXTS), tower.proj(hidden[:, 0]))
    assert tokens.shape == (4, 256)


def test_identity_follows_preprocessing_and_tokenizer_not_weights(tmp_path: Path) -> None:
    first = load_open_clip(make_open_clip_folder(tmp_path / "a")).identity()
    assert load_open_clip(make_open_clip_folder(tmp_path / "b", seed=1)).identity() == first
    words = (*WORDS[:-2], WORDS[-1], WORDS[-2])
    other = load_open_clip(make_open_clip_folder(tmp_path / "c", words=words)).identity()
    assert {key for key in first if other[key] != first[key]} == {"tokenizer"}
    larger = load_open_clip(make_open_clip_folder(tmp_path / "d", image_size=40)).identity()
    assert {key for key in first if larger[key] != first[key]} == {"preprocessing"}


def test_reduced_precision_stays_near(folders: dict[str, Path], encoders: dict[str, Any]) -> None:
    half = load_open_clip(folders["open_clip"], precision="bf16")
    pixels = torch.stack([half.preprocess(image) for image in pictures()])
    features, exact = half.encode_image(pixels), encoders["open_clip"].encode_image(pixels)
    assert features.dtype == torch.float32
    assert 1e-6 < float((features - exact).abs().max()) < 0.1 * float(exact.abs().max())
    assert half.identity() != encoders["open_clip"].identity()


def test_copies_and_pickles_of_the_tokenizer_agree(encoders: dict[str, Any]) -> None:
    tokenizer = encoders["biomedclip"].tokenizer
    assert copy.deepcopy(tokenizer) is tokenizer
    again = pickle.loads(pickle.dumps(tokenizer))  # noqa: S301  # as in a data loader's worker
    assert torch.equal(again(TEXTS), tokenizer(TEXTS))


def test_weights_only_folder_of_an_architecture_known_by_name(tmp_path: Path) -> None:
    """As BMC-CLIP is published: one file with ``module.`` prefixes; open_clip's own BPE tokenizer."""
    model_cfg = open_clip_config(embed_dim=24)
    model_cfg["text_cfg"] |= {"vocab_size": 49408, "hf_tokenizer_name": None}
    (tmp_path / "kdkit-tiny-arch.json").write_text(json.dumps(model_cfg))
    open_clip.add_model_config(tmp_path / "kdkit-tiny-arch.json")
    model = open_clip.create_model("kdkit-tiny-arch").eval()
    torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, tmp_path / "X.pt")
    encoder = load_open_clip(tmp_path, arch="kdkit-tiny-arch", weights="X.pt")
    tokens = open_clip.get_tokenizer("kdkit-tiny-arch")(TEXTS)
    assert torch.equal(encoder.tokenizer(TEXTS), tokens)
    with torch.no_grad():
        assert close(encoder.encode_text(TEXTS), model.encode_text(tokens))
    assert encoder.embed_dim == 24


def damage_config(folder: Path) -> None:
    (folder / "open_clip_config.json").unlink()


def damage_no_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()


def damage_truncated(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_missing_key(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    tensors = load_file(path)
    del tensors["text_projection"]
    save_file(tensors, path)


def damage_extra_key(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    save_file({**load_file(path), "visual.surprise": torch.zeros(1)}, path)


def damage_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def damage_tokenizer_content(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def damage_json(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text('{"model_cfg": ')


def damage_no_model_cfg(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text("{}")


def damage_unknown_field(folder: Path) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"]["color"] = "blue"
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("folder", ["open_clip"], indirect=True)
@pytest.mark.parametrize(
    ("damage", "id"),
    [
        (damage_config, "KD-LOAD-100"),
        (damage_no_weights, "KD-LOAD-022"),
        (damage_truncated, "KD-BASE-040"),
        (damage_missing_key, "KD-LOAD-028"),
        (damage_extra_key, "KD-LOAD-028"),
        (damage_tokenizer, "KD-LOAD-023"),
        (damage_tokenizer_content, "KD-LOAD-029"),
        (damage_json, "KD-LOAD-025"),
        (damage_no_model_cfg, "KD-LOAD-020"),
        (damage_unknown_field, "KD-LOAD-028"),
    ],
)
def test_a_damaged_folder_is_refused(folder: Path, damage: Callable[[Path], None], id: str) -> None:
    damage(folder)
    with raises_error(id) as caught:
        load_open_clip(folder)
    assert caught.value.where


def test_unknown_architecture_suggests_a_known_one(tmp_path: Path) -> None:
    with raises_error("KD-LOAD-021", mentions=("'ViT-B-16'",)):
        load_open_clip(tmp_path, arch="ViT-B-61")
