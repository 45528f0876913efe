"""Which loader reads a folder, where nobody says it: by the names of its files, and by what its config says it is."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import LoaderSpec
from kdkit.core.plugin_system.catalogue import Catalogue

CONFIG = "config.json"
"""The config of a model of transformers; its ``model_type`` names the architecture."""
RECORD = "kdkit.json"
"""Of a student that kdkit published or exported; its ``student`` lists the student's own files, and beside them there
may be the same student in a form for other libraries."""


def recognize(catalogue: Catalogue, folder: Path, source: str) -> str:
    """The only loader that knows the folder: all its marks are there, or the config has one of its model types.

    Raises:
        KdkitError: none knows it, or several do.
    """
    names = own_files(folder)
    kind = _read(folder / CONFIG).get("model_type") if CONFIG in names else None
    loaders = catalogue.specs(LoaderSpec)
    fitting = [spec.name for spec in loaders if _marked(spec, names) or kind in spec.model_types]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise KdkitError(
            "KD-TEACH-015",
            "several loaders know this kind of folder",
            where=source,
            fix="say which: " + " or ".join(f"--loader {name}" for name in fitting),
        )
    raise KdkitError(
        "KD-TEACH-016",
        "no loader recognizes these files as a model",
        where=source,
        why="; ".join(f"{spec.name} needs {_needs(spec)}" for spec in loaders if spec.marks or spec.model_types)
        or "no installed plugin has a loader",
        fix="is it the right folder? else say how to load it: --loader LOADER",
    )


def own_files(folder: Path) -> frozenset[str]:
    """Relative POSIX paths of the files that make up the model: all, or those that a release says are the student's."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    listed = _read(folder / RECORD).get("student") if RECORD in names else None
    if isinstance(listed, list) and listed:
        names &= {name for name in listed if isinstance(name, str)}
    return frozenset(names)


def _marked(spec: LoaderSpec, names: Collection[str]) -> bool:
    return bool(spec.marks) and all(mark in names for mark in spec.marks)


def _needs(spec: LoaderSpec) -> str:
    ways = [", ".join(spec.marks)] if spec.marks else []
    if spec.model_types:
        ways.append(f"a {CONFIG} with model_type {', '.join(spec.model_types)}")
    return " or ".join(ways)


def _read(path: Path) -> dict[str, Any]:
    """A JSON object of a stranger; whatever else it is counts as saying nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
