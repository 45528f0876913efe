"""A small project, and features for its samples in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.project.project import Project
from tests.core.data.projects import make_project, row

COUNT, WIDTH = 12, 6
IDS = tuple(f"s{i}" for i in range(COUNT))


def small_project(root: Path, **registry: Any) -> Project:
    """Twelve samples of two domains."""
    return make_project(root, [row(i) for i in range(COUNT)], **registry)


def vectors(count: int = COUNT, width: int = WIDTH, seed: int = 0) -> NDArray[np.float32]:
    """(count, width) float32, exact in float16."""
    found = np.random.default_rng(seed).integers(-512, 512, (count, width)) / 256
    return found.astype(np.float32)


def save_npz(path: Path, ids: Sequence[str] = IDS, **arrays: Any) -> Path:
    """An archive with ids; by default with image vectors alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, ids=np.array(ids), **(arrays or {"image": vectors(len(ids))}))
    return path
