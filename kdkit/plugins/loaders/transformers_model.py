"""A model in transformers' form, from the files of its folder alone: no download, and no code of the folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from kdkit.plugins.loaders.hugging_face import without_reports

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Arguments of every ``from_pretrained``."""


def open_model(folder: Path, dtype: torch.dtype) -> tuple[Any, Mapping[str, Any]]:
    """The model, and transformers' report on its weights: ``missing_keys`` and ``mismatched_keys``.

    Weights of other sizes are reported, not refused, so that a loader can name them. The generator of torch stays as it
    is. Errors are transformers' own.
    """
    with torch.random.fork_rng(devices=[]), without_reports():
        model, info = AutoModel.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **LOCAL
        )
    return model, info
