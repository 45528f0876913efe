"""Adapters over 4-bit weights, on the CPU; a GPU was not at hand."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from kdkit.plugins.students.clinkd.create import load_student
from kdkit.plugins.students.clinkd.publish import publish
from kdkit.plugins.students.clinkd.settings import Settings
from tests.errors import raises_error
from tests.plugins.students.clinkd.stock import create, folder_of
from tests.plugins.students.clinkd.test_packing import inputs_of

LORA = {"r": 2, "targets": ["q_proj", "v_proj"], "quantize": "nf4"}
needs_library = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


@needs_library
@pytest.mark.parametrize("family", ["qwen3_vl", "smolvlm"])
def test_only_adapters_over_a_quantized_language_tower_are_trained(family: str, tmp_path: Path) -> None:
    """It is saved without its base, loads with equal states, and merges into whole weights of the same values."""
    student = create(family, lora=LORA)
    network = student.base
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    tower = f"model.{student.family.language}."
    four = {name for name, module in linear.items() if type(module).__name__ == "Linear4bit"}
    assert four == {name for name in linear if name.startswith(tower) and "lora_" not in name}
    assert {name for name, p in student.named_parameters() if p.requires_grad} == {
        name for name, _ in student.named_parameters() if "lora_" in name
    }
    inputs = inputs_of(student)
    trained = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (student(inputs)["answer_hidden"] - 1).square().mean()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[0]
    with torch.no_grad():
        states = student(inputs)["answer_hidden"]
    student.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob("model*.safetensors"))
    again = load_student(tmp_path / "saved")
    assert again.settings.lora is not None
    assert again.settings.lora.quantize == "nf4"
    with torch.no_grad():
        torch.testing.assert_close(again(inputs)["answer_hidden"], states, rtol=1e-5, atol=1e-6)
        whole = load_student(tmp_path / "saved", dequantized=True)
        torch.testing.assert_close(whole(inputs)["answer_hidden"], states, rtol=1e-3, atol=1e-3)
    made = publish(tmp_path / "saved", tmp_path / "merged", "me/merged", merged=True, skip={})
    assert any("4-bit" in note for note in made.notes)
    merged = load_student(tmp_path / "merged")
    assert merged.settings.lora is None
    with torch.no_grad():
        torch.testing.assert_close(merged(inputs)["answer_hidden"], states, rtol=1e-3, atol=1e-3)


def test_settings() -> None:
    with raises_error("KD-STUD-553", mentions=("nf5",)) as caught:
        Settings.of({"lora": {"quantize": "nf5"}})
    assert "nf4" in caught.value.fix


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else found(name, *a)
    )
    with raises_error("KD-STUD-551") as caught:
        create("qwen3_vl", lora=LORA)
    assert caught.value.fix == "pip install 'kdkit[qlora]'"


@needs_library
def test_a_base_that_is_quantized_already_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for path in folder_of("qwen3_vl").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with raises_error("KD-STUD-426"):
        create("qwen3_vl", folder, lora=LORA)
