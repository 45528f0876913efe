"""``Sample.extra`` as JSON text, and back without a loss: tuples, paths and places of images keep their types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import ImageLocation

_TAG = "\0"
"""First character of the key of an object that stands for another type."""


def encode_extra(extra: Mapping[str, Any], where: str) -> str:
    """``extra`` as JSON text that :func:`decode_extra` reads.

    Raises:
        KdkitError: a value is neither JSON, a tuple, a path nor an ``ImageLocation``.
    """
    return json.dumps(_plain(extra, where), ensure_ascii=False, separators=(",", ":"))


def decode_extra(text: str) -> dict[str, Any]:
    """The mapping of :func:`encode_extra`."""
    found = json.loads(text)
    return _restore(found) if "\\u0000" in text else found  # type: ignore[no-any-return]


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        if all(isinstance(name, str) and not name.startswith(_TAG) for name in value):
            return {name: _plain(one, where) for name, one in value.items()}
        return {f"{_TAG}dict": [[_plain(name, where), _plain(one, where)] for name, one in value.items()]}
    if isinstance(value, list):
        return [_plain(one, where) for one in value]
    if isinstance(value, tuple):
        return {f"{_TAG}tuple": [_plain(one, where) for one in value]}
    if isinstance(value, Path):
        return {f"{_TAG}path": str(value)}
    if isinstance(value, ImageLocation):
        return {f"{_TAG}location": [value.reader, str(value.file), list(value.at), value.name]}
    raise KdkitError(
        "KD-DATA-180",
        f"extra holds a {type(value).__name__}",
        where=where,
        why="extra may hold JSON values, tuples, paths and ImageLocation",
        fix="report this to the authors of the source",
        code=ExitCode.PLUGIN,
    )


def _restore(value: Any) -> Any:
    if isinstance(value, list):
        return [_restore(one) for one in value]
    if not isinstance(value, dict):
        return value
    for tag, content in value.items():
        if not tag.startswith(_TAG):
            break
        if tag == f"{_TAG}path":
            return Path(content)
        if tag == f"{_TAG}location":
            reader, file, at, name = content
            return ImageLocation(reader, Path(file), tuple(at), name)
        parts = _restore(content)
        return tuple(parts) if tag == f"{_TAG}tuple" else dict(parts)
    return {name: _restore(one) for name, one in value.items()}
