"""Files that are not what their name says: what a failed or partial download leaves in their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple
from zipfile import is_zipfile

_LFS, _PAGE = b"version https://git-lfs.github.com/spec/", (b"<!doctype html", b"<html")
_MAY_BE_EMPTY = (".txt", ".md", ".py", ".yaml", ".yml", ".model", ".vocab")


class Damage(NamedTuple):
    """What a file is instead, completing "this file is ...", and the remedy."""

    what: str
    fix: str


def find_damage(path: Path) -> Damage | None:
    """What is in the place of a model's file; None for a file that looks whole.

    It reads the first bytes, and of archives the last ones.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(1024)
    if not size:
        return None if path.suffix in _MAY_BE_EMPTY else Damage("empty", "download it again")
    if start.startswith(_LFS):
        fix = "run 'git lfs pull' in that repository, or download the file itself"
        return Damage("a Git LFS pointer, not the file itself", fix)
    if start.lstrip().lower().startswith(_PAGE) and path.suffix not in (".md", ".html"):
        fix = "download it again: its address needs a login, or is that of a page about the file"
        return Damage("a web page, not the file itself", fix)
    wanted = _expected_size(path, size)
    if wanted is None or wanted == size:
        return None
    return Damage(f"cut off: it has {size:,} bytes" + (f" of {wanted:,}" if wanted else ""), "download it again")


def find_missing_shards(folder: Path) -> list[str]:
    """Files of weights that an index in ``folder`` names beside others that are there.

    An index without any of its files belongs to weights of another format, which were not fetched.
    """
    missing = list[str]()
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            named = {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue  # the loader reports a damaged index
        absent = sorted(name for name in named if Path(name).name == name and not (folder / name).exists())
        missing += absent if len(absent) < len(named) else []
    return missing


def _expected_size(path: Path, size: int) -> int | None:
    """Bytes by the file's own account, 0 for an archive without its end; None if it has none."""
    with open(path, "rb") as file:
        if path.suffix == ".safetensors" and size >= 8:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size - 8, 100_000_000):
                return 8 + length if 0 < length <= 100_000_000 else None
            try:
                header = json.loads(file.read(length))
                ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
                return None
            wanted = 8 + length + max(ends, default=0)
            return wanted if wanted > size else None
        return 0 if file.read(4) == b"PK\x03\x04" and not is_zipfile(path) else None
