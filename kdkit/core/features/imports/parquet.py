"""Parquet: a column of ids, and vectors of images and texts as lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.features.imports.rows import (
    PART_ROWS,
    FeatureRows,
    Part,
    ReadOptions,
    as_vectors,
    signals_of,
    unreadable,
)

IDS = ("id", "ids", "sample_id")


def read_parquet(path: Path, options: ReadOptions) -> FeatureRows:
    """Rows of one file."""
    options.only(where=str(path))
    return read_parquet_files({path.name: path})


def read_parquet_files(files: Mapping[str, Path]) -> FeatureRows:
    """Rows of several files with the same columns, ordered by name."""
    from pyarrow import parquet

    unused: list[str] = []
    for path in files.values():
        with _opened(parquet, path) as file:
            ids, found = _columns(file.schema_arrow.names, str(path))
            unused += [f"{path.name}: {n}" for n in file.schema_arrow.names if n != ids and n not in found.values()]

    def parts() -> Iterator[Part]:
        for path in files.values():
            with _opened(parquet, path) as file:
                ids, found = _columns(file.schema_arrow.names, str(path))
                for batch in _batches(file, [ids, *found.values()], path):
                    names = _ids(batch.column(ids), path)
                    yield Part(names, {s: _vectors(batch.column(name), name, names, path) for s, name in found.items()})

    return FeatureRows(files, parts, unused=tuple(unused))


def _columns(names: list[str], where: str) -> tuple[str, dict[str, str]]:
    """The column of ids, and signal -> column."""
    ids = next((name for name in names if name.lower() in IDS), None)
    if ids is None:
        raise unreadable(where, f"it has {', '.join(names)}", "name the column of ids 'id'")
    if names.count(ids) > 1:
        raise unreadable(where, f"it has two columns '{ids}'", "rename one of them")
    return ids, signals_of([name for name in names if name != ids], where)


def _opened(parquet: Any, path: Path) -> Any:
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise unreadable(str(path), str(error), "check that it is a whole Parquet file") from None


def _batches(file: Any, columns: list[str], path: Path) -> Iterator[Any]:
    try:
        yield from file.iter_batches(PART_ROWS, columns=columns, use_threads=False)
    except (OSError, ValueError) as error:
        raise unreadable(str(path), str(error), "check that it is a whole Parquet file") from None


def _ids(column: Any, path: Path) -> list[str]:
    found = column.to_pylist()
    if not all(isinstance(one, str | int) and not isinstance(one, bool) for one in found):
        raise unreadable(str(path), f"the ids are {column.type}, or some are empty", "ids are one string per row")
    return [str(one) for one in found]


def _vectors(column: Any, name: str, ids: list[str], path: Path) -> NDArray[Any]:
    """(n, D), from lists of equal length."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise unreadable(str(path), f"'{name}' is {kind}", "vectors are lists of floats")
    lengths = np.array([-1 if one is None else one for one in pc.list_value_length(column).to_pylist()])
    if len(set(lengths.tolist())) > 1 or -1 in lengths:
        odd = int(np.flatnonzero(lengths != lengths.max())[0]) if (lengths != lengths.max()).any() else 0
        size = "no vector" if lengths[odd] < 0 else f"{lengths[odd]} numbers"
        why = f"'{ids[odd]}' has {size} in '{name}', others have {lengths.max()}"
        raise unreadable(str(path), why, "give every row a vector of the same width")
    flat = pc.list_flatten(column)
    values = flat.to_numpy(zero_copy_only=False)  # an empty number is NaN
    return as_vectors(values.reshape(len(column), -1), f"'{name}'", str(path))
