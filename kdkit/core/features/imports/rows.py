"""Rows of features as a reader of one file format gives them, and the errors that all readers share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import IMAGE, TEXT

LISTED = "listed"
"""Name of the scores beside a column: 1 for samples on the list of those that the teacher may teach."""
PART_ROWS = 4096
"""Rows that are in memory at a time, where the format allows it."""
SIGNALS: Mapping[str, str] = {
    **dict.fromkeys(("image", "image_vector", "image_features", "vector", "features", "embedding"), IMAGE),
    **dict.fromkeys(("text", "text_vector", "text_features"), TEXT),
}
"""Name of an array or a column in a file -> signal of the store."""


class Part(NamedTuple):
    """Consecutive rows: n ids, and signal -> (n, D)."""

    ids: Sequence[str]
    values: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class FeatureRows:
    """All rows of an import, in the order of the files.

    Attributes:
        files: name -> path of every file that determines the rows.
        parts: reads the rows; called once per pass.
        skipped: reason -> rows that the format's own lists exclude.
        read: options that determined the rows, for the record.
        unused: arrays, columns and files beside the rows, for the report.
        listed: the rows are those of the teacher's list of samples that it may teach.
    """

    files: Mapping[str, Path]
    parts: Callable[[], Iterator[Part]]
    skipped: Mapping[str, int] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    read: Mapping[str, str] = field(default_factory=dict)
    listed: bool = False


@dataclass(frozen=True)
class ReadOptions:
    """How files are read; each format uses its own options and refuses others.

    Attributes:
        ids: file of ids, for arrays without any.
        text: file of text vectors beside one of image vectors.
        key: one of the teachers in a folder of MMKD-CLIP.
        projected: its features in MMKD-CLIP's common space instead of its own.
        id_format: id of a row of an HDF5 file, from ``{file}``, ``{x}``, ``{y}`` and ``{row}``.
        before: ``recorded`` options of an earlier import, used where one is not given.
    """

    ids: Path | None = None
    text: Path | None = None
    key: str | None = None
    projected: bool | None = None
    id_format: str | None = None
    before: Mapping[str, str] = field(default_factory=dict)

    @property
    def recorded(self) -> dict[str, str]:
        """The options that are part of an import's record."""
        found = {name: getattr(self, name) for name in ("key", "projected", "id_format")}
        return {name: str(value) for name, value in found.items() if value}

    def only(self, *used: str, where: str) -> ReadOptions:
        """The options for a format that uses these, completed from ``before``.

        Raises:
            KdkitError: an option is given that the format at ``where`` does not use.
        """
        if others := [name for name in _USED_BY if getattr(self, name) and name not in used]:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in others)
            uses = "; ".join(f"--{name.replace('_', '-')} is for {_USED_BY[name]}" for name in others)
            raise unreadable(where, f"this format does not use {flags}", f"leave it out: {uses}")
        known: dict[str, Any] = {
            name: value == "True" if name == "projected" else value
            for name, value in self.before.items()
            if name in used and getattr(self, name) is None
        }
        return replace(self, **known)


_USED_BY = {
    "ids": ".npy and .npz files",
    "text": ".npy files",
    "key": "folders of MMKD-CLIP",
    "projected": "folders of MMKD-CLIP",
    "id_format": "HDF5 files",
}


def signals_of(names: Sequence[str], where: str) -> dict[str, str]:
    """Signal -> the name in the file that holds it.

    Raises:
        KdkitError: two names for one signal, or none at all.
    """
    found: dict[str, str] = {}
    for name in names:
        signal = SIGNALS.get(name.lower())
        if signal is None:
            continue
        if signal in found:
            raise unreadable(where, f"'{found[signal]}' and '{name}' both hold {signal} vectors", "keep one of them")
        found[signal] = name
    if not found:
        known = ", ".join(SIGNALS)
        raise unreadable(where, f"it has {', '.join(names) or 'nothing'}", f"name the vectors as one of: {known}")
    return found


def as_vectors(array: NDArray[Any], what: str, where: str) -> NDArray[Any]:
    """``array``, if it is (N, D) of floats.

    Raises:
        KdkitError: it has another shape or another type.
    """
    if array.dtype.hasobject:
        raise holds_objects(where, what)
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind != "f":
        why = f"{what} is {array.dtype} of shape {array.shape}"
        raise unreadable(where, why, "features are an array of floats, one row per sample")
    return array


def as_ids(array: NDArray[Any], where: str) -> list[str]:
    """Ids as strings, from an array of strings, bytes or integers.

    Raises:
        KdkitError: anything else, or bytes that are not UTF-8.
    """
    if array.dtype.hasobject:
        raise holds_objects(where, "the array of ids")
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise unreadable(where, f"the ids are {array.dtype} of shape {array.shape}", "ids are one string per row")
    try:
        return [one.decode() if isinstance(one, bytes) else str(one) for one in array.tolist()]
    except UnicodeDecodeError as error:
        raise unreadable(where, f"an id is no UTF-8 text: {error}", "write the ids as strings") from None


def require_count(ids: Sized, rows: int, what: str, where: str) -> None:
    """Raises: KdkitError when the numbers of ids and rows differ."""
    if len(ids) != rows:
        raise unreadable(where, f"{len(ids)} ids for {rows} rows of {what}", "give one id per row, in the same order")


def slices(count: int) -> Iterator[slice]:
    """0..count in parts of :data:`PART_ROWS`."""
    return (slice(start, min(start + PART_ROWS, count)) for start in range(0, count, PART_ROWS))


def files_inside(folder: Path) -> dict[str, Path]:
    """Relative POSIX path -> path of every visible file below ``folder``, sorted.

    Raises:
        KdkitError: a link leads outside, or to a folder.
    """
    root, found = folder.resolve(), {}
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in (*folders, *sorted(names)):
            path = Path(parent) / name
            if path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(root)):
                raise leads_outside(str(folder), f"the link '{path.relative_to(folder)}' points to {os.readlink(path)}")
            if path.is_file() and not name.startswith("."):
                found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def unreadable(where: str, why: str, fix: str, *, code: ExitCode = ExitCode.USAGE) -> KdkitError:
    """The error for a file that is none of the known layouts."""
    return KdkitError("KD-FEAT-022", "these features cannot be read", where=where, why=why, fix=fix, code=code)


def holds_objects(where: str, what: str) -> KdkitError:
    """The error for pickled objects, which are never loaded."""
    return KdkitError(
        "KD-FEAT-023",
        f"{what} holds Python objects",
        where=where,
        why="loading them could run code",
        fix="save it as plain numbers or strings, for example np.array(ids, dtype=str)",
        code=ExitCode.DENIED,
    )


def leads_outside(where: str, why: str) -> KdkitError:
    """The error for links and names that leave the folder."""
    return KdkitError(
        "KD-FEAT-024",
        "features lie outside of the given folder",
        where=where,
        why=why,
        fix="put the files themselves there",
        code=ExitCode.DENIED,
    )


def finite_rows(values: NDArray[Any], dtype: str) -> NDArray[np.bool_]:
    """(n,) whether a row is finite once it is rounded to ``dtype``."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.isfinite(values.astype(dtype)).all(axis=1))
