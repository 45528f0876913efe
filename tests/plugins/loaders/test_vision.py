"""Vision models without text: the features of stock transformers and timm, from complete folders only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from timm.layers import SwiGLUPacked
from timm.models._hub import save_for_hf

from kdkit.core.contracts import LoaderSpec, Sample, SignalSource
from kdkit.core.teachers.probe import probe
from kdkit.core.teachers.recognize import recognize_loader
from kdkit.plugins.loaders import kdkit_loaders
from kdkit.plugins.loaders.image_encoder import ImageEncoder
from kdkit.plugins.loaders.timm_vision import load_timm
from kdkit.plugins.loaders.transformers_vision import load_transformers_vision
from tests.errors import raises_error
from tests.tiny_models import close, pictures

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TILE = {"image_size": 28, "patch_size": 14}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SIDES: dict[str, Any] = {"size": {"height": 28, "width": 28}}
BIT: dict[str, Any] = {
    **IMAGENET,
    "size": {"shortest_edge": 30},
    "crop_size": {"height": 28, "width": 28},
    "resample": 3,
}
MODELS: dict[str, tuple[Any, Any, Any]] = {
    # RAD-DINO and Phikon-v2 have this model and processor
    "dinov2": (transformers.Dinov2Model, transformers.Dinov2Config(**SMALL, **TILE), ("BitImageProcessor", BIT)),
    "dinov2_with_registers": (
        transformers.Dinov2WithRegistersModel,
        transformers.Dinov2WithRegistersConfig(**SMALL, **TILE, num_register_tokens=4),
        ("BitImageProcessor", BIT),
    ),
    "dinov3_vit": (
        transformers.DINOv3ViTModel,
        transformers.DINOv3ViTConfig(**SMALL, **TILE, num_register_tokens=4),
        ("DINOv3ViTImageProcessor", {**IMAGENET, **SIDES}),
    ),
    "vit": (transformers.ViTModel, transformers.ViTConfig(**SMALL, **TILE), ("ViTImageProcessor", SIDES)),
    "convnext": (
        transformers.ConvNextModel,
        transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], image_size=32),
        ("ConvNextImageProcessor", {**IMAGENET, "size": {"shortest_edge": 32}, "crop_pct": 0.875}),
    ),
    "swin": (
        transformers.SwinModel,
        transformers.SwinConfig(
            embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=2, image_size=32, patch_size=4
        ),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    ),
}


@pytest.fixture(scope="module")
def transformers_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model type -> a folder as ``save_pretrained`` writes it."""
    root, folders = tmp_path_factory.mktemp("vision"), dict[str, Path]()
    torch.manual_seed(0)
    for name, (model, config, (processor, settings)) in MODELS.items():
        folders[name] = root / name
        model(config).save_pretrained(folders[name])
        described = {"image_processor_type": processor, "do_resize": True, "do_normalize": True, **settings}
        (folders[name] / "preprocessor_config.json").write_text(json.dumps(described))
    return folders


def timm_folder(folder: Path, arch: str, model_args: dict[str, Any], data: dict[str, Any], **code: Any) -> Path:
    """A folder as timm's ``push_to_hf_hub`` writes it; ``code``: arguments that the authors pass in code."""
    torch.manual_seed(0)
    model: Any = timm.create_model(arch, pretrained=False, **model_args, **code)
    model.pretrained_cfg = {**model.pretrained_cfg, **data, "num_classes": model.num_classes}
    if code:  # which the config cannot hold
        folder.mkdir()
        config = {"architecture": arch, "pretrained_cfg": DATA, "model_args": model_args}
        (folder / "config.json").write_text(json.dumps(config))
        save_file(model.state_dict(), folder / "model.safetensors")
    else:
        save_for_hf(model, folder, model_args=model_args, safe_serialization=True)
    return folder


VIT: dict[str, Any] = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
DATA: dict[str, Any] = {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.7, 0.5, 0.7]}
RESNET: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 32]}


def stacked(encoder: ImageEncoder) -> torch.Tensor:
    return torch.stack([encoder.prepare(image, Sample("x", Path("x.png"), "", "ct")) for image in pictures()])


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
    assert set(probe(default, name)) == {"image"}
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


