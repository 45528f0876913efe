"""UniMed-CLIP and MMKD-CLIP: weights of a fork of open_clip, without a config."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import save_file

from kdkit.plugins.loaders.open_clip import load_open_clip
from kdkit.plugins.loaders.open_clip_companions import find_companions
from kdkit.plugins.loaders.unimed_clip import unimed_clip_config
from kdkit.plugins.students.open_clip import create_student, load_student
from tests.errors import raises_error
from tests.local_hub import local_hub
from tests.plugins.loaders.original_layouts import CAPTIONS, add_by_files, gray_pictures, make_unimed_clip
from tests.tiny_models import close


def test_a_checkpoint_of_the_fork_gives_the_features_of_stock_open_clip(tmp_path: Path) -> None:
    """It is a teacher by its files alone, and a student starts from what was added."""
    stock, tokenizer = make_unimed_clip(tmp_path / "m")
    facts, ours = add_by_files(tmp_path / "m", tmp_path / "project")
    assert (facts.loader, facts.dims) == ("open_clip", {"image": 32, "text": 32})
    transform = image_transform_v2(PreprocessCfg(size=32), is_train=False)
    pixels = torch.stack([transform(image) for image in gray_pictures()])
    assert torch.equal(torch.stack([ours.preprocess(image) for image in gray_pictures()]), pixels)
    assert torch.equal(ours.tokenizer(CAPTIONS), tokenizer(CAPTIONS))
    with torch.no_grad():
        assert close(ours.encode_image(pixels), stock.encode_image(pixels))  # type: ignore[operator]
        assert close(ours.encode_text(CAPTIONS), stock.encode_text(tokenizer(CAPTIONS)))  # type: ignore[operator]

    student = create_student(init=str(tmp_path / "project/.kdkit/artifacts/mine"))
    student.save(tmp_path / "student")
    assert torch.equal(load_student(tmp_path / "student").encode_image(pixels), ours.encode_image(pixels))
    again = create_student(**student.config)
    assert again.tokenizer.identity() == ours.tokenizer.identity()


def test_published_sizes_follow_from_the_shapes() -> None:
    """L/14 at 336 pixels with BiomedBERT large; its architecture in UniMed-CLIP's ViT-L-14-336-quickgelu.json."""
    shapes = {"visual.conv1.weight": (1024, 3, 14, 14), "visual.positional_embedding": (577, 1024)}
    shapes |= {"visual.proj": (1024, 768)}
    shapes |= {f"visual.transformer.resblocks.{i}.attn.in_proj_weight": (3072, 1024) for i in range(24)}
    shapes["text_encoder.transformer.embeddings.word_embeddings.weight"] = (28895, 1024)
    config = unimed_clip_config(shapes)
    assert config["vision_cfg"] == {
        "image_size": 336,
        "layers": 24,
        "width": 1024,
        "head_width": 64,
        "patch_size": 14,
    }
    assert config["embed_dim"] == 768
    assert config["text_cfg"]["hf_model_name"] == "microsoft/BiomedNLP-BiomedBERT-large-uncased-abstract"


def test_the_text_tower_is_a_companion_of_the_weights(tmp_path: Path) -> None:
    make_unimed_clip(tmp_path / "m")
    shapes = torch.load(tmp_path / "m/unimed-clip-vit-b16.pt")["state_dict"]
    folder = tmp_path / "alone"
    folder.mkdir()
    save_file({name.removeprefix("module."): value for name, value in shapes.items()}, folder / "w.safetensors")
    tower = "hf:microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    first = next(find_companions(folder))
    assert (first.source, first.subfolder) == (tower, "text")
    with raises_error("KD-LOAD-023", mentions=(tower.removeprefix("hf:"),)):
        load_open_clip(folder)


def test_the_text_tower_is_fetched_for_a_pickle_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_unimed_clip(tmp_path / "m")
    (tmp_path / "m/text").rename(tmp_path / "text")
    tower = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    files = {path.name: path.read_bytes() for path in (tmp_path / "text").iterdir()}
    with local_hub(tmp_path / "server") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        commit = hub.add(tower, files | {"pytorch_model.bin": b"big"})
        facts, _ = add_by_files(tmp_path / "m", tmp_path / "project")
    assert facts.also == {"text": f"hf:{tower}@{commit}"}
    assert set(facts.files) == {"unimed-clip-vit-b16.safetensors", "text/config.json", "text/vocab.txt"}


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    make_unimed_clip(tmp_path / "m")
    tensors = torch.load(tmp_path / "m/unimed-clip-vit-b16.pt")["state_dict"]
    kept = {name.removeprefix("module."): value for name, value in tensors.items()}
    del kept["visual.ln_post.weight"]
    save_file({**kept, "visual.extra": torch.zeros(1)}, tmp_path / "m/w.safetensors")
    mentions = ("visual.ln_post.weight", "visual.extra", "UniMed-CLIP")
    with raises_error("KD-LOAD-028", mentions=mentions):
        load_open_clip(tmp_path / "m")
