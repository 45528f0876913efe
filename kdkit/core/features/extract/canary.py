"""Compares a served model with the one that computed the rows of its column before.

Its fingerprint covers what the settings name, and not the weights that the server has. The first extraction stores the
model's canary beside the column; each later one compares before it computes and after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import write_atomically
from kdkit.core.contracts import Served
from kdkit.core.features.store.header import damaged

if TYPE_CHECKING:
    from kdkit.core.features.store.column import Column

CANARY = "canary.json"


def require_same_model(model: object, folder: Path) -> None:
    """Compare a served model with the canary in its column's folder, or store its first one.

    Args:
        model: of any kind; only ``contracts.Served`` is compared.

    Raises:
        KdkitError: the model differs; a damaged file.
    """
    if not isinstance(model, Served):
        return
    path = folder / CANARY
    if path.is_file():
        model.require_same(_read(path))
    else:
        write_atomically(path, json.dumps(dict(model.canary()), sort_keys=True).encode())


def require_same_models(models: Sequence[object], columns: Sequence[Column], counts: Sequence[int]) -> None:
    """:func:`require_same_model` for the models that compute something, by ``counts``."""
    for model, column, count in zip(models, columns, counts, strict=True):
        if count:
            require_same_model(model, column.folder)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, Mapping):
            raise ValueError("it is no object")
    except ValueError as error:
        raise damaged(str(path), str(error)) from error
    return found
