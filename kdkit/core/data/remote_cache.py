"""Fetched files that no data entry names any more: they are kept while there is room, the least recently used go first.

Files of the registry's own entries are never removed, nor those that another command is fetching. Beside the folder of
a URL that a data entry has named lies a file whose time says when a command used it last.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from kdkit.core.base.locks import file_lock
from kdkit.core.base.result import format_size
from kdkit.core.contracts import Reporter

USED = ".used"
RECORD, LOCK = ".files.json", ".lock"
"""Endings of files beside the folder of a URL: name -> stamp of what is in it, and a lock."""


def beside(folder: Path, ending: str) -> Path:
    """A file beside the folder of a URL."""
    return folder.with_name(folder.name + ending)


def note_use(folder: Path) -> None:
    """A command uses these files for a data entry."""
    with suppress(OSError):  # it may lie on a disk that nothing can be written to
        beside(folder, USED).touch()


def make_room(folder: Path, keep: Collection[Path], missing: int, total: int, limit: int, reporter: Reporter) -> None:
    """Remove files of other URLs, as far as the limit or the disk asks for it.

    Nothing is removed if the disk had no room even then.

    Args:
        folder: of the URL that is fetched.
        keep: folders of the URLs that data entries name.
        missing: bytes to fetch; ``total``: of all files of the URL.
        limit: bytes of ``total`` and of the files that no entry names, together.
        reporter: receives what is removed.
    """
    unused = [one for one in _used_before(folder.parent) if one != folder and one not in keep]
    sizes = {one: _size(one) for one in unused}
    lacking = missing - shutil.disk_usage(folder.parent).free
    if lacking > sum(sizes.values()):
        return
    excess = max(lacking, total + sum(sizes.values()) - limit)
    for one in unused:
        if excess <= 0:
            return
        if _remove(one):
            excess -= sizes[one]
            what = f"{one.name} ({format_size(sizes[one])})"
            reporter.say(f"removed {what}, which no data entry names any more, to make room")


def _used_before(place: Path) -> list[Path]:
    """Folders of URLs of data entries, the least recently used first."""
    if place.is_symlink():  # a project of others may bring one
        return []
    marks = [path for path in place.glob("*" + USED) if path.is_file() and not path.is_symlink()]
    found = sorted((path.stat().st_mtime_ns, path.name.removesuffix(USED)) for path in marks)
    folders = [place / name for _, name in found]
    return [path for path in folders if path.is_dir() and not path.is_symlink()]


def _size(folder: Path) -> int:
    return sum(os.lstat(os.path.join(where, name)).st_size for where, _, names in os.walk(folder) for name in names)


def _remove(folder: Path) -> bool:
    """Whether the folder was removed: not if another command fetches into it."""
    with file_lock(beside(folder, LOCK)) as mine:
        if not mine:
            return False
        beside(folder, RECORD).unlink(missing_ok=True)  # first: what is left after an interruption is fetched again
        shutil.rmtree(folder)
        for ending in (USED, LOCK):
            beside(folder, ending).unlink(missing_ok=True)
    return True
