"""When files and folders changed last, so that what was read from them can be kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

Stamp = list[int] | None
"""Size, times of modification and change in ns, and inode; None for a missing file."""
RECENT_NS = 2_000_000_000
"""Two changes within the resolution of a file system's clock have one time."""


def stamps_of(paths: Iterable[Path]) -> dict[str, Stamp]:
    """Path -> its stamp."""
    return {str(path): _stamp(path) for path in paths}


def unchanged(stamps: dict[str, Stamp], since: int) -> bool:
    """Whether all paths have these stamps still.

    A file that had just changed when it was read may have changed once more in the same instant, so it counts as
    changed. (Git treats its index in the same way: "racy git".)

    Args:
        stamps: of :func:`stamps_of`.
        since: when they were made, in ns.
    """
    recent = any(stamp is not None and stamp[2] > since - RECENT_NS for stamp in stamps.values())
    return not recent and all(_stamp(path) == stamp for path, stamp in stamps.items())


def _stamp(path: str | Path) -> Stamp:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