@pytest.mark.parametrize(
    ("arch", "model_args", "code", "options"),
    [
        # UNI: init_values, dynamic_img_size; H-optimus: registers; Virchow2, UNI2: packed SwiGLU, passed in code
        ("vit_tiny_patch16_224", {**VIT, "init_values": 1e-5, "dynamic_img_size": True}, {}, {}),
        ("vit_tiny_patch16_224", {**VIT, "reg_tokens": 4, "no_embed_class": True, "num_classes": 0}, {}, {}),
        (
            "vit_tiny_patch16_224",
            {**VIT, "reg_tokens": 4, "global_pool": "", "num_classes": 0},
            {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU},
            {"pooling": "cls+mean", "mlp": "swiglu-packed", "args": {"act_layer": "silu"}},
        ),
        ("resnet18", RESNET, {}, {}),
    ],
    ids=["uni", "h-optimus", "virchow2", "resnet"],
)
def test_features_equal_stock_timm(
    tmp_path: Path, arch: str, model_args: dict[str, Any], code: dict[str, Any], options: dict[str, Any]
) -> None:
    folder = timm_folder(tmp_path / "m", arch, model_args, DATA, **code)
    stock: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, **code).eval()
    transform: Any = create_transform(**resolve_model_data_config(stock), is_training=False)
    pixels = torch.stack([transform(image) for image in pictures()])
    with torch.no_grad():
        wanted = stock(pixels)
    if "pooling" in options:  # as Virchow2's card has it
        wanted = torch.cat([wanted[:, 0], wanted[:, 5:].mean(1)], dim=-1)
    ours = load_timm(folder, **options)
    assert torch.equal(stacked(ours), pixels)
    assert ours.signals[0].shape == (wanted.shape[1],)
    assert close(ours.compute(list(pixels))["image"], wanted)
    assert set(probe(ours, arch)) == {"image"}
    assert recognize_loader(kdkit_loaders(), folder, arch) == "timm"


def test_bare_weights_with_an_architecture(tmp_path: Path) -> None:
    """As RETFound: a masked autoencoder's state dict, with a decoder that the features do not need."""
    folder = tmp_path / "m"
    folder.mkdir()
    model: Any = timm.create_model("vit_tiny_patch16_224", num_classes=0, **VIT).eval()
    tensors = {**model.state_dict(), "decoder_pred.weight": torch.zeros(2), "mask_token": torch.zeros(1)}
    save_file(tensors, folder / "retfound.safetensors")
    data = {"input_size": [3, 32, 32], "mean": [0.485, 0.456, 0.406], "crop_pct": 0.875}
    options: dict[str, Any] = {"arch": "vit_tiny_patch16_224", "args": VIT, "data": data, "pooling": "mean"}
    ours = load_timm(folder, **options, ignore=["decoder_"])
    assert "0.485" in ours.identity()["preprocessing"]
    pixels = stacked(ours)
    with torch.no_grad():
        wanted = model.forward_features(pixels)[:, 1:].mean(1)
    assert close(ours.compute(list(pixels))["image"], wanted)
    with raises_error("KD-LOAD-081", mentions=("decoder_pred.weight",)):
        load_timm(folder, **options)
    with raises_error("KD-LOAD-081", mentions=("'means'", "mean")):
        load_timm(folder, **{**options, "data": {"means": 1}})


def test_only_the_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config that names another place has no effect."""
    folder = timm_folder(tmp_path / "m", "resnet18", RESNET, DATA)
    before = load_timm(folder)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"url": "http://192.0.2.1/x.pth", "hf_hub_id": "other/model", "file": "/etc/passwd"}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pixels = list(stacked(before))
    assert torch.equal(load_timm(folder).compute(pixels)["image"], before.compute(pixels)["image"])


@pytest.mark.parametrize(
    ("change", "mentions"),
    [
        ({"architecture": "resnet_18"}, ("resnet_18", "resnet18")),
        ({"architecture": "hf-hub:other/model"}, ("hf-hub:other/model",)),
        ({"model_args": {**RESNET, "channels": [8, 8, 16, 64]}}, ("size mismatch",)),
        ({"model_args": {**RESNET, "layerz": 3}}, ("layerz",)),
    ],
)
def test_timm_folders_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, Any], mentions: tuple[str, ...]
) -> None:
    folder = timm_folder(tmp_path / "m", "resnet18", RESNET, DATA)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with raises_error("KD-LOAD-081", mentions=mentions):
        load_timm(folder)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with raises_error("KD-LOAD-081", mentions=("config.json",)):
        load_timm(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with raises_error("KD-LOAD-071", mentions=("bert",)):
        load_transformers_vision(tmp_path)
    with raises_error("KD-LOAD-081", mentions=("architecture",)):
        load_timm(tmp_path)
    assert all(isinstance(spec, LoaderSpec) for spec in kdkit_loaders())
