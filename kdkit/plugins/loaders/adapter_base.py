"""The base model of adapters: ``adapter_config.json`` names its repository, ``base/`` holds its files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdkit.core.contracts import Companion
from kdkit.plugins.loaders import DUAL_ENCODERS

ADAPTERS = "adapter_config.json"
BASE = "base"
"""Subfolder of the base model."""
_PURPOSE = f"the base model as {BASE}/"


def find_base(folder: Path) -> Iterator[Companion]:
    """Yield the base of the adapters in ``folder``; see ``contracts.LoaderSpec.companions``.

    Its config comes first: the weights of a base that is no dual encoder are not fetched.
    """
    config = read_object(folder / ADAPTERS)
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(named, str) or not named or (folder / BASE / "config.json").is_file():
        return  # the loader names what is missing
    source = f"hf:{named}" + (f"@{revision}" if isinstance(revision, str) and revision else "")
    yield Companion(source=source, subfolder=BASE, names=("config.json",), purpose=_PURPOSE)
    if read_object(folder / BASE / "config.json").get("model_type") in DUAL_ENCODERS:
        yield Companion(source=source, subfolder=BASE, weights=True, purpose=_PURPOSE)


def read_object(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
