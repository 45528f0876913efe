"""The loader of a folder, by its files and its config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import LoaderSpec
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.teachers.recognize import recognize_loader
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
        (STUDENT, "qwen2-vl"),
        ({**STUDENT, "kdkit.json": {"student": [*STUDENT]}}, "qwen2-vl"),
        ({"clinkd.json": {}, "adapter_config.json": {}}, "qwen2-vl"),
        ({"config.json": QWEN, "preprocessor_config.json": {}}, "qwen2-vl"),
        ({"config.json": CLIP, "preprocessor_config.json": {}}, "transformers"),
        ({"open_clip_config.json": {}, "config.json": {"model_type": "bert"}}, "open_clip"),
        ({**DUAL, "kdkit.json": RECORD}, "open_clip"),
        ({"open_clip_config.json": {}, "config.json": "[]"}, "open_clip"),
    ],
    ids=["student", "published student", "adapters", "qwen", "clip", "own text tower", "two forms", "no object"],
)
def test_a_folder_is_recognized(files: dict[str, Any], loader: str, tmp_path: Path) -> None:
    assert recognized(tmp_path, files) == loader


@pytest.mark.parametrize(
    "record",
    [{}, {"kdkit.json": "{"}],
)
def test_two_forms_without_a_record_are_ambiguous(record: dict[str, Any], tmp_path: Path) -> None:
    with raises_error("KD-TEACH-015", where="local:here", mentions=("open_clip", "transformers")):
        recognized(tmp_path, {**DUAL, **record})


@pytest.mark.parametrize(
    "config", [{"model_type": "vits"}, {"architecture": "vit"}, {}, '{"model_type": ["clip"]}', "not JSON"]
)
def test_an_unknown_model_is_refused(config: Any, tmp_path: Path) -> None:
    with raises_error("KD-TEACH-016", where="local:here", mentions=("aimv2", "clinkd.json", "qwen2_5_vl")):
        recognized(tmp_path, {"config.json": config, "preprocessor_config.json": {}})
