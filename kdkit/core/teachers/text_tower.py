"""open_clip folders name a second repository for the text tower's config and tokenizer: what is missing of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.teachers.select import select_descriptions

TEXT = "text"
"""The subfolder for the text tower's files, where the open_clip loader looks for them."""
_VOCABULARIES = (
    *("tokenizer.json", "vocab.txt", "vocab.json"),
    *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)
_TOKENIZER = (
    *_VOCABULARIES,
    *("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)

Bring = Callable[[str, str, Callable[[Iterable[str], str], list[str]]], None]


def bring_text_tower(folder: Path, bring: Bring) -> None:
    """Fetch the descriptions that ``folder`` lacks to be complete; nothing where it lacks none.

    Args:
        folder: files of a teacher.
        bring: ``bring(subfolder, source, select)`` fetches the selected files of ``source``.

    Raises:
        KdkitError: as ``bring``, saying what the repository is needed for.
    """
    text_cfg = _text_cfg(folder / "open_clip_config.json")
    model, tokenizer = text_cfg.get("hf_model_name"), text_cfg.get("hf_tokenizer_name")
    if isinstance(model, str) and model and not _has_text_config(folder):
        _bring(bring, TEXT, model, f"{TEXT}/config.json")
    complete = _has_tokenizer(folder) or (tokenizer == model and _has_tokenizer(folder / TEXT))
    if isinstance(tokenizer, str) and tokenizer and not complete:
        _bring(bring, "", tokenizer, "tokenizer.json")


def _bring(bring: Bring, subfolder: str, repository: str, wanted: str) -> None:
    def tokenizer_files(names: Iterable[str], where: str) -> list[str]:
        return [name for name in select_descriptions(names, where) if name in _TOKENIZER]

    try:
        bring(subfolder, f"hf:{repository}", select_descriptions if subfolder else tokenizer_files)
    except KdkitError as error:
        raise KdkitError(
            "KD-TEACH-023",
            f"its text tower is described in another repository, hf:{repository}: {error.what}",
            where=error.where,
            why=error.why,
            fix=f"put the file {wanted} of that repository (and its tokenizer) into the folder; or: {error.fix}",
            code=error.code,
        ) from error


def _text_cfg(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
        text_cfg = config["model_cfg"]["text_cfg"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # not an open_clip folder; if it is a broken one, its loader says so
    return text_cfg if isinstance(text_cfg, dict) else {}


def _has_text_config(folder: Path) -> bool:
    if (folder / TEXT / "config.json").is_file():
        return True
    try:
        beside = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    # A config.json beside the weights may also be that of a whole dual encoder.
    return isinstance(beside, dict) and "model_type" in beside and "vision_config" not in beside


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _VOCABULARIES)
