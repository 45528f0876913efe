"""Models are loaded from the files of their own folder: configs that name another place are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError

_ELSEWHERE = re.compile(r"(hf-hub|hf_hub|hf|local-dir|file|https?|s3|gs|module|timm):|[/~\\]|[A-Za-z]:\\|\.\.", re.I)
"""How a value begins that names a repository, an address, or a path out of the folder."""
_CONFIGS = ("config.json", "text/config.json", "preprocessor_config.json", "processor_config.json")
_HARMLESS = ("_name_or_path", "name_or_path", "auto_map", "hf_model_name", "hf_tokenizer_name")
"""Keys that no loader of kdkit follows: a config's origin, remote code, companions that are fetched with the model."""
_FOLLOWED = ("backbone", "checkpoint_path")
"""Keys that are followed whatever they name."""
_ADAPTERS = "adapter_config.json"
"""transformers would load the base model that it names, from wherever that is."""


def require_own_files(folder: Path) -> None:
    """Check what the configs of a transformers model name.

    Raises:
        KdkitError: another repository, folder or address: a backbone, a shard of the weights, a base of adapters.
    """
    for name in _CONFIGS:
        require_own_parts(_read(folder / name), str(folder / name))
    for index in sorted(folder.glob("*.index.json")):
        for key, value in _strings(_read(index).get("weight_map", {})):
            if Path(value).name != value:
                raise _elsewhere(str(index), key, value)
    if (adapters := folder / _ADAPTERS).exists():
        named = str(_read(adapters).get("base_model_name_or_path"))
        raise _elsewhere(str(adapters), "base_model_name_or_path", named)


def require_own_parts(config: Mapping[str, Any], where: str) -> None:
    """Check one config of transformers. Raises: KdkitError for a part that names another place, or a model of timm."""
    for key, value in _strings(config):
        timm = key == "model_type" and value.startswith("timm_")  # it takes any name, path and argument of timm
        if timm or key in _FOLLOWED or _ELSEWHERE.match(value) or "/../" in value:
            raise _elsewhere(where, key, value)


def require_own_towers(model_cfg: Mapping[str, Any], where: str) -> None:
    """Check open_clip's ``model_cfg``. Raises: KdkitError for a tower that names another place."""
    for key, value in _strings(model_cfg):
        if key in _FOLLOWED or _ELSEWHERE.match(value) or "/" in value or "\\" in value:
            raise _elsewhere(where, key, value)


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


def _elsewhere(where: str, key: str, value: str) -> KdkitError:
    return KdkitError(
        "KD-LOAD-070",
        f"'{key}' names another place than this folder: {value!a:.100}",
        where=where,
        why="a model is loaded from its own files alone, never from another repository, folder or address",
        fix="put the files into the folder and name them plainly; do not trust a folder that you did not make",
        code=ExitCode.DENIED,
    )
