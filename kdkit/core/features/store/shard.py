"""One file of a column: HDF5 to any tool, a plain memory map to us.

All datasets are contiguous and allocated when the file is made, so that their offsets never change and HDF5's
own metadata are never written again. Features are written at their offset and read through ``np.memmap``.
(Writing through the map as well would turn an error of the disk into a dead process, and leaves the file in
small pages of memory, from which it is read more slowly.)

A shard of N rows holds, besides a dataset (N, *shape) per signal:

======================  ==================================================================================
``ids`` (N,)            sample ids, UTF-8; all empty in a shard that was shared, whose rows the digests identify
``digests`` (N,)        uint64 content digests of the samples
``status`` (N,)         uint8: 1 the row holds features, 2 its image is unreadable, 0 neither
``committed`` (blocks,) uint8, 1 where the block is complete
``checksums``           (blocks, 16) uint8, BLAKE2b of the block's signals and status
======================  ==================================================================================
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from io import BufferedRandom
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.atomic import new_file
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.features.store.header import Header, foreign

BLOCK_ROWS = 512
"""Rows that are committed together: what a kill -9 can cost, and what one checksum covers."""
ALIGNMENT = 4096
"""Of every dataset: then rows of 1 KiB never lie on two pages of memory."""
ABSENT, PRESENT, UNREADABLE = 0, 1, 2
NO_ID = ""
"""In the place of a sample's id: the row belongs to every sample of its digest."""
_SIGNALS, _CHECKSUM = "signals", 16


def create_shard(
    path: Path,
    header: Header,
    ids: Sequence[str],
    digests: NDArray[np.uint64],
    block_rows: int = BLOCK_ROWS,
) -> None:
    """Make the file at full length, without features; it appears whole or not at all.

    Raises:
        KdkitError: when the disk has no room.
    """
    try:
        with new_file(path) as draft:
            _write_empty(draft, header, ids, digests, block_rows)
            _reserve(draft)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise KdkitError(
            "KD-FEAT-013",
            f"no room for the features of {len(ids)} samples ({len(ids) * header.row_bytes / 1e9:.2f} GB)",
            where=str(path.parent),
            fix="free some space and run the command again",
            code=ExitCode.MISSING,
        ) from error


