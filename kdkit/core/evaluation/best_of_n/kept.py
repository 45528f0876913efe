"""Groups of answers on the disk while a command asks for more: what was killed, or failed, goes on behind the last."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Group = Mapping[str, Any]


class Kept:
    """A line per group, each on the disk before the next one is asked for.

    Groups are made in a fixed order, so that a model gives the same answers to the same groups.

    Args:
        path: of exactly these questions, models and settings; made with the first group.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Group]:
        """The groups that are whole; what a kill cut off behind them is forgotten."""
        found, size = list[Group](), 0
        for line, group in self._whole():
            found.append(group)
            size += len(line)
        if self._path.is_file():
            os.truncate(self._path, size)
        return found

    def append(self, group: Group) -> None:
        """Put the next group on the disk."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "ab") as file:
            file.write(json.dumps(group).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """All of them were put where they belong."""
        self._path.unlink(missing_ok=True)

    def _whole(self) -> Iterator[tuple[bytes, Group]]:
        lines: Sequence[bytes] = self._path.read_bytes().splitlines(keepends=True) if self._path.is_file() else ()
        for line in lines:
            try:
                group = json.loads(line)
            except ValueError:
                return
            if not line.endswith(b"\n"):
                return
            yield line, group
