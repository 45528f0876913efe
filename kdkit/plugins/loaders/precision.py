"""The option ``precision`` of loaders: names of torch, and open_clip's for the same."""

from __future__ import annotations

import torch

from kdkit.core.base.errors import KdkitError, did_you_mean

_SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""torch's name -> open_clip's."""
_LONG = {short: name for name, short in _SHORT.items()}
_PURE = ("pure_bf16", "pure_fp16")
"""open_clip's for layers of normalization that are not kept in float32."""


def dtype_of(precision: str) -> torch.dtype:
    """The dtype of ``float32``, ``bfloat16``, ``float16``, or of ``fp32``, ``bf16``, ``fp16``.

    Raises:
        KdkitError: another name.
    """
    name = _LONG.get(precision, precision)
    if name not in _SHORT:
        raise _unknown(precision, (*_SHORT, *_LONG))
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def open_clip_precision(precision: str) -> str:
    """open_clip's name of a precision; it takes unknown ones for ``fp32``. Raises: as :func:`dtype_of`."""
    name = _SHORT.get(precision, precision)
    if name not in (*_LONG, *_PURE):
        raise _unknown(precision, (*_SHORT, *_LONG, *_PURE))
    return name


def _unknown(precision: str, known: tuple[str, ...]) -> KdkitError:
    return KdkitError(
        "KD-LOAD-117",
        f"there is no precision '{precision}'",
        where="--option precision",
        why=f"a loader of this kind knows {', '.join(known)}",
        fix=did_you_mean(str(precision), known),
    )
