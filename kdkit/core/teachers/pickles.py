"""Weights that exist only as a pickle: read without running code, written once as safetensors."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.project.registry.lock import MadeFrom
from kdkit.core.teachers.files import sha256_of
from kdkit.core.teachers.select import PICKLES

_NAMES = {"open_clip_pytorch_model": "open_clip_model", "pytorch_model": "model"}
"""What the libraries call the safetensors file that stands for a pickle."""
_NESTED = ("state_dict", "model_state_dict")


def convert_pickles(folder: Path, where: str) -> dict[str, MadeFrom]:
    """Replace each pickle under ``folder`` by safetensors; new name -> the file that it was made from.

    Raises:
        KdkitError: a pickle with code in it, or one that holds no tensors.
    """
    made = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix in PICKLES):
        target = path.with_name(_NAMES.get(path.stem, path.stem) + ".safetensors")
        source = path.relative_to(folder).as_posix()
        fact = MadeFrom(file=source, sha256=sha256_of(path))
        _save(_tensors(path, f"{where}: {source}"), target)
        path.unlink()
        made[target.relative_to(folder).as_posix()] = fact
    return made


def _tensors(path: Path, where: str) -> dict[str, Any]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats, which concern the authors
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = _reason(error)
        code = "GLOBAL" in why
        raise KdkitError(
            "KD-TEACH-010",
            "refused: these weights are a pickle " + ("with code in it" if code else "of an unsafe kind"),
            where=where,
            why=f"loading it would run that code ({why})" if code else why,
            fix="ask its authors for .safetensors, or convert it yourself in a place that you can throw away",
            code=ExitCode.DENIED,
        ) from None
    except Exception as error:  # a file of any other kind ends here with any error at all
        raise KdkitError("KD-TEACH-011", "not weights that PyTorch can read", where=where, why=_reason(error)) from None
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise KdkitError("KD-TEACH-012", "these weights hold no tensors", where=where, why="a state dict is expected")
    return tensors


def _save(tensors: Mapping[str, Any], target: Path) -> None:
    from safetensors.torch import save_file

    # Tied weights share memory, which safetensors does not allow: each name gets its own copy.
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, target)


def _reason(error: Exception) -> str:
    """torch puts advice (to load it anyway) around the reason; the reason alone is wanted."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "unsupported" in line.lower()]
    return (named or lines or [type(error).__name__])[0][:300]
