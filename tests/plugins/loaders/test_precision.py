"""Names of precisions: torch's and open_clip's mean the same, and others are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdkit.plugins.loaders.cxr_clip import load_cxr_clip
from kdkit.plugins.loaders.flair import load_flair
from kdkit.plugins.loaders.keep import load_keep
from kdkit.plugins.loaders.medclip import load_medclip
from kdkit.plugins.loaders.open_clip import load_open_clip
from kdkit.plugins.loaders.pmc_clip import load_pmc_clip
from kdkit.plugins.loaders.precision import dtype_of, open_clip_precision
from kdkit.plugins.loaders.timm_vision import load_timm
from kdkit.plugins.loaders.transformers_clip import load_transformers_clip
from kdkit.plugins.loaders.transformers_vision import load_transformers_vision
from tests.errors import raises_error

LOADERS: tuple[Callable[..., Any], ...] = (
    load_cxr_clip,
    load_flair,
    load_keep,
    load_medclip,
    load_open_clip,
    load_pmc_clip,
    load_timm,
    load_transformers_clip,
    load_transformers_vision,
)


@pytest.mark.parametrize(
    ("name", "short", "dtype"),
    [("float32", "fp32", torch.float32), ("bfloat16", "bf16", torch.bfloat16), ("float16", "fp16", torch.float16)],
)
def test_both_names_mean_the_same(name: str, short: str, dtype: torch.dtype) -> None:
    assert (dtype_of(name), dtype_of(short)) == (dtype, dtype)
    assert (open_clip_precision(name), open_clip_precision(short)) == (short, short)


@pytest.mark.parametrize("load", LOADERS)
def test_every_loader_refuses_another_name_with_a_hint(load: Callable[..., Any], tmp_path: Path) -> None:
    with raises_error("KD-LOAD-117", mentions=("'flot16'", "did you mean 'float16'")):
        load(tmp_path, precision="flot16")


def test_an_attribute_of_torch_is_no_precision() -> None:
    with raises_error("KD-LOAD-117"):
        dtype_of("nn")
