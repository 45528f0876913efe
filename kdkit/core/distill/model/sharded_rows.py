"""Rows that the processes of a run make together, each its share, and that all of them read from disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from kdkit.core.base.atomic import disk_errors
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.distill.loop.distributed import meet, own_rank, world_size
from kdkit.core.distill.loop.sampler import Indices

Array = np.ndarray[Any, Any]
Rows = Mapping[str, Array]
"""Signal -> (n, *shape)."""


class RowFiles:
    """What :func:`make_together` made; row ``n`` is that of the n-th index.

    Args:
        paths: a file per process that made any, of records with a field per signal.
        size: rows of one group; groups were dealt to the processes one by one.
    """

    def __init__(self, paths: Sequence[Path], size: int, world: int) -> None:
        self._size, self._world = size, world
        # Mapped: on one machine, memory holds them once.
        self._parts: list[Array] = [np.load(_seen(path), mmap_mode="r") for path in paths]

    def shape(self, signal: str) -> tuple[int, ...]:
        """Of one row."""
        return tuple(self._parts[0].dtype[signal].shape)

    def gather(self, signal: str, rows: Indices) -> Array:
        """(len(rows), *shape)."""
        group, within = np.divmod(rows, self._size)
        maker, place = group % self._world, group // self._world * self._size + within
        out = np.empty((len(rows), *self.shape(signal)), self._parts[0].dtype[signal].base)
        for number, part in enumerate(self._parts):
            here = maker == number
            out[here] = part[signal][place[here]]
        return out


def make_together(
    folder: Path,
    indices: Indices,
    rows_of: Callable[[Indices], Rows],
    *,
    size: int,
    progress: Callable[[int, int], None],
) -> RowFiles:
    """The rows of ``indices``, made in groups of ``size`` whatever the number of processes, so that they are the same.

    All processes must call it at the same point.

    Args:
        folder: what is in it goes; a place that every process sees.
        rows_of: the rows of a group.
        progress: called before the first group and after each with how many of this process's rows are made, and how
            many there are.

    Raises:
        KdkitError: no room on the disk, or no permission; processes that do not see each other's files.
    """
    with disk_errors(str(folder)):
        if own_rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        meet()
        groups = [indices[start : start + size] for start in range(0, len(indices), size)]
        mine = groups[own_rank() :: world_size()]
        if mine:
            with open(_file(_seen(folder), own_rank()), "wb") as file:
                _write(file, mine, rows_of, progress)
        meet()
        makers = range(min(world_size(), len(groups)))
        return RowFiles([_file(folder, rank) for rank in makers], size, world_size())


def _write(
    file: BinaryIO, groups: Sequence[Indices], rows_of: Callable[[Indices], Rows], progress: Callable[[int, int], None]
) -> None:
    total, done = sum(map(len, groups)), 0
    progress(done, total)
    for group in groups:
        rows = rows_of(group)
        record = np.empty(len(group), [(name, x.dtype, x.shape[1:]) for name, x in rows.items()])
        for name, x in rows.items():
            record[name] = x
        if not done:
            descr = npy.dtype_to_descr(record.dtype)
            npy.write_array_header_2_0(file, {"descr": descr, "fortran_order": False, "shape": (total,)})
        file.write(record.tobytes())
        done += len(group)
        progress(done, total)


def _seen(path: Path) -> Path:
    if path.exists():
        return path
    raise KdkitError(
        "KD-DIST-026",
        "the processes of the run do not see each other's files",
        where=str(path),
        fix="put the project on a disk that all of them share",
        code=ExitCode.MISSING,
    )


def _file(folder: Path, rank: int) -> Path:
    return folder / f"rows-{rank}.npy"
