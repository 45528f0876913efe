"""The loader of a folder, by its files and its config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from kdkit.core.contracts import LoaderSpec
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.teachers.recognize import recognize_loader
from kdkit.plugins.loaders.layouts import MEDCLIP, PMC_CLIP, UNIMED_CLIP
from tests.errors import raises_error

QWEN, CLIP = {"model_type": "qwen2_vl"}, {"model_type": "clip"}
STUDENT = {"clinkd.json": {}, "config.json": {"model_type": "qwen2_5_vl"}, "preprocessor_config.json": {}}
DUAL = {"open_clip_config.json": {}, "config.json": CLIP, "preprocessor_config.json": {}}
RECORD = {"student": ["open_clip_config.json", "open_clip_model.safetensors"]}


def recognized(folder: Path, files: dict[str, Any]) -> str:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")
    return recognize_loader(load_catalogue().specs(LoaderSpec), folder, "local:here")


@pytest.mark.parametrize(
    ("files", "loader"),
    [
        (STUDENT, "image-text-to-text"),
        ({**STUDENT, "kdkit.json": {"student": [*STUDENT]}}, "image-text-to-text"),
        ({"clinkd.json": {}, "adapter_config.json": {}}, "image-text-to-text"),
        ({"adapter_config.json": {}, "adapter_model.safetensors": ""}, "transformers"),
        ({"config.json": QWEN, "preprocessor_config.json": {}}, "image-text-to-text"),
        ({"config.json": CLIP, "preprocessor_config.json": {}}, "transformers"),
        ({"open_clip_config.json": {}, "config.json": {"model_type": "bert"}}, "open_clip"),
        ({**DUAL, "kdkit.json": RECORD}, "open_clip"),
        ({"open_clip_config.json": {}, "config.json": "[]"}, "open_clip"),
    ],
    ids=[
        "student",
        "published student",
        "adapters of a student",
        "adapters",
        "qwen",
        "clip",
        "own text tower",
        "two forms",
        "no object",
    ],
)
def test_a_folder_is_recognized(files: dict[str, Any], loader: str, tmp_path: Path) -> None:
    assert recognized(tmp_path, files) == loader


@pytest.mark.parametrize(("keys", "loader"), [(UNIMED_CLIP, "open_clip"), (PMC_CLIP, "pmc-clip"), (MEDCLIP, "medclip")])
def test_weights_without_a_config_are_recognized_by_their_names(
    keys: tuple[str, ...], loader: str, tmp_path: Path
) -> None:
    weights = {name: torch.zeros(1) for name in (*keys, "logit_scale")}
    save_file(weights, tmp_path / "a.safetensors")
    assert recognized(tmp_path, {}) == loader
    assert recognized(tmp_path, {"config.json": CLIP}) == "transformers", "a config decides"
    (tmp_path / "config.json").unlink()
    save_file(dict(list(weights.items())[1:]), tmp_path / "a.safetensors")
    for damage in (lambda: None, lambda: (tmp_path / "a.safetensors").write_bytes(b"x" * 9)):
        damage()
        with raises_error("KD-TEACH-016", mentions=(f"{loader} needs", f"weights with {keys[0]}")):
            recognized(tmp_path, {})


@pytest.mark.parametrize(
    "record",
    [{}, {"kdkit.json": "{"}],
)
def test_two_forms_without_a_record_are_ambiguous(record: dict[str, Any], tmp_path: Path) -> None:
    with raises_error("KD-TEACH-015", where="local:here", mentions=("open_clip", "transformers")):
        recognized(tmp_path, {**DUAL, **record})


@pytest.mark.parametrize("config", [{"architecture": "vit"}, {}, '{"model_type": ["clip"]}', "not JSON"])
def test_an_unknown_model_is_refused(config: Any, tmp_path: Path) -> None:
    with raises_error("KD-TEACH-016", where="local:here", mentions=("aimv2", "clinkd.json", "qwen2_5_vl")):
        recognized(tmp_path, {"config.json": config, "preprocessor_config.json": {}})


def test_a_type_that_no_loader_knows(tmp_path: Path) -> None:
    config = {"model_type": "qwen3_vl_moe", "auto_map": {"AutoModel": "x.X"}}
    with raises_error(
        "KD-TEACH-480", where="local:here", mentions=("'qwen3_vl_moe'", "auto_map", "qwen3_vl (loader image-text")
    ):
        recognized(tmp_path, {"config.json": config})
    with raises_error("KD-TEACH-480", mentions=("'vits'", "--loader", "image-text-to-text")):
        recognized(tmp_path, {"config.json": {"model_type": "vits"}})
