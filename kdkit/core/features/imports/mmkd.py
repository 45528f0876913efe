"""MMKD-CLIP's released folders: ``meta.jsonl``, and per sample one file with the features of all its teachers.

``clips_output.pt`` holds each teacher's own space, ``clips_project_output.pt`` the common one. Both are dictionaries of
tensors, ``NAME_img`` and ``NAME_txt``. A sample's ``available_clips`` lists the teachers that MMKD-CLIP trusts on it;
its other teachers are skipped, and the list is kept beside the column (trust by lists).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import did_you_mean
from kdkit.core.contracts import IMAGE, TEXT
from kdkit.core.features.imports.rows import FeatureRows, Part, ReadOptions, holds_objects, leads_outside, unreadable
from kdkit.core.project.registry.lock import safe_relative

META = "meta.jsonl"
OWN, PROJECTED = "clips_output.pt", "clips_project_output.pt"
ROWS = 256
"""Samples per part; each is a file."""


def read_mmkd(folder: Path, options: ReadOptions) -> FeatureRows:
    """The features of the teacher ``options.key``."""
    options = options.only("key", "projected", where=str(folder))
    samples = _read_meta(folder)
    names = Counter(name for _, _, trusted in samples for name in trusted)
    if options.key is None or options.key not in names:
        why = f"{META} names {', '.join(sorted(names))}"
        near = f"; {did_you_mean(options.key, tuple(names))}" if options.key else ""
        raise unreadable(str(folder), why, f"name one of its teachers: --key NAME{near}")
    key, file = options.key, PROJECTED if options.projected else OWN
    chosen = [(id_, folder / "features" / place / id_ / file) for id_, place, trusted in samples if key in trusted]
    for _, path in chosen:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise leads_outside(str(folder), f"'{path.relative_to(folder)}' is a link to {path.resolve()}")
        if not path.is_file():
            raise unreadable(str(path), f"{META} names it, and it is missing", "copy the whole release")
    files = {path.relative_to(folder).as_posix(): path for _, path in chosen}

    def parts() -> Iterator[Part]:
        for start in range(0, len(chosen), ROWS):
            part = chosen[start : start + ROWS]
            found = [_read(path, key) for _, path in part]
            if len({row.shape for pair in found for row in pair.values()}) == 1:
                yield Part([id_ for id_, _ in part], {s: np.stack([one[s] for one in found]) for s in (IMAGE, TEXT)})
            else:  # the check of widths then names the sample
                for (id_, _), one in zip(part, found, strict=True):
                    yield Part([id_], {signal: row[None] for signal, row in one.items()})

    excluded = len(samples) - len(chosen)
    skipped = {f"not in available_clips of '{key}'": excluded} if excluded else {}
    return FeatureRows({META: folder / META, **files}, parts, skipped, read=options.recorded, listed=True)


def _read_meta(folder: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    """(id, subfolder, trusted teachers) of every sample."""
    path, found = folder / META, []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise unreadable(str(path), str(error), "check the file") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            id_, place, trusted = entry["id"], entry["folderid"], entry["available_clips"]
            if not isinstance(id_, str) or not isinstance(place, str) or not isinstance(trusted, list):
                raise TypeError("id and folderid are strings, available_clips is a list")
            if "\0" in id_ + place:
                raise ValueError("a NUL character")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            why = f"{type(error).__name__}: {error}"
            raise unreadable(f"{path}:{number}", why, "a line has id, folderid and available_clips") from None
        try:
            safe_relative(f"{place}/{id_}")
        except ValueError as error:
            raise leads_outside(f"{path}:{number}", str(error)) from None
        found.append((id_, place, tuple(str(name) for name in trusted)))
    return found


def _read(path: Path, key: str) -> Mapping[str, NDArray[Any]]:
    """``image`` and ``text`` (D,) of one teacher; nothing but tensors is loaded."""
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise holds_objects(str(path), "the file") from None
    except Exception as error:  # torch.load raises any error for other files
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise unreadable(str(path), why, "check that it is a whole file of the release") from None
    rows = {}
    for signal, name in ((IMAGE, f"{key}_img"), (TEXT, f"{key}_txt")):
        tensor = content.get(name) if isinstance(content, dict) else None
        if tensor is None or not _is_vector(tensor):
            names = ", ".join(sorted(map(str, content))) if isinstance(content, dict) else type(content).__name__
            raise unreadable(str(path), f"it has no vector '{name}' but {names}", "copy the whole release")
        rows[signal] = tensor.detach().float().flatten().numpy()
    return rows


def _is_vector(tensor: Any) -> bool:
    """(D,) or (1, D) numbers in memory: neither sparse, nested nor without values."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.is_nested or tensor.layout != torch.strided or tensor.is_meta:
        return False
    return tensor.is_floating_point() and tensor.ndim > 0 and 0 < tensor.numel() == tensor.shape[-1]
