"""Loaded encoders of tiny models, of both loaders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdkit.plugins.loaders.open_clip import load_open_clip
from kdkit.plugins.loaders.transformers_clip import load_transformers_clip

LOADERS: dict[str, Callable[[Path], Any]] = {
    "open_clip": load_open_clip,
    "biomedclip": load_open_clip,
    "clip": load_transformers_clip,
    "siglip": load_transformers_clip,
    "naflex": load_transformers_clip,
}
