"""JSON Lines files that a command writes for people: replaced whole, never over somebody else's file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError

LONGEST_ROW = 2**24
"""Bytes of a file's first row that are read."""


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace ``path`` by these rows in one step."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def require_replaceable(path: Path, made_here: Callable[[Mapping[str, Any]], bool]) -> None:
    """Check an output path before long work: an absent file, or an earlier output of the same command.

    Args:
        made_here: whether a row is one that the command writes.

    Raises:
        KdkitError: a folder; a file whose first row is not of that kind.
    """
    if path.is_dir():
        raise KdkitError("KD-BASE-030", "this is a folder", where=str(path), fix="--to FILE.jsonl")
    if not path.is_file():
        return
    with open(path, "rb") as file:
        line = file.readline(LONGEST_ROW)
    with suppress(ValueError, AttributeError, TypeError, KeyError):
        if not line or made_here(json.loads(line)):
            return
    raise KdkitError(
        "KD-BASE-031",
        "this file was not made by this command",
        where=str(path),
        fix="choose another --to, or remove the file",
    )
