"""Students of two towers, beside the stock forward of each; other resolutions; gradient checkpointing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from torch.nn import functional as F

from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.plugins.loaders.open_clip import load_open_clip
from kdkit.plugins.students.open_clip import OpenClipStudent, create_student, load_student
from kdkit.plugins.students.open_clip_publish import publish
from tests.errors import raises_error
from tests.tiny_models import (
    TEXTS,
    WORDS,
    close,
    make_bert_folder,
    make_biomedclip_folder,
    make_open_clip_folder,
    make_transformers_clip_folder,
    open_clip_config,
    pictures,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("towers")
    return {
        "clip": make_transformers_clip_folder(root / "clip", embed_dim=32),
        "bert": make_bert_folder(root / "bert"),
        "open_clip": make_open_clip_folder(root / "open_clip"),
        "biomedclip": make_biomedclip_folder(root / "biomedclip"),
    }


def student_of(made: dict[str, Path], image: str, text: str, **config: Any) -> OpenClipStudent:
    torch.manual_seed(0)
    init = {"image": str(made[image]), "text": str(made[text])}
    return create_student(init=init, **config).eval()


@torch.no_grad()
def test_towers_of_transformers_equal_their_stock_forward(made: dict[str, Path]) -> None:
    student = student_of(made, "clip", "bert")
    clip = transformers.CLIPModel.from_pretrained(made["clip"]).eval()
    pixels = torch.rand(3, 3, 32, 32)
    stock = clip.get_image_features(pixels)
    assert close(student.encode_image(pixels), getattr(stock, "pooler_output", stock))

    bert = transformers.AutoModel.from_pretrained(made["bert"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(made["bert"])
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=256, return_tensors="pt")
    hidden = bert(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    text: Any = student.model.text
    assert close(student.encode_text(TEXTS), text.proj(hidden[:, 0]))
    assert [tuple(layer.weight.shape) for layer in text.proj if hasattr(layer, "weight")] == [(40, 48), (32, 40)]
    assert student.outputs == {"image": 32, "text": 32}

    averaged = student_of(made, "clip", "bert", text_pooling="mean", text_projection="linear", embed_dim=24)
    mask = tokens["attention_mask"][..., None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    assert close(averaged.encode_text(TEXTS), averaged.model.text.proj(mean))  # type: ignore[operator, union-attr]
    assert averaged.encode_image(pixels).shape == (3, 24)


@torch.no_grad()
def test_an_image_tower_of_timm_gives_its_own_features(made: dict[str, Path], tmp_path: Path) -> None:
    for arch in ("test_vit", "test_convnext"):
        folder = tmp_path / arch
        folder.mkdir()
        torch.manual_seed(1)
        stock: Any = timm.create_model(arch, num_classes=5).eval()
        save_file(stock.state_dict(), folder / "model.safetensors")
        data = {"input_size": [3, 160, 160], "mean": [0.1, 0.2, 0.3], "std": [0.5] * 3, "interpolation": "bilinear"}
        described = {"architecture": arch, "num_classes": 5, "pretrained_cfg": data}
        (folder / "config.json").write_text(json.dumps(described))
        student = student_of({**made, "timm": folder}, "timm", "bert", embed_dim=24)
        pixels, visual = torch.rand(2, 3, 160, 160), student.model.visual
        own = stock.forward_head(stock.forward_features(pixels), pre_logits=True)
        assert close(visual.trunk(pixels), own)  # type: ignore[operator, union-attr]
        assert close(student.encode_image(pixels), visual.head(own))  # type: ignore[operator, union-attr]
        assert student.preprocess(pictures()[0]).shape == (3, 160, 160)
        assert tuple(student.preprocess_cfg["mean"]) == (0.1, 0.2, 0.3)
    changed = {**described, "model_args": {"global_pool": "avg"}}
    (folder / "config.json").write_text(json.dumps(changed))
    with raises_error("KD-STUD-070", mentions=("global_pool",)):
        student_of({**made, "timm": folder}, "timm", "bert")


@torch.no_grad()
@pytest.mark.parametrize(("image", "text"), [("open_clip", "biomedclip"), ("biomedclip", "open_clip")])
def test_towers_of_open_clip_give_the_features_of_their_folders(made: dict[str, Path], image: str, text: str) -> None:
    student, own = student_of(made, image, text), {name: load_open_clip(made[name]) for name in (image, text)}
    pixels = torch.stack([student.preprocess(picture) for picture in pictures()])
    assert torch.equal(pixels, torch.stack([own[image].preprocess(picture) for picture in pictures()]))
    assert close(student.encode_image(pixels), own[image].encode_image(pixels))
    assert close(student.encode_text(TEXTS), own[text].encode_text(TEXTS))


@torch.no_grad()
def test_saved_and_exported_students_load_in_stock_open_clip(made: dict[str, Path], tmp_path: Path) -> None:
    student = student_of(made, "clip", "bert", gradient_checkpointing=True)
    student.save(tmp_path / "student")
    loaded = load_student(tmp_path / "student")
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert dict(loaded.config)["gradient_checkpointing"] is True

    publish(tmp_path / "student", tmp_path / "out", str(tmp_path / "out"), merged=False, skip={})
    stock, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")
    stock.eval()
    pixels = torch.stack([transform(picture) for picture in pictures()])
    assert close(stock.encode_image(pixels), student.encode_image(pixels))
    assert close(stock.encode_text(tokenizer(TEXTS)), student.encode_text(TEXTS))


@torch.no_grad()
@pytest.mark.parametrize("init", ["folder", "towers"])
def test_position_embeddings_follow_the_resolution(made: dict[str, Path], init: str) -> None:
    folder = made["open_clip"]
    if init == "folder":
        student = create_student(init=str(folder), resolution=48).eval()
    else:
        student = student_of(made, "open_clip", "bert", resolution=48)
    stock = open_clip.create_model(f"local-dir:{folder}", force_image_size=48).eval()
    pixels = torch.stack([student.preprocess(picture) for picture in pictures()])
    assert pixels.shape[-2:] == (48, 48)
    assert close(student.encode_image(pixels), stock.encode_image(pixels))
    before = load_open_clip(folder).model.visual.positional_embedding  # type: ignore[union-attr]
    grid = before[1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)  # type: ignore[index]
    finer = F.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True, align_corners=False)
    after: Any = student.model.visual.positional_embedding  # type: ignore[union-attr]
    assert close(after[1:], finer.permute(0, 2, 3, 1).reshape(36, -1))
    new = create_student(model_cfg=open_clip_config(), tokenizer={"words": list(WORDS)}, resolution=64)
    assert new.image_features(torch.rand(1, 3, 64, 64)).shape == (1, 32)


@pytest.mark.parametrize("text", ["bert", "open_clip"])
def test_gradient_checkpointing_changes_no_gradient(made: dict[str, Path], text: str) -> None:
    pixels, found = torch.rand(3, 3, 32, 32), []
    for on in (False, True):
        student = student_of(made, "open_clip", text, gradient_checkpointing=on)
        for module in student.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        out = student.train()({"pixels": pixels, "tokens": student.tokenizer(TEXTS[:3])})
        (out["image"] * out["text"]).sum().backward()
        found.append({name: p.grad for name, p in student.named_parameters() if p.grad is not None})
    assert set(found[0]) == set(found[1])
    assert all(close(found[1][name], grad, 1e-5) for name, grad in found[0].items())


def test_the_student_of_mmkd_is_one_name(made: dict[str, Path]) -> None:
    init = {"image": str(made["clip"]), "text": str(made["bert"])}
    student = load_catalogue().make("student", "mmkd", init=init)
    model_cfg = student.parts.model_cfg
    assert (model_cfg["embed_dim"], model_cfg["quick_gelu"], student.context_length) == (512, True, 256)
    assert [tuple(x.shape) for x in student.model.text.proj.parameters()] == [(280, 48), (512, 280)]
    assert student.training


def changed(folder: Path, to: Path, **config: Any) -> str:
    """A copy with other values in config.json; a value None removes the key."""
    shutil.copytree(folder, to)
    found = json.loads((to / "config.json").read_text()) | config
    (to / "config.json").write_text(json.dumps({key: value for key, value in found.items() if value is not None}))
    return str(to)


def test_folders_that_do_not_fit(made: dict[str, Path], tmp_path: Path) -> None:
    good = {name: str(path) for name, path in made.items()}
    wide = str(make_open_clip_folder(tmp_path / "wide", embed_dim=24))
    bare = str(shutil.copytree(made["bert"], tmp_path / "bare", ignore=shutil.ignore_patterns("*token*", "vocab*")))
    cut = Path(shutil.copytree(made["bert"], tmp_path / "cut"))
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:300])
    relu = json.loads((made["clip"] / "config.json").read_text())["vision_config"] | {"hidden_act": "relu"}
    cases: list[tuple[str, str, str, dict[str, Any]]] = [
        ("KD-STUD-060", wide, good["biomedclip"], {}),
        ("KD-STUD-061", good["clip"], wide, {"embed_dim": 24}),
        ("KD-STUD-062", good["biomedclip"], good["bert"], {"resolution": 320}),
        ("KD-STUD-063", good["clip"], good["bert"], {"resolution": 50}),
        ("KD-STUD-064", good["clip"], good["biomedclip"], {"text_pooling": "mean"}),
        ("KD-STUD-065", good["clip"], bare, {}),
        ("KD-STUD-066", good["clip"], good["bert"], {"text_pooling": "max"}),
        ("KD-STUD-066", good["clip"], good["bert"], {"context_length": 1024}),
        ("KD-STUD-067", good["clip"], changed(made["bert"], tmp_path / "pad", pad_token_id=None), {}),
        ("KD-STUD-068", good["clip"], str(cut), {}),
        ("KD-STUD-068", good["clip"], changed(made["bert"], tmp_path / "deep", num_hidden_layers=3), {}),
        ("KD-STUD-070", str(tmp_path), good["bert"], {}),
        ("KD-STUD-070", good["bert"], good["bert"], {}),
        ("KD-STUD-070", good["clip"], good["clip"], {}),
        ("KD-STUD-070", changed(made["clip"], tmp_path / "relu", vision_config=relu), good["bert"], {}),
    ]
    for id_, image, text, config in cases:
        with raises_error(id_):
            create_student(init={"image": image, "text": text}, **config)
    with raises_error("KD-STUD-058", where="student.config.init"):
        create_student(init={"image": good["clip"]})
    with raises_error("KD-STUD-064", where="student.config.embed_dim"):
        create_student(init=good["open_clip"], embed_dim=24)
    with raises_error("KD-STUD-062"):
        create_student(arch="RN50", resolution=320)
    with raises_error("KD-STUD-051"):
        create_student(init={"image": good["clip"], "text": good["bert"]}, tokenizer={"words": ["a"]})
