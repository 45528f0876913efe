"""HDF5 as TRIDENT and CLAM write it: ``features`` and ``coords`` of the patches of one slide per file.

A file with one vector for the whole slide, as TRIDENT's slide encoders write it, is one row.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.hdf5 import DAMAGED, OutsideFileError, own_dataset, read_coordinates
from kdkit.core.contracts import IMAGE
from kdkit.core.features.imports.rows import (
    PART_ROWS,
    FeatureRows,
    Part,
    ReadOptions,
    as_vectors,
    leads_outside,
    require_count,
    unreadable,
)

ENDINGS = (".h5", ".hdf5")
FEATURES, COORDS = "features", "coords"
OF_PATCH, OF_SLIDE = "{file}_{x}_{y}", "{file}"
FIELDS = ("file", "x", "y", "row")
WHOLE = "check that it is a whole HDF5 file"


def read_hdf5(path: Path, options: ReadOptions) -> FeatureRows:
    """The patches of one slide."""
    return read_hdf5_files({path.name: path}, options.only("id_format", where=str(path)))


def read_hdf5_files(files: Mapping[str, Path], options: ReadOptions) -> FeatureRows:
    """The patches of several slides, ordered by file name."""
    if options.id_format is not None:
        _check_format(options.id_format)
    unused: list[str] = []
    for path in files.values():
        with _opened(path) as file:
            _features(file, path)
            unused += [f"{path.name}: {name}" for name in file if name not in (FEATURES, COORDS)]

    def parts() -> Iterator[Part]:
        for name, path in files.items():
            yield from _parts(PurePosixPath(name).with_suffix("").as_posix(), path, options.id_format)

    return FeatureRows(files, parts, unused=tuple(unused), read=options.recorded)


def _parts(stem: str, path: Path, id_format: str | None) -> Iterator[Part]:
    with _opened(path) as file:
        dataset = _features(file, path)
        shape = dataset.shape
        if len(shape) == 1 or (shape[0] == 1 and COORDS not in file and len(shape) == 2):
            values = as_vectors(np.atleast_2d(_values(dataset, ..., path)), FEATURES, str(path))
            yield Part(_ids(stem, 0, None, 1, id_format or OF_SLIDE, path), {IMAGE: values})
            return
        flat = len(shape) == 3 and shape[0] == 1  # some versions keep the batch axis
        count = shape[1] if flat else shape[0]
        coords = _coords(file, path)
        if coords is not None:
            require_count(coords, count, FEATURES, str(path))
        for start in range(0, count, PART_ROWS):
            rows = slice(start, min(start + PART_ROWS, count))
            values = as_vectors(_values(dataset, (0, rows) if flat else rows, path), FEATURES, str(path))
            yield Part(_ids(stem, start, coords, len(values), id_format or OF_PATCH, path), {IMAGE: values})


def _ids(stem: str, start: int, coords: NDArray[Any] | None, count: int, id_format: str, path: Path) -> Sequence[str]:
    if coords is None and ("{x}" in id_format or "{y}" in id_format):
        fix = "build the ids without them: --id-format '{file}_{row}'"
        raise unreadable(str(path), f"it has no '{COORDS}' for the ids '{id_format}'", fix)
    places = [(0, 0)] * count if coords is None else coords[start : start + count].tolist()
    return [
        id_format.format(file=stem, x=int(place[0]), y=int(place[1]), row=start + i) for i, place in enumerate(places)
    ]


def _check_format(text: str) -> None:
    try:
        fields = [name for _, name, spec, _ in string.Formatter().parse(text) if name is not None or spec]
    except ValueError:
        fields = [None]
    if not fields or not set(fields) <= set(FIELDS):
        known = ", ".join(f"{{{field}}}" for field in FIELDS)
        raise unreadable(f"--id-format {text}", f"an id is built from {known}", f"write for example '{OF_PATCH}'")


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise unreadable(str(path), str(error), WHOLE) from None


def _features(file: h5py.File, path: Path) -> h5py.Dataset:
    dataset = _dataset(file, FEATURES, path)
    if dataset is None:
        why = f"it has {', '.join(file) or 'nothing'}"
        raise unreadable(str(path), why, f"TRIDENT and CLAM store the vectors as '{FEATURES}'")
    if not dataset.shape:
        raise unreadable(str(path), f"'{FEATURES}' is a single number, or nothing", "store a vector per patch")
    return dataset


def _values(dataset: h5py.Dataset, place: Any, path: Path) -> NDArray[Any]:
    """Some of a dataset.

    Raises:
        KdkitError: it is damaged, or needs a filter that is not installed.
    """
    try:
        found: NDArray[Any] = dataset[place]
    except DAMAGED as error:
        raise unreadable(str(path), str(error), WHOLE) from None
    return found


def _coords(file: h5py.File, path: Path) -> NDArray[Any] | None:
    dataset = _dataset(file, COORDS, path)
    if dataset is None:
        return None
    try:
        return read_coordinates(dataset, COORDS)
    except ValueError as error:
        raise unreadable(str(path), str(error), "they are (x, y) per patch") from None


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset | None:
    """A dataset whose values lie in this file; None if it is not there."""
    try:
        return own_dataset(file, name)
    except OutsideFileError as error:
        raise leads_outside(str(path), str(error)) from None
    except ValueError as error:
        raise unreadable(str(path), str(error), "TRIDENT and CLAM store it as a dataset") from None
