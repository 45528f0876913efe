"""Corners of tiles by slide, kept in files, so that an interrupted command looks at no slide twice."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from kdkit.plugins.sources.wsi_tiles import Tiles

VERSION = 1
"""Changes with what a plan means."""


class TileCache:
    """One file per slide; a damaged one is made again.

    Args:
        folder: of the files; None keeps nothing.
        plan: all that decides the tiles of a slide.
    """

    def __init__(self, folder: Path | None, plan: Mapping[str, Any]) -> None:
        self._folder = None if folder is None else folder / "wsi"
        self._plan = json.dumps([VERSION, plan], sort_keys=True)

    def get(self, path: Path, find: Callable[[], Tiles]) -> Tiles:
        """The tiles of a slide; ``find`` is called where they are not known, and its errors are not kept."""
        if self._folder is None or not path.exists():
            return find()
        named = f"{os.path.abspath(path)}\0{self._plan}".encode(errors="surrogateescape")
        file = self._folder / f"{blake2b(named, digest_size=12).hexdigest()}.npz"
        found = os.stat(path)
        stamp = np.array([found.st_size, found.st_mtime_ns])
        with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(file) as known:
            if (known["stamp"] == stamp).all():
                level, read, side = known["layout"].tolist()
                return Tiles(level, read, side, known["corners"])
        tiles = find()
        with suppress(OSError):  # on a read-only disk slides are looked at again each time
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as draft:
                layout = np.array([tiles.level, tiles.read, tiles.side])
                np.savez(draft, stamp=stamp, layout=layout, corners=tiles.corners)
            os.replace(draft.name, file)
        return tiles
