"""The files below a folder, and what is passed over there: nothing is left out without a word."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Skipped

HIDDEN = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini")
"""What file managers and archives leave, beside names with a leading dot."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is passed over."""
    return name.startswith(".") or name in HIDDEN


def walk_files(folder: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Path | Skipped]:
    """Files in the order of their names, and a ``Skipped`` for what is no file or is hidden. It follows links.

    Args:
        folder: where to look, at any depth.
        above: device and inode of the folders that lead to it.

    Raises:
        KdkitError: a folder cannot be read.
    """
    stat = os.stat(folder)
    if (stat.st_dev, stat.st_ino) in above:
        yield Skipped("links to a folder above them", str(folder), level="note")
        return
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise KdkitError(
            "KD-SRC-006",
            "this folder cannot be read",
            where=str(folder),
            why=error.strerror or str(error),
            fix="correct the permissions of the folder",
        ) from error
    for path in (folder / name for name in names):
        if is_hidden(path.name):
            yield Skipped("hidden files and folders", str(path), level="note")
        elif os.path.isdir(path):
            yield from walk_files(path, (*above, (stat.st_dev, stat.st_ino)))
        elif os.path.isfile(path):
            yield path
        else:
            yield Skipped("broken links and special files", str(path), "remove them, or restore what they point to")
