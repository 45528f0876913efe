"""Models are loaded from the files of their own folder: configs that name another place are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError

_SCHEME = re.compile(r"(hf-hub|hf_hub|hf|local-dir|file|https?|s3|gs|module|timm):", re.IGNORECASE)
_CONFIGS = ("config.json", "text/config.json", "preprocessor_config.json", "processor_config.json")
_HARMLESS = ("_name_or_path", "name_or_path", "auto_map", "hf_model_name", "hf_tokenizer_name")
"""Keys that no loader of kdkit follows: a config's origin, remote code, companions that are fetched with the model."""
_ADAPTERS = "adapter_config.json"
"""transformers would load the base model that it names, from wherever that is."""


def require_own_files(folder: Path) -> None:
    """Check what the configs of a transformers model name.

    Raises:
        KdkitError: another repository, folder or address: a backbone, a shard of the weights, a base of adapters.
    """
    for name in _CONFIGS:
        for key, value in _strings(_read(folder / name)):
            if _SCHEME.match(value) or key == "backbone":
                raise _elsewhere(folder / name, key, value)
    for index in sorted(folder.glob("*.index.json")):
        for key, value in _strings(_read(index).get("weight_map", {})):
            if Path(value).name != value:
                raise _elsewhere(index, key, value)
    if (adapters := folder / _ADAPTERS).exists():
        raise _elsewhere(adapters, "base_model_name_or_path", str(_read(adapters).get("base_model_name_or_path")))


def require_own_towers(model_cfg: Mapping[str, Any], where: str) -> None:
    """Check open_clip's ``model_cfg``. Raises: KdkitError for a tower that names another place."""
    for key, value in _strings(model_cfg):
        if key not in _HARMLESS and (_SCHEME.match(value) or "/" in value or "\\" in value):
            raise _elsewhere(Path(where), key, value)


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Key and value of every string; that of a list has the list's key."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
    elif isinstance(value, str) and key not in _HARMLESS:
        yield key, value


def _read(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty for anything else, which the loader reports."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _elsewhere(path: Path, key: str, value: str) -> KdkitError:
    return KdkitError(
        "KD-LOAD-070",
        f"'{key}' names another place than this folder: {value!a:.100}",
        where=str(path),
        why="a model is loaded from its own files alone, never from another repository, folder or address",
        fix="put the files into the folder and name them plainly; do not trust a folder that you did not make",
        code=ExitCode.DENIED,
    )
