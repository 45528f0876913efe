"""Which loader reads a folder, judged by its file names, its config and the names of its weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.tensors import read_header
from kdkit.core.contracts import LoaderSpec

CONFIG = "config.json"
"""The config of a transformers model; its ``model_type`` names the architecture."""
RECORD = "kdkit.json"
"""In a student that kdkit published or exported. Its ``student`` lists the student's own files; other files may be the
same student in a form for other libraries."""


def recognize_loader(loaders: Sequence[LoaderSpec], folder: Path, source: str) -> str:
    """The name of the only loader that recognizes ``folder``.

    Args:
        loaders: all installed ones.
        folder: a fetched model.
        source: for messages.

    Raises:
        KdkitError: none recognizes it, or several do; a model type that no loader knows.
    """
    matching = [spec.name for spec in matching_loaders(loaders, folder)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise KdkitError(
            "KD-TEACH-015",
            "several loaders recognize this folder",
            where=source,
            fix="choose one: " + " or ".join(f"--loader {name}" for name in matching),
        )
    config = _read_object(folder / CONFIG)
    if isinstance(kind := config.get("model_type"), str):
        raise _unknown_type(loaders, kind, source, own_code="auto_map" in config)
    raise KdkitError(
        "KD-TEACH-016",
        "no loader recognizes these files as a model",
        where=source,
        why="; ".join(f"{spec.name} needs {wanted}" for spec in loaders if (wanted := _requirements(spec)))
        or "no installed plugin has a loader",
        fix="check that it is the right folder, or name the loader: --loader LOADER",
    )


def _unknown_type(loaders: Sequence[LoaderSpec], kind: str, source: str, *, own_code: bool) -> KdkitError:
    """The error for a transformers model of a type that no loader names."""
    types = {name: spec.name for spec in loaders for name in spec.model_types}
    close = [f"{name} (loader {types[name]})" for name in get_close_matches(kind, types, n=3)]
    similar = [f"similar known types are {', '.join(close)}"] if close else []
    code = ["it asks for code of its own (auto_map), which kdkit does not run"] if own_code else []
    readers = ", ".join(dict.fromkeys(types.values())) or "none is installed"
    return KdkitError(
        "KD-TEACH-480",
        f"no loader knows models of type '{kind}'",
        where=source,
        why="; ".join([f"{CONFIG} says model_type {json.dumps(kind)}", *code, *similar]),
        fix=f"--loader LOADER ({readers}) says what that one takes; or write one: docs/howto/write-plugin.md",
    )


def matching_loaders(loaders: Iterable[LoaderSpec], folder: Path) -> list[LoaderSpec]:
    """Loaders whose marks are all in ``folder``, or with the ``model_type`` or the keys of its config.

    If there is none: loaders of which all names of one of their ``weight_keys`` are in one of its safetensors files.
    """
    loaders = list(loaders)
    names = _model_files(folder)
    config = _read_object(folder / CONFIG) if CONFIG in names else {}
    kind = config.get("model_type")
    described = [
        spec
        for spec in loaders
        if names.isdisjoint(spec.unless)
        and (
            (spec.marks and names.issuperset(spec.marks))
            or kind in spec.model_types
            or (spec.config_keys and kind is None and config.keys() >= set(spec.config_keys))
        )
    ]
    return described or _matching_weights(loaders, folder, names)


def _matching_weights(loaders: Iterable[LoaderSpec], folder: Path, names: Iterable[str]) -> list[LoaderSpec]:
    files = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    weights = [_weight_names(folder / name) for name in files]
    return [
        spec for spec in loaders if any(names.issuperset(layout) for layout in spec.weight_keys for names in weights)
    ]


def _weight_names(path: Path) -> frozenset[str]:
    """Names of the weights in a file; empty for a damaged one, which the loader reports."""
    try:
        return frozenset(read_header(path).shapes)
    except KdkitError:
        return frozenset()


def _model_files(folder: Path) -> frozenset[str]:
    """Relative POSIX paths of the model's files: all, or those that a release lists as the student's."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    listed = _read_object(folder / RECORD).get("student") if RECORD in names else None
    if isinstance(listed, list) and listed:
        names &= {name for name in listed if isinstance(name, str)}
    return frozenset(names)


def _requirements(spec: LoaderSpec) -> str:
    ways = [", ".join(spec.marks)] if spec.marks else []
    if spec.model_types:
        ways.append(f"a {CONFIG} with model_type {', '.join(spec.model_types)}")
    if spec.config_keys:
        ways.append(f"a {CONFIG} with {' and '.join(spec.config_keys)}")
    if spec.weight_keys:
        ways.append(f"weights with {' or '.join(layout[0] for layout in spec.weight_keys)}")
    return " or ".join(ways)


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty for anything else, since the file comes from outside."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
