"""LoRA adapters on a dual encoder: the features of peft, and only on the base that they were trained on."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from kdkit.core.base.errors import ExitCode
from kdkit.plugins.loaders.transformers_clip import load_transformers_clip
from tests.errors import raises_error
from tests.tiny_models import TEXTS, close, make_transformers_clip_folder, pictures

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {"target_modules": ["q_proj", "v_proj"]},
    "DoRA": {"target_modules": ["q_proj", "fc1"], "use_dora": True, "use_rslora": True},
    "whole modules": {"target_modules": ["q_proj"], "modules_to_save": ["post_layernorm"]},
}


def write_adapters(base: Path, to: Path, **settings: Any) -> Path:
    """Adapters with random weights, and their base in ``base/``."""
    shutil.copytree(base, to / "base")
    model: Any = transformers.AutoModel.from_pretrained(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, **settings))
        for name, parameter in adapted.named_parameters():
            if "lora" in name or "modules_to_save" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(str(to))
    edit(to / "adapter_config.json", base_model_name_or_path="org/base")
    return to


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


@pytest.fixture(scope="module")
def adapters(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapters(folders["clip"], tmp_path_factory.mktemp("adapters") / "clip", **KINDS["LoRA"])


@pytest.fixture
def folder(adapters: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapters, tmp_path / "copy"))


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_features_equal_peft(
    settings: dict[str, Any], folders: dict[str, Path], encoders: dict[str, Any], tmp_path: Path
) -> None:
    folder = write_adapters(folders["siglip"], tmp_path / "m", **settings)
    reference: Any = peft.PeftModel.from_pretrained(
        transformers.AutoModel.from_pretrained(folders["siglip"]),
        str(folder),
    ).eval()
    ours, base = load_transformers_clip(folder), encoders["siglip"]
    pixels = torch.stack([ours.preprocess(image) for image in pictures()])
    tokens = transformers.AutoTokenizer.from_pretrained(folders["siglip"])(
        TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        assert close(ours.encode_image(pixels), reference.get_image_features(pixel_values=pixels).pooler_output, 1e-5)
        assert close(ours.encode_text(TEXTS), reference.get_text_features(input_ids=tokens).pooler_output, 1e-5)
    assert not close(ours.encode_image(pixels), base.encode_image(pixels), 1e-2)


def test_a_base_may_record_the_model_that_it_was_tuned_from(folder: Path) -> None:
    edit(folder / "base" / "config.json", _name_or_path="org/ancestor")
    load_transformers_clip(folder)


def test_an_adapter_of_another_base_is_refused_by_its_shapes(folder: Path) -> None:
    shutil.rmtree(folder / "base")
    make_transformers_clip_folder(folder / "base", embed_dim=48)
    with raises_error("KD-LOAD-099"):
        load_transformers_clip(folder)


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_every_adapter_must_have_a_place(folder: Path, change: str) -> None:
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    name = next(iter(state))
    state[name.replace("layers.0", "layers.7")] = (state.pop(name) if change == "missing" else state[name]).clone()
    save_file(state, path)
    with raises_error("KD-LOAD-099", mentions=(change,)):
        load_transformers_clip(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": "IA3"},
        {"init_lora_weights": "pissa"},
        {"alora_invocation_tokens": [1, 2]},
        {"megatron_config": {"hidden_size": 8}, "megatron_core": "chosen_by_the_file"},
        {"scaling_of_a_newer_peft": 0.5},
        {"scaling_of_a_newer_peft_that_is_off": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_that_change_more_than_a_plain_sum_are_refused(folder: Path, change: dict[str, Any]) -> None:
    edit(folder / "adapter_config.json", **change)
    with raises_error("KD-LOAD-098", mentions=(next(iter(change)),)):
        load_transformers_clip(folder)


def test_settings_that_are_off_are_no_obstacle(folder: Path) -> None:
    """A newer peft writes null for settings that this one does not know; of others, 0 and false may mean anything."""
    edit(folder / "adapter_config.json", use_qalora=False, newer_config=None, megatron_core="chosen_by_the_file")
    load_transformers_clip(folder)
    assert "chosen_by_the_file" not in sys.modules


def test_a_missing_base_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "base")
    with raises_error("KD-LOAD-096", mentions=("org/base",), code=ExitCode.MISSING):
        load_transformers_clip(folder)


def test_peft_is_named_where_it_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with raises_error("KD-LOAD-097", code=ExitCode.MISSING) as caught:
        load_transformers_clip(folder)
    assert caught.value.fix == "pip install 'kdkit[adapters]'"
