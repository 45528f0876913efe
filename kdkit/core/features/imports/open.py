"""Which reader takes a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kdkit.core.base.errors import ExitCode
from kdkit.core.features.imports.arrays import is_npy_folder, read_npy, read_npy_folder, read_npz
from kdkit.core.features.imports.hdf5 import ENDINGS, read_hdf5, read_hdf5_files
from kdkit.core.features.imports.mmkd import META, read_mmkd
from kdkit.core.features.imports.parquet import read_parquet, read_parquet_files
from kdkit.core.features.imports.rows import FeatureRows, Part, ReadOptions, files_inside, unreadable

Reader = Callable[[Path, ReadOptions], FeatureRows]
READERS: Mapping[str, Reader] = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".parquet": read_parquet,
    **dict.fromkeys(ENDINGS, read_hdf5),
}
"""Ending of a file -> its reader."""


def open_rows(paths: Sequence[Path], options: ReadOptions) -> FeatureRows:
    """The rows of all paths, in their order.

    Raises:
        KdkitError: a path is missing, of no known format, or cannot be read.
    """
    if len(paths) > 1 and (options.ids or options.text):
        raise unreadable(str(paths[1]), "--ids and --text belong to one file", "import one file with them")
    found = [_open(path, options) for path in paths]
    if len(found) == 1:
        return found[0]
    files = {f"{number}/{name}": file for number, one in enumerate(found) for name, file in one.files.items()}
    skipped: dict[str, int] = {}
    for reason, count in (item for one in found for item in one.skipped.items()):
        skipped[reason] = skipped.get(reason, 0) + count
    unused, read = (
        tuple(name for one in found for name in one.unused),
        {k: v for one in found for k, v in one.read.items()},
    )
    return FeatureRows(files, _chained(found), skipped, unused, read)


def _chained(found: Sequence[FeatureRows]) -> Callable[[], Iterator[Part]]:
    def parts() -> Iterator[Part]:
        for rows in found:
            yield from rows.parts()

    return parts


def _open(path: Path, options: ReadOptions) -> FeatureRows:
    if path.is_dir():
        return _open_folder(path, options)
    if not path.is_file():
        raise unreadable(str(path), "there is no such file", "check the path", code=ExitCode.MISSING)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise unreadable(str(path), f"'{path.suffix}' is no known ending", f"known are {', '.join(READERS)}")
    return reader(path, options)


def _open_folder(folder: Path, options: ReadOptions) -> FeatureRows:
    if (folder / META).is_file():
        return read_mmkd(folder, options)
    files = files_inside(folder)
    if is_npy_folder(files):
        options.only(where=str(folder))
        return read_npy_folder(files, str(folder))
    known = {name: path for name, path in files.items() if path.suffix.lower() in (*ENDINGS, ".parquet")}
    kinds = {path.suffix.lower() for path in known.values()}
    if not kinds or (".parquet" in kinds and len(kinds) > 1):
        why = f"it has {', '.join(sorted(kinds)) or 'none of them'}"
        fix = f"a folder holds {META} of MMKD-CLIP, a file of ids with .npy files, or only .h5 or only .parquet files"
        if ".npy" in {path.suffix for path in files.values()}:
            fix += "; name each folder of .npy files with its own --from"
        raise unreadable(str(folder), why, fix)
    options = options.only(*(() if ".parquet" in kinds else ("id_format",)), where=str(folder))
    rows = read_parquet_files(known) if ".parquet" in kinds else read_hdf5_files(known, options)
    return replace(rows, unused=(*rows.unused, *(name for name in files if name not in known)))
