"""The base that adapters name: its config first, then the whole model if it is a dual encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdkit.plugins.loaders.adapter_base import find_base


def sources(folder: Path, adapters: Any, base: Any) -> list[tuple[str, bool]]:
    """What is asked for when each companion is put in place before the next."""
    (folder / "adapter_config.json").write_text(json.dumps(adapters), encoding="utf-8")
    found = []
    for companion in find_base(folder):
        found.append((companion.source, companion.weights))
        assert companion.subfolder == "base"
        (folder / "base").mkdir(exist_ok=True)
        (folder / "base" / "config.json").write_text(json.dumps(base), encoding="utf-8")
    return found


@pytest.mark.parametrize(
    ("adapters", "base", "expected"),
    [
        ({"base_model_name_or_path": "org/a"}, {"model_type": "clip"}, [("hf:org/a", False), ("hf:org/a", True)]),
        (
            {"base_model_name_or_path": "org/a", "revision": "v2"},
            {"model_type": "siglip"},
            [("hf:org/a@v2", False), ("hf:org/a@v2", True)],
        ),
        ({"base_model_name_or_path": "org/a"}, {"model_type": "qwen2_vl"}, [("hf:org/a", False)]),
        ({"base_model_name_or_path": None}, {}, []),
        ([], {}, []),
    ],
)
def test_the_base_is_asked_for(tmp_path: Path, adapters: Any, base: Any, expected: list[tuple[str, bool]]) -> None:
    assert sources(tmp_path, adapters, base) == expected


def test_a_base_that_is_there_is_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}", encoding="utf-8")
    assert sources(tmp_path, {"base_model_name_or_path": "org/a"}, {}) == []
