"""Files beside a column's shards: features of prompts, and scores per row."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.system_errors import as_kdkit_error
from kdkit.core.base.tensors import read_array, read_header
from kdkit.core.features.store.header import damaged

_TEXTS, _KEY, _ABOUT = "texts.safetensors", "values", "about"


def read_texts(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Text -> (D,) float32; empty if none are stored.

    Raises:
        KdkitError: the file is damaged.
    """
    path = folder / _TEXTS
    if not path.exists():
        return {}
    values, about = _read(path)
    texts = about.get("texts", [])
    if len(texts) != len(values):
        raise damaged(str(path), f"{len(texts)} texts but {len(values)} features")
    return dict(zip(texts, values, strict=True))


def write_texts(folder: Path, texts: Mapping[str, NDArray[Any]]) -> None:
    """Add texts; equal ones are replaced."""
    merged = {**read_texts(folder), **{text: np.asarray(v, np.float32) for text, v in texts.items()}}
    if not merged:
        return
    # One file, so that texts and features stay together.
    _write(folder / _TEXTS, np.stack(list(merged.values())), {"texts": list(merged)})


def read_scores(folder: Path, name: str, rows: int) -> NDArray[np.float32]:
    """(rows,) float32, NaN for rows without a score."""
    path = _score_path(folder, name)
    scores = np.full(rows, np.nan, dtype=np.float32)
    if path.exists():
        values, _ = _read(path)
        if len(values) > rows:
            raise damaged(str(path), f"{len(values)} scores for {rows} rows")
        scores[: len(values)] = values
    return scores


def write_scores(folder: Path, name: str, scores: NDArray[np.float32]) -> None:
    """Replace the scores of that name."""
    _write(_score_path(folder, name), scores, {"name": name})


def _score_path(folder: Path, name: str) -> Path:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise KdkitError(
            "KD-FEAT-014", f"'{name}' is no name for scores", fix="use lower-case letters, digits, '.', '_' and '-'"
        )
    return folder / "scores" / f"{name}.safetensors"


def _read(path: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    try:
        values, about = read_array(path, _KEY), json.loads(read_header(path).metadata[_ABOUT])
        expected = about.pop("checksum")
    except KdkitError as error:
        raise as_kdkit_error(error.__cause__ or error, str(path)) or damaged(str(path), error.why) from error
    except (ValueError, KeyError, RecursionError) as error:
        raise damaged(str(path), f"{type(error).__name__}: {error}") from error
    if expected != _checksum(values, about):
        raise damaged(str(path), "the checksum does not match")
    return values, about


def _write(path: Path, values: NDArray[np.float32], about: dict[str, Any]) -> None:
    values = np.ascontiguousarray(values)
    # One key: safetensors writes several in no fixed order, and equal content must give equal bytes.
    metadata = {_ABOUT: json.dumps({**about, "checksum": _checksum(values, about)})}
    write_atomically(path, save({_KEY: values}, metadata))


def _checksum(values: NDArray[np.float32], about: Mapping[str, Any]) -> str:
    state = blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    state.update(values.tobytes())
    return state.hexdigest()
