"""Rows that the ranks of a run compute together, each a share, and that all ranks read from disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from kdkit.core.base.atomic import new_file
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.system_errors import system_errors
from kdkit.core.distill.loop.distributed import barrier, get_rank, get_world_size
from kdkit.core.distill.plan.types import Indices

Array = np.ndarray[Any, Any]
Rows = Mapping[str, Array]
"""Signal -> (n, *shape)."""


class ShardedRows:
    """The result of :func:`compute_sharded_rows`; row ``n`` belongs to the n-th index.

    Args:
        paths: a file per rank that computed any, of records with a field per signal.
        size: rows per group; groups were dealt to the ranks in turn.
    """

    def __init__(self, paths: Sequence[Path], size: int, world: int) -> None:
        self._size, self._world = size, world
        # Memory-mapped: the ranks of one machine share the pages.
        self._parts: list[Array] = [np.load(_require_visible(path), mmap_mode="r") for path in paths]

    def shape(self, signal: str) -> tuple[int, ...]:
        """The shape of one row."""
        return tuple(self._parts[0].dtype[signal].shape)

    def gather(self, signal: str, rows: Indices) -> Array:
        """(len(rows), *shape)."""
        group, within = np.divmod(rows, self._size)
        rank, place = group % self._world, group // self._world * self._size + within
        out = np.empty((len(rows), *self.shape(signal)), self._parts[0].dtype[signal].base)
        for number, part in enumerate(self._parts):
            here = rank == number
            out[here] = part[signal][place[here]]
        return out


def compute_sharded_rows(
    folder: Path,
    indices: Indices,
    rows_of: Callable[[Indices], Rows],
    *,
    size: int,
    progress: Callable[[int, int], None],
) -> ShardedRows:
    """The rows of ``indices``, in groups of ``size`` for any number of ranks, so that the values are the same.

    All ranks must call it at the same point.

    Args:
        folder: visible to every rank, for these rows alone: a complete file of an earlier attempt is used again.
        rows_of: computes the rows of a group.
        progress: called before the first group and after each with (rows done, all rows) of this rank.

    Raises:
        KdkitError: a full or read-only disk; ranks that do not see each other's files.
    """
    with system_errors(str(folder)):
        if get_rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
        barrier()
        groups = [indices[start : start + size] for start in range(0, len(indices), size)]
        mine = groups[get_rank() :: get_world_size()]
        own = _file(_require_visible(folder), get_rank())
        if mine and not own.exists():
            with new_file(own) as draft, open(draft, "wb") as file:
                _write(file, mine, rows_of, progress)
        barrier()
        writers = range(min(get_world_size(), len(groups)))
        return ShardedRows([_file(folder, rank) for rank in writers], size, get_world_size())


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


def _require_visible(path: Path) -> Path:
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
    return folder / f"rows-{rank}-of-{get_world_size()}.npy"
