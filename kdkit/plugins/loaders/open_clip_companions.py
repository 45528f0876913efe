"""The second repository of an open_clip folder: its text tower's config and tokenizer, where the folder lacks them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdkit.core.contracts import Companion
from kdkit.plugins.loaders.hugging_face import TOKENIZER_FILES, VOCABULARIES


def find_companions(folder: Path) -> Iterator[Companion]:
    """Yield the text tower's files, then the tokenizer's; see ``contracts.LoaderSpec.companions``."""
    text_cfg = _text_cfg(folder / "open_clip_config.json")
    model, tokenizer = text_cfg.get("hf_model_name"), text_cfg.get("hf_tokenizer_name")
    if isinstance(model, str) and model and not _has_text_config(folder):
        yield Companion(source=f"hf:{model}", subfolder="text", purpose="the text tower's config as text/config.json")
    complete = _has_vocabulary(folder) or (tokenizer == model and _has_vocabulary(folder / "text"))
    if isinstance(tokenizer, str) and tokenizer and not complete:
        yield Companion(source=f"hf:{tokenizer}", names=TOKENIZER_FILES, purpose="the tokenizer as tokenizer.json")


def _text_cfg(path: Path) -> dict[str, Any]:
    try:
        text_cfg = json.loads(path.read_bytes())["model_cfg"]["text_cfg"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # the loader reports a damaged config
    return text_cfg if isinstance(text_cfg, dict) else {}


def _has_text_config(folder: Path) -> bool:
    if (folder / "text" / "config.json").is_file():
        return True
    try:
        beside = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    # A config.json beside the weights may also be that of a whole dual encoder.
    return isinstance(beside, dict) and "model_type" in beside and "vision_config" not in beside


def _has_vocabulary(folder: Path) -> bool:
    return any((folder / name).is_file() for name in VOCABULARIES)
