"""Models of timm without text: the features of stock timm, from complete folders only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision  # type: ignore[import-untyped]
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from timm.layers import SwiGLUPacked

from kdkit.core.contracts import Sample
from kdkit.core.teachers.probe import probe
from kdkit.core.teachers.recognize import recognize_loader
from kdkit.plugins.loaders import kdkit_loaders
from kdkit.plugins.loaders.timm_vision import load_timm
from tests.errors import raises_error
from tests.plugins.loaders.vision_models import DATA, RESNET, VIT, stacked, timm_folder
from tests.tiny_models import close, pictures


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
    assert set(probe(ours, arch).signals) == {"image"}
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


def test_a_net_of_gray_images_of_another_library(tmp_path: Path) -> None:
    """As TorchXRayVision's: torchvision's names, one channel from -1024 to 1024, a config that is none of timm's."""
    folder = tmp_path / "m"
    folder.mkdir()
    net: Any = torchvision.models.resnet18(num_classes=3)
    net.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    net.eval()
    save_file(net.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text('{"labels": ["a", "b", "c"]}')
    data = {"input_size": [1, 32, 32], "mean": [0.5], "std": [1 / 2048], "interpolation": "bilinear", "crop_pct": 1.0}
    ours = load_timm(folder, arch="resnet18", args={"in_chans": 1}, data=data)
    gray = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    images = [Image.fromarray(picture).convert("RGB") for picture in gray]
    pixels = torch.stack([ours.prepare(image, Sample("x", Path("x.png"), "", "xray")) for image in images])
    wanted = (2 * (gray[:, None].astype(np.float32) / 255) - 1) * 1024
    assert np.abs(pixels.numpy() - wanted).max() == 0
    with torch.no_grad():
        net.fc = torch.nn.Identity()
        features = net(torch.from_numpy(wanted))
    assert close(ours.compute(list(pixels))["image"] / features.abs().max(), features / features.abs().max())
    assert "gray" in ours.identity()["preprocessing"]
    with raises_error("KD-LOAD-081", mentions=("size mismatch",)):
        load_timm(folder, arch="resnet18")


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
    with raises_error("KD-LOAD-081", mentions=("architecture",)):
        load_timm(tmp_path)
