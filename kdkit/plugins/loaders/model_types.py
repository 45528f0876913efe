"""The type of a transformers model: one that the library itself has. Code of a model's folder never runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError

_WITH_CODE = ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json")
CUSTOM_CODE = "custom code"
"""In the message of transformers for a part that it has no class for, only the folder has."""


def model_type(folder: Path) -> str:
    """``model_type`` of ``config.json``; empty if there is none."""
    return str((_read(folder / "config.json") or {}).get("model_type") or "")


def require_known_type(folder: Path, known: Collection[str], takes: str) -> None:
    """Compare the ``model_type`` of ``config.json`` with the types ``known``, before anything is loaded.

    A config that is no JSON object is left to the loader.

    Args:
        takes: what is taken, for the error: ``the student clinkd takes qwen2_vl``.

    Raises:
        KdkitError: another type, or none; the model needs code of its own.
    """
    config = _read(folder / "config.json")
    if config is None:
        return
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in known:
        return
    if "auto_map" in config:
        raise needs_own_code(folder)
    raise KdkitError(
        "KD-LOAD-071",
        f"a model of type '{kind}'" if kind else "a model without a type",
        where=str(folder / "config.json"),
        why=f"model_type is {json.dumps(kind)}; {takes}" if kind else f"it has no model_type; {takes}",
        fix="name the folder of a model of another type; a plugin can add a loader: docs/howto/write-plugin.md",
    )


def needs_own_code(folder: Path, where: str = "") -> KdkitError:
    """The error for a model that cannot be loaded without code from its folder; names the files that ask for it."""
    configs = {name: _read(folder / name) or {} for name in _WITH_CODE}
    named = {name: config["auto_map"] for name, config in configs.items() if "auto_map" in config}
    files = "; ".join(f"auto_map in {name}: {json.dumps(value):.100}" for name, value in named.items())
    return KdkitError(
        "KD-LOAD-072",
        "this model needs code of its own, which kdkit does not run",
        where=where or str(folder),
        why=files or "transformers has no class for it",
        fix="use a model that transformers loads without trust_remote_code, or write a loader plugin for this one",
        code=ExitCode.DENIED,
    )


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
