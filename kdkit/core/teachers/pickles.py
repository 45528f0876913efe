"""Converts weights from pickles, which are read without running code, to safetensors."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hashes import sha256_of
from kdkit.core.project.registry.lock import MadeFrom
from kdkit.core.teachers.files import PICKLES

_NESTED = ("state_dict", "model_state_dict")


def convert_pickles(folder: Path, where: str) -> dict[str, MadeFrom]:
    """Replace each pickle under ``folder`` by safetensors; returns new name -> original file.

    Raises:
        KdkitError: a pickle contains code, or no tensors.
    """
    from safetensors.torch import save_file

    made = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix in PICKLES):
        target = path.with_name(path.stem.replace("pytorch_", "") + ".safetensors")  # as libraries name it
        source = path.relative_to(folder).as_posix()
        made[target.relative_to(folder).as_posix()] = MadeFrom(file=source, sha256=sha256_of(path))
        tensors = _read_tensors(path, f"{where}: {source}")
        # Tied weights share memory, which safetensors does not allow: each name gets its own copy.
        save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, target)
        path.unlink()
    return made


def _read_tensors(path: Path, where: str) -> dict[str, Any]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = _reason(error)
        code = "GLOBAL" in why
        raise KdkitError(
            "KD-TEACH-010",
            "these weights are a pickle " + ("that contains code" if code else "of an unsafe kind"),
            where=where,
            why=f"loading it would run that code ({why})" if code else why,
            fix="ask its authors for .safetensors, or convert it in a disposable sandbox",
            code=ExitCode.DENIED,
        ) from None
    except Exception as error:  # torch.load raises any error for other files
        raise KdkitError(
            "KD-TEACH-011",
            "PyTorch cannot read these weights",
            where=where,
            why=_reason(error),
            fix="check the file, or download it again",
        ) from None
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise KdkitError(
            "KD-TEACH-012", "these weights hold no tensors", where=where, fix="save the model's state dict in the file"
        )
    return tensors


def _reason(error: Exception) -> str:
    """The reason in torch's message, without its advice to load the file anyway."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "unsupported" in line.lower()]
    return (named or lines or [type(error).__name__])[0][:300]
