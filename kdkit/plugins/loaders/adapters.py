"""LoRA adapters of peft, merged into the dual encoder of transformers that they were trained on."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import MISSING, fields
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
_UNDERSTOOD = (
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "bias"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
    *("fan_in_fan_out", "init_lora_weights"),
)
"""Settings that decide what is merged; nothing else of the file reaches peft."""
_WITHOUT_EFFECT = (
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "lora_dropout", "runtime_config", "megatron_core", "qalora_group_size"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
)
"""Settings of training, of the first values, or of kinds of LoRA that another setting switches on."""


def base_folder(folder: Path) -> Path:
    """The base model's folder.

    Raises:
        KdkitError: it is not there.
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
    settings = _plain_settings(folder)
    try:
        config = peft.LoraConfig(**settings, inference_mode=True)
    except (TypeError, ValueError) as error:
        raise _not_plain(folder, " ".join(str(error).split())[:400]) from error
    state = read_tensors(folder / WEIGHTS)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the base's name: it has no repository's here
            adapted = peft.get_peft_model(model, config)
            result: Any = peft.set_peft_model_state_dict(adapted, dict(state))
        _require_fit(folder, result.missing_keys, result.unexpected_keys)
        merged: nn.Module = adapted.merge_and_unload()
    except NotImplementedError as error:
        raise _not_plain(folder, " ".join(str(error).split())[:400]) from error
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _other_base(folder, " ".join(str(error).split())[:400]) from error
    return merged


def _plain_settings(folder: Path) -> dict[str, Any]:
    """The settings that decide what is merged.

    peft drops settings that it does not know, and others import the module that they name. So any other setting must
    have the value that changes nothing: null, or the default of peft, if that is empty or off.

    Raises:
        KdkitError: a setting is not understood.
    """
    settings = read_object(folder / ADAPTERS)
    strange = [
        f"{name} {value!r}"[:80]
        for name, value in settings.items()
        if name not in (*_UNDERSTOOD, *_WITHOUT_EFFECT) and not _is_off(name, value)
    ]
    if settings.get("init_lora_weights") not in _PLAIN:
        strange.append(f"init_lora_weights {settings.get('init_lora_weights')!r}")
    if settings.get("peft_type") != "LORA":
        strange = [f"peft_type {settings.get('peft_type')!r}"]
    if strange:
        raise _not_plain(folder, f"kdkit, with this version of peft, does not understand {', '.join(strange[:4])}")
    return {name: settings[name] for name in _UNDERSTOOD if name in settings}


def _is_off(name: str, value: Any) -> bool:
    """Whether a setting is null, or has a default of peft that is empty or off. Of another one, 0 may mean anything."""
    from peft import LoraConfig

    known = {field.name: field for field in fields(LoraConfig)}
    if value is None or name not in known:
        return value is None
    made = known[name].default_factory
    default = known[name].default if made is MISSING else made()
    return not value and bool(value == default)


def _require_fit(folder: Path, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Every adapter of the model has weights in the file, and every weight of the file belongs to one."""
    missing = [name for name in missing if ".lora_" in name or ".modules_to_save." in name]
    if unexpected or missing:
        parts = {"unexpected": list(unexpected), "missing": missing}
        raise _other_base(folder, "; ".join(f"{what}: {', '.join(some[:3])}" for what, some in parts.items() if some))


def _not_plain(folder: Path, why: str) -> KdkitError:
    return KdkitError(
        "KD-LOAD-098",
        "these adapters are not plain LoRA",
        where=str(folder / ADAPTERS),
        why=why,
        fix="update peft if a newer one wrote them (pip install --upgrade peft); or merge them where they were trained"
        " (merge_and_unload), and add the merged model",
    )


def _other_base(folder: Path, why: str) -> KdkitError:
    return KdkitError(
        "KD-LOAD-099",
        "these adapters do not belong to this base model",
        where=str(folder),
        why=why,
        fix=f"put the model that they were trained on into {BASE}/; {ADAPTERS} names it",
        code=ExitCode.DENIED,
    )