def _write_empty(path: Path, header: Header, ids: Sequence[str], digests: NDArray[np.uint64], block_rows: int) -> None:
    blocks = -(-len(ids) // block_rows)
    names = np.array([name.encode() for name in ids], dtype=np.bytes_)
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w", libver=("v110", "v110"), alignment_threshold=0, alignment_interval=ALIGNMENT) as file:
        file.attrs["kdkit"] = header.to_json()
        file.attrs["block_rows"] = block_rows
        file.attrs["index_checksum"] = _index_checksum(names, digests)
        text = h5py.string_dtype("utf-8", max(1, names.dtype.itemsize))
        file.create_dataset("ids", data=names.astype(text), dtype=text)
        file.create_dataset("digests", data=digests.astype("<u8"))
        for name, shape in {
            "status": (len(ids),),
            "committed": (blocks,),
            "checksums": (blocks, _CHECKSUM),
        }.items():
            file.create_dataset(name, data=np.zeros(shape, np.uint8))
        group = file.create_group(_SIGNALS)
        for signal in header.signals:
            group.create_dataset(
                signal.name, (len(ids), *signal.shape), np.dtype(signal.dtype).newbyteorder("<"), dcpl=early
            )


def _reserve(path: Path) -> None:
    """Have the disk set all blocks aside now: writing to a hole of a full disk would kill the process."""
    with open(path, "r+b") as handle:
        size = os.fstat(handle.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle.fileno(), 0, size)


class Shard:
    """An open shard, mapped for reading. With ``writable`` it takes blocks, until it is closed.

    Attributes:
        header: whose features.
        ids: N sample ids.
        digests: (N,) uint64.
        arrays: signal name -> (N, *shape), the mapped file.
        status, committed: (N,) and (blocks,) uint8, mapped.

    Raises:
        KdkitError: when the file is truncated, damaged in its index, or not one of ours.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        try:
            with h5py.File(path, "r", locking=False) as file:
                self.header = Header.from_json(str(file.attrs["kdkit"]), str(path))
                self.block_rows = int(file.attrs["block_rows"])
                names = file["ids"][...]
                self.digests: NDArray[np.uint64] = file["digests"][...]
                expected = str(file.attrs["index_checksum"])
                places = {s.name: _place(file[f"{_SIGNALS}/{s.name}"]) for s in self.header.signals}
                control = {name: _place(file[name]) for name in ("status", "committed", "checksums")}
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise foreign(str(path), str(error)) from error
        if _index_checksum(names, self.digests) != expected:
            raise foreign(str(path), "the checksum of its sample ids does not match")
        self.ids: list[str] = [name.decode() for name in names.tolist()]
        self._map = np.memmap(path, np.uint8, mode="r")
        self._offsets = {name: offset for name, (offset, _, _) in {**places, **control}.items()}
        self.arrays: Mapping[str, NDArray[Any]] = {name: self._view(*at) for name, at in places.items()}
        self.status, self.committed, self._checksums = (self._view(*at) for at in control.values())
        self._file = open(path, "r+b") if writable else None  # noqa: SIM115  # kept open; see close

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def complete(self) -> bool:
        return bool(self.committed.all())

    @property
    def nbytes(self) -> int:
        return int(self._map.size)

    def rows_of(self, block: int) -> slice:
        """Rows of a block."""
        return slice(block * self.block_rows, min(len(self), (block + 1) * self.block_rows))

    def pending(self) -> list[int]:
        """Blocks that are not committed, and the last one if a power failure left its commit half-written."""
        done = np.flatnonzero(self.committed)
        torn = [int(done[-1])] if len(done) and not self._whole(int(done[-1])) else []
        return sorted([*np.flatnonzero(self.committed == 0).tolist(), *torn])

    def commit(self, block: int, values: Mapping[str, NDArray[Any]], status: NDArray[np.uint8]) -> None:
        """Write one block: the data reach the disk before the mark that says so.

        Args:
            block: its number.
            values: signal name -> (rows of the block, *shape); rows that are not present must be zeros.
            status: (rows of the block,) of ``ABSENT``, ``PRESENT``, ``UNREADABLE``.
        """
        if self._file is None:
            raise ValueError(f"{self.path} is not open for writing")
        start = self.rows_of(block).start
        stored = {name: np.ascontiguousarray(values[name], array.dtype) for name, array in self.arrays.items()}
        _put(self._file, self._offsets["committed"] + block, b"\0")
        for name, array in stored.items():
            _put(self._file, self._offsets[name] + start * array[0].nbytes, array.tobytes())
        _put(self._file, self._offsets["status"] + start, status.tobytes())
        os.fsync(self._file.fileno())
        _put(self._file, self._offsets["checksums"] + block * _CHECKSUM, _checksum(stored.values(), status))
        _put(self._file, self._offsets["committed"] + block, b"\1")
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """No more blocks; reading goes on."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def damaged(self) -> list[int]:
        """Committed blocks whose bytes are not what was committed."""
        return [int(b) for b in np.flatnonzero(self.committed) if not self._whole(int(b))]

    def _whole(self, block: int) -> bool:
        rows = self.rows_of(block)
        return bytes(self._checksums[block]) == _checksum(
            (array[rows] for array in self.arrays.values()), self.status[rows]
        )

    def _view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        size = int(np.prod(shape)) * dtype.itemsize
        if offset + size > self._map.size:
            raise foreign(str(self.path), f"truncated: {self._map.size} bytes, at least {offset + size} expected")
        # asarray drops the memmap subclass, whose bookkeeping costs more than gathering a small batch
        return np.asarray(self._map[offset : offset + size]).view(dtype).reshape(shape)


def _place(dataset: h5py.Dataset) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    offset = dataset.id.get_offset()
    if offset is None:
        raise ValueError(f"dataset {dataset.name} is not contiguous")
    return offset, dataset.shape, dataset.dtype


def _put(file: BufferedRandom, offset: int, data: bytes) -> None:
    file.seek(offset)
    file.write(data)
    file.flush()


def _checksum(values: Iterable[NDArray[Any]], status: NDArray[np.uint8]) -> bytes:
    state = blake2b(digest_size=_CHECKSUM)
    for array in values:
        state.update(np.ascontiguousarray(array).view(np.uint8).data)
    state.update(status.tobytes())
    return state.digest()


def _index_checksum(names: NDArray[np.bytes_], digests: NDArray[np.uint64]) -> str:
    state = blake2b(b"\0".join(names.tolist()), digest_size=_CHECKSUM)
    state.update(digests.astype("<u8").tobytes())
    return state.hexdigest()
