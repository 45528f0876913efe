"""Tiny models of both loaders."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.loaders.models import LOADERS
from tests.tiny_models import make_biomedclip_folder, make_open_clip_folder, make_transformers_clip_folder


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "open_clip": make_open_clip_folder(root / "open_clip", embed_dim=24),
        "biomedclip": make_biomedclip_folder(root / "biomedclip"),
        "clip": make_transformers_clip_folder(root / "clip"),
        "siglip": make_transformers_clip_folder(root / "siglip", kind="siglip"),
        "naflex": make_transformers_clip_folder(root / "naflex", kind="naflex"),
    }


@pytest.fixture(scope="package")
def encoders(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: LOADERS[name](folder) for name, folder in folders.items()}


@pytest.fixture(params=list(LOADERS))
def encoder(request: pytest.FixtureRequest, encoders: dict[str, Any]) -> Any:
    return encoders[request.param]


@pytest.fixture
def folder(request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(folders[request.param], tmp_path / "copy"))
