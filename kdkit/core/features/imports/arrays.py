"""``.npy`` and ``.npz`` files: arrays with ids, never pickled objects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.contracts import IMAGE, TEXT
from kdkit.core.features.imports.rows import (
    SIGNALS,
    FeatureRows,
    Part,
    ReadOptions,
    as_ids,
    as_vectors,
    holds_objects,
    require_count,
    signals_of,
    slices,
    unreadable,
)

_MAGIC = b"\x93NUMPY"
IDS = "ids"
"""The array of ids in an archive, and the stem of the file of ids in a folder."""


def read_npz(path: Path, options: ReadOptions) -> FeatureRows:
    """``ids``, and ``image`` and ``text`` under any of their names; a single array of another name is ``image``."""
    options = options.only("ids", where=str(path))
    archive = _load(path)
    if isinstance(archive, np.ndarray):
        raise unreadable(str(path), "it holds one array", "rename it to .npy")
    names = [name for name in archive.files if name != IDS]
    with archive:
        alone = len(names) == 1 and names[0].lower() not in SIGNALS
        found = {IMAGE: names[0]} if alone else signals_of(names, str(path))
        if options.ids is None and IDS not in archive.files:
            why = f"it has {', '.join(archive.files)}"
            raise unreadable(str(path), why, "add an array 'ids', or name a file of ids: --ids FILE")
        ids = read_ids(options.ids) if options.ids else as_ids(_member(archive, IDS, path), str(path))
        values = {signal: _member(archive, name, path) for signal, name in found.items()}
    unused = tuple(f"{path.name}: {name}" for name in names if name not in found.values())
    files = {path.name: path, **({f"ids/{options.ids.name}": options.ids} if options.ids else {})}
    return _rows(values, ids, files, str(path), unused)


def read_npy(path: Path, options: ReadOptions) -> FeatureRows:
    """Image vectors, with ``--ids`` and perhaps ``--text``."""
    options = options.only("ids", "text", where=str(path))
    if options.ids is None:
        raise unreadable(str(path), "an array has no ids", "name a file with one id per row: --ids FILE")
    files = {path.name: path, f"ids/{options.ids.name}": options.ids}
    values = {IMAGE: _array(path)}
    if options.text is not None:
        files[f"text/{options.text.name}"] = options.text
        values[TEXT] = _array(options.text)
    return _rows(values, read_ids(options.ids), files, str(path))


def is_npy_folder(files: Mapping[str, Path]) -> bool:
    """Whether a folder itself, not one inside it, holds a file of ids and arrays."""
    top = [path for name, path in files.items() if name == path.name]
    return any(path.stem == IDS for path in top) and any(path.suffix == ".npy" and path.stem != IDS for path in top)


def read_npy_folder(files: Mapping[str, Path], where: str) -> FeatureRows:
    """A folder with ``ids.txt``, ``image.npy`` and perhaps ``text.npy``, as ``kdkit features export`` writes it.

    Folders inside it are not read: their rows have ids of their own.
    """
    top = [path for name, path in files.items() if name == path.name]
    ids, *others = [path for path in top if path.stem == IDS]
    if others:
        raise unreadable(where, f"it has {ids.name} and {others[0].name}", "keep one file of ids")
    arrays = {path.stem: path for path in top if path.suffix == ".npy" and path != ids}
    found = signals_of(list(arrays), where)
    values = {signal: _array(arrays[name]) for signal, name in found.items()}
    used = {path.name: path for path in (ids, *(arrays[name] for name in found.values()))}
    unused = tuple(name for name, path in files.items() if path not in used.values())
    return _rows(values, read_ids(ids), used, where, unused)


def read_ids(path: Path) -> list[str]:
    """Ids from ``.txt`` (one per line), ``.json`` (a list) or ``.npy``.

    Raises:
        KdkitError: another file, or one that cannot be read.
    """
    try:
        if path.suffix == ".npy":
            return as_ids(_array(path), str(path))
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix != ".json":
            return [line for line in text.replace("\r\n", "\n").split("\n") if line]
        ids = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(str(path), str(error), "give ids as .txt (one per line), .json (a list) or .npy") from None
    if not isinstance(ids, list) or not all(isinstance(one, str | int) for one in ids):
        raise unreadable(str(path), "it is no list of strings", "give ids as a JSON list of strings")
    return [str(one) for one in ids]


def _rows(
    values: Mapping[str, NDArray[Any]],
    ids: list[str],
    files: Mapping[str, Path],
    where: str,
    unused: tuple[str, ...] = (),
) -> FeatureRows:
    for signal, array in values.items():
        as_vectors(array, f"'{signal}'", where)
        require_count(ids, len(array), signal, where)

    def parts() -> Iterator[Part]:
        for part in slices(len(ids)):
            yield Part(ids[part], {signal: array[part] for signal, array in values.items()})

    return FeatureRows(files, parts, unused=unused)


def _load(path: Path) -> Any:
    """Map ``.npy`` and open ``.npz``, without pickles."""
    try:
        with path.open("rb") as handle:
            begin = handle.read(len(_MAGIC))
    except OSError as error:
        raise unreadable(str(path), str(error), "check the file") from None
    if begin.startswith(b"\x80"):
        raise holds_objects(str(path), "the file")
    if begin != _MAGIC and not begin.startswith(b"PK"):
        raise unreadable(str(path), "it is no file of NumPy", "save the array with numpy.save or numpy.savez")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy, zipfile and zlib raise many errors for damaged files
        if "objects" in str(error):
            raise holds_objects(str(path), "the file") from None
        raise unreadable(str(path), _first_line(error), "check that it is a whole .npy or .npz file") from None


def _array(path: Path) -> NDArray[Any]:
    found = _load(path)
    if not isinstance(found, np.ndarray):
        raise unreadable(str(path), "it is an archive of arrays", "rename it to .npz")
    return found


def _member(archive: Any, name: str, path: Path) -> NDArray[Any]:
    fix = "write the archive again with numpy.savez"
    try:
        found = archive[name]
    except Exception as error:  # a damaged, encrypted or otherwise compressed archive raises many errors
        if "allow_pickle" in str(error) or "objects" in str(error):
            raise holds_objects(str(path), f"the array '{name}'") from None
        raise unreadable(str(path), f"{name}: {_first_line(error)}", fix) from None
    if not isinstance(found, np.ndarray):
        raise unreadable(str(path), f"'{name}' is no array", fix)
    return found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
