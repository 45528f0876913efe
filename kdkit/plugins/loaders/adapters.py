"""LoRA adapters of peft, merged into the dual encoder of transformers that they were trained on."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.tensors import read_tensors
from kdkit.plugins.loaders.adapter_base import ADAPTERS, BASE, read_object

WEIGHTS = "adapter_model.safetensors"
_PLAIN = (None, True, False, "gaussian")
"""Values of ``init_lora_weights`` with which peft leaves the base as it is."""


def base_folder(folder: Path) -> Path:
    """The base model's folder.

    Raises:
        KdkitError: it is not there, or records another origin than the adapters name.
    """
    named = str(read_object(folder / ADAPTERS).get("base_model_name_or_path") or "a model without a name")
    base = folder / BASE
    if not (base / "config.json").is_file():
        raise KdkitError(
            "KD-LOAD-096",
            "the base model of these adapters is not in this folder",
            where=str(folder),
            why=f"{ADAPTERS} names {named}",
            fix=f"put the files of {named} into {base.name}/, or add the teacher again to fetch them",
            code=ExitCode.MISSING,
        )
    origin = read_object(base / "config.json").get("_name_or_path")
    if isinstance(origin, str) and origin.count("/") == 1 and origin.lower() != named.lower():
        raise _other_base(folder, f"the adapters were trained on {named}; the config in {BASE}/ is of {origin}")
    return base


def merge_adapters(model: nn.Module, folder: Path) -> nn.Module:
    """``model`` with the adapters of ``folder`` added to its weights, which they must fit exactly.

    Raises:
        KdkitError: the adapters are of another kind or another base, or peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise KdkitError(
            "KD-LOAD-097",
            "adapters need the package 'peft', which is not installed",
            where=str(folder),
            fix="pip install 'kdkit[adapters]'",
            code=ExitCode.MISSING,
        ) from error
    kinds: Any = peft.PeftConfig
    settings = read_object(folder / ADAPTERS)
    if settings.get("peft_type") != "LORA" or settings.get("init_lora_weights") not in _PLAIN:
        kind = f"{settings.get('peft_type')}, init_lora_weights {settings.get('init_lora_weights')!r}"
        raise KdkitError(
            "KD-LOAD-098",
            "these adapters are not plain LoRA",
            where=str(folder / ADAPTERS),
            why=f"they are {kind}; kdkit merges LoRA that leaves its base as it was published",
            fix="merge them where they were trained (merge_and_unload), and add the merged model",
        )
    state = read_tensors(folder / WEIGHTS)
    try:
        config = kinds.from_peft_type(**{**settings, "inference_mode": True, "task_type": None})
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the base's name: it has no repository's here
            adapted = peft.get_peft_model(model, config)
            result: Any = peft.set_peft_model_state_dict(adapted, dict(state))
        _require_fit(folder, result.missing_keys, result.unexpected_keys)
        merged: nn.Module = adapted.merge_and_unload()
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _other_base(folder, " ".join(str(error).split())[:400]) from error
    return merged


def _require_fit(folder: Path, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Every adapter of the model has weights in the file, and every weight of the file belongs to one."""
    missing = [name for name in missing if ".lora_" in name or ".modules_to_save." in name]
    if unexpected or missing:
        parts = {"unexpected": list(unexpected), "missing": missing}
        raise _other_base(folder, "; ".join(f"{what}: {', '.join(some[:3])}" for what, some in parts.items() if some))


def _other_base(folder: Path, why: str) -> KdkitError:
    return KdkitError(
        "KD-LOAD-099",
        "these adapters do not belong to this base model",
        where=str(folder),
        why=why,
        fix=f"put the model that they were trained on into {BASE}/; {ADAPTERS} names it",
        code=ExitCode.DENIED,
    )
