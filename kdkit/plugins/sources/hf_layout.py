"""Which files a data set of the library ``datasets`` consists of, and the split of each.

Known are folders of ``save_to_disk``, the library's cache, the Hub's cache, and folders with Parquet files as on the
Hub. Nothing is imported or run: a data set that is a program is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.plugins.sources.records import file_below, json_object

DICT, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"
DEEP = 4
"""Levels of the library's cache: name, configuration, version, hash."""


@dataclass(frozen=True)
class Layout:
    """The files of a data set.

    Attributes:
        says: what it is.
        root: the folder that paths in ids are below.
        files: file -> its split as the data set names it, None if it names none; empty for Parquet files, which the
            source finds itself.
        counts: split -> the rows that it must have, where that is known.
    """

    says: str
    root: Path
    files: Mapping[Path, str | None] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


def find_layout(location: Path) -> Layout | None:
    """The data set at a file or folder; None if there is none.

    Raises:
        KdkitError: several data sets, a missing file, or a data set that is a program.
    """
    if location.is_file():
        return Layout("one file", location.parent, {location: None} if location.suffix == ".arrow" else {})
    if (location / DICT).is_file():
        return _saved_dict(location)
    if (location / STATE).is_file():
        return Layout("a data set of save_to_disk", location, _saved(location, None))
    if (location / INFO).is_file() and any(location.glob("*.arrow")):
        return _cached(location)
    if (location / "snapshots").is_dir():
        snapshots = sorted(path for path in (location / "snapshots").iterdir() if path.is_dir())
        found = find_layout(_only(snapshots, location, "commits"))
        return found and Layout(f"the Hub's cache, commit {found.root.name[:12]}", found.root, found.files)
    if below := _below(location):
        return find_layout(_only(below, location, "data sets"))
    if any(location.rglob("*.parquet")):
        return Layout("Parquet files of the Hub", location)
    if script := next((path for path in sorted(location.glob("*.py"))), None):
        raise KdkitError(
            "KD-SRC-322",
            "this data set is a program, and kdkit runs no programs of data sets",
            where=str(script),
            why="it has no Parquet or Arrow files",
            fix="name the commit of its branch refs/convert/parquet (the Hub makes one for most data sets): "
            "hf://datasets/OWNER/NAME@COMMIT; or run it yourself where you trust it, and use save_to_disk",
        )
    return None


def looks_saved(location: Path) -> bool:
    """Whether the library has made this folder; cheap where it has not."""
    marks = (DICT, STATE, INFO, "snapshots")
    return any((location / name).exists() for name in marks) or bool(_below(location))


def _below(location: Path) -> list[Path]:
    """Data sets of the library's cache in a folder of it."""
    infos = (path for depth in range(1, DEEP + 1) for path in location.glob("*/" * depth + INFO))
    return sorted({path.parent for path in infos if any(path.parent.glob("*.arrow"))})


def _only(found: list[Path], location: Path, what: str) -> Path:
    if len(found) == 1:
        return found[0]
    raise KdkitError(
        "KD-SRC-323",
        f"several {what} are in this folder" if found else f"no {what} are in this folder",
        where=str(location),
        why=", ".join(str(path.relative_to(location)) for path in found[:5]),
        fix="name one of them as the path of the data entry",
    )


def _saved_dict(location: Path) -> Layout:
    names = json_object(location / DICT).get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _damaged(location / DICT, "it names no splits")
    files: dict[Path, str | None] = {}
    for name in names:
        files |= _saved(file_below(location, name, str(location / DICT)), name)
    return Layout("a data set of save_to_disk with splits", location, files)


def _saved(folder: Path, split: str | None) -> dict[Path, str | None]:
    """The files of ``state.json`` with their split."""
    where, state = folder / STATE, json_object(folder / STATE)
    given = state.get("_data_files")
    if not isinstance(given, list) or not all(isinstance(one, dict) and "filename" in one for one in given):
        raise _damaged(where, "it names no files")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise _damaged(where, "an old version of the library wrote the order of the rows apart from them")
    named = state.get("_split")
    if split is None and isinstance(named, str):
        split = named.partition("[")[0]  # train[:10%]
    return {_existing(file_below(folder, one["filename"], str(where)), where): split for one in given}


def _cached(folder: Path) -> Layout:
    """The files of the library's cache, which are named after the data set and the split."""
    where, info = folder / INFO, json_object(folder / INFO)
    files: dict[Path, str | None] = {}
    counts: dict[str, int] = {}
    splits = info.get("splits")
    for name, split in (splits if isinstance(splits, dict) else {}).items():
        if not isinstance(split, dict):
            raise _damaged(where, f"the split {name} is no object")
        stem = f"{split.get('dataset_name') or info.get('dataset_name') or info.get('builder_name')}-{name}"
        lengths = split.get("shard_lengths")
        shards = len(lengths) if isinstance(lengths, list) else 1
        ends = [f"-{number:05d}-of-{shards:05d}" for number in range(shards)] if shards > 1 else [""]
        files |= {_existing(file_below(folder, f"{stem}{end}.arrow", str(where)), where): name for end in ends}
        if isinstance(split.get("num_examples"), int):
            counts[name] = split["num_examples"]
    if not files:
        raise _damaged(where, "it names no splits")
    return Layout("the cache of the library datasets", folder, files, counts)


def _existing(path: Path, where: Path) -> Path:
    if path.is_file():
        return path
    raise KdkitError(
        "KD-SRC-324",
        "a file of this data set is missing",
        where=str(path),
        why=f"{where.name} names it",
        fix="save or download the data set again",
        code=ExitCode.MISSING,
    )


def _damaged(where: Path, why: str) -> KdkitError:
    return KdkitError(
        "KD-SRC-325",
        "the description of this data set cannot be used",
        where=str(where),
        why=why,
        fix="load the data set with a current version of the library datasets, and save it by save_to_disk",
    )


def feature_kind(feature: Any) -> str:
    """The type of a feature of the library, such as ``Image``; empty if it is none."""
    return str(feature.get("_type", "")) if isinstance(feature, Mapping) else ""
