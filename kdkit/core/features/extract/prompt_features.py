"""Features of prompts, which a column keeps beside its shards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import TextEncoder
from kdkit.core.features.store.column import Column
from kdkit.core.features.store.store import FeatureStore
from kdkit.core.teachers.open import OpenTeacher


def embed_prompts(
    store: FeatureStore, teacher: OpenTeacher, column: Column, prompts: Sequence[str], batch_size: int
) -> int:
    """Store the features of the texts that the column lacks; returns their number, 0 for a teacher without texts.

    Raises:
        KdkitError: NaN or infinity, with the text.
    """
    new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in column.texts]
    if not new or not isinstance(teacher.model, TextEncoder):
        return 0
    with torch.inference_mode():
        parts = [
            teacher.model.encode_text(new[start : start + batch_size]).float().cpu()
            for start in range(0, len(new), batch_size)
        ]
    features = torch.cat(parts).numpy()
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise KdkitError(
            "KD-FEAT-002",
            f"teacher '{teacher.name}' returned NaN or infinity for the text '{new[int(bad.argmax())]}'",
            fix="check its files, or remove it: kdkit remove-teacher " + teacher.name,
            code=ExitCode.FOUND,
        )
    store.put_texts(teacher.name, teacher.fingerprint, dict(zip(new, features, strict=True)))
    return len(new)
