"""One file of a column: an HDF5 file that is read through a memory map.

All datasets are contiguous and allocated when the file is made, so offsets never change and HDF5's metadata is written
once. Features are written at their offset with ordinary writes: a disk error in a memory map would kill the process.

A shard of N rows holds, besides a dataset (N, *shape) per signal:

======================  ==================================================================================
``ids`` (N,)            sample ids, UTF-8; empty in a shared shard, whose rows are identified by digest
``digests`` (N,)        uint64 content digests of the samples
``status`` (N,)         uint8: 1 the row holds features, 2 its image is unreadable, 0 neither
``committed`` (blocks,) uint8, 1 where the block is complete
``checksums``           (blocks, 16) uint8, BLAKE2b of the block's signals and status
======================  ==================================================================================
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from io import BufferedRandom
from pathlib import Path
from typing import Any, overload

import h5py
import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.atomic import new_file
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.result import format_size
from kdkit.core.base.system_errors import as_kdkit_error
from kdkit.core.features.store.header import Header, damaged

BLOCK_ROWS = 512
"""Rows per commit and per checksum; a kill loses at most one block."""
ALIGNMENT = 4096
"""Of every dataset, so that rows of 1 KiB never span two pages of memory."""
IDS_AT_A_TIME = 65_536
"""Ids that are Python objects at one time."""
ABSENT, PRESENT, UNREADABLE = 0, 1, 2
NO_ID = ""
"""Instead of a sample's id: the row belongs to every sample with its digest."""
_SIGNALS, _CHECKSUM = "signals", 16
_CONTROL = ("ids", "digests", "status", "committed", "checksums")
_UNKNOWN, _INTACT, _DAMAGED = 0, 1, 2
_CHECKED: dict[tuple[str, int, int, int], NDArray[np.uint8]] = {}
"""(path, inode, time, size) of a file -> the state of each block: a process compares a block once."""


def knows_damage() -> bool:
    """Whether this process has found a damaged block that was not computed again."""
    return any(bool((state == _DAMAGED).any()) for state in _CHECKED.values())


def create_shard(
    path: Path,
    header: Header,
    ids: Sequence[str],
    digests: NDArray[np.uint64],
    block_rows: int = BLOCK_ROWS,
) -> None:
    """Make the file atomically at full length, without features.

    Raises:
        KdkitError: the disk is full.
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
            f"the disk has no room for the features of {len(ids)} samples ({format_size(len(ids) * header.row_bytes)})",
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
    """Allocate all disk blocks now, so that later writes cannot fail for lack of space."""
    with open(path, "r+b") as handle:
        size = os.fstat(handle.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle.fileno(), 0, size)


class StoredIds(Sequence[str]):
    """The ids of a shard, in the mapped file: a text is made when it is read.

    Attributes:
        names: (N,) UTF-8, padded with zeros.
    """

    def __init__(self, names: NDArray[np.bytes_]) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> StoredIds: ...
    def __getitem__(self, row: int | slice) -> str | StoredIds:
        if isinstance(row, slice):
            return StoredIds(self.names[row])
        return bytes(self.names[row]).decode()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), IDS_AT_A_TIME):
            yield from (name.decode() for name in self.names[start : start + IDS_AT_A_TIME].tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    @property
    def width(self) -> int:
        """Bytes of one id in the file."""
        return self.names.dtype.itemsize

    @cached_property
    def any_empty(self) -> bool:
        """Whether a row belongs to every sample with its digest."""
        parts = range(0, len(self), IDS_AT_A_TIME)
        return any(bool((self.names[start : start + IDS_AT_A_TIME] == b"").any()) for start in parts)

    def encoded(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Ids of these rows, in UTF-8."""
        found: list[bytes] = self.names[rows].tolist()
        return found


class Shard:
    """An open shard, mapped for reading. With ``writable``, blocks can be committed until it is closed.

    Attributes:
        header: of the column.
        ids: N sample ids, mapped.
        digests: (N,) uint64, mapped.
        arrays: signal name -> (N, *shape), the mapped file.
        status, committed: (N,) and (blocks,) uint8, mapped.

    Raises:
        KdkitError: the file is truncated, its index is damaged, or it is no shard.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        try:
            with h5py.File(path, "r", locking=False) as file:
                self.header = Header.from_json(str(file.attrs["kdkit"]), str(path))
                self.block_rows = int(file.attrs["block_rows"])
                expected = str(file.attrs["index_checksum"])
                locations = {s.name: _location(_own(file, f"{_SIGNALS}/{s.name}")) for s in self.header.signals}
                control = {name: _location(_own(file, name)) for name in _CONTROL}
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise as_kdkit_error(error, str(path)) or damaged(str(path), str(error)) from error
        self._map = np.memmap(path, np.uint8, mode="r")
        self._offsets = {name: offset for name, (offset, _, _) in control.items()}
        self._starts = {name: offset for name, (offset, _, _) in locations.items()}  # a signal may be called 'ids'
        self.arrays: Mapping[str, NDArray[Any]] = {name: self._view(*at) for name, at in locations.items()}
        names, self.digests, self.status, self.committed, self._checksums = (self._view(*a) for a in control.values())
        if _index_checksum(names, self.digests) != expected:
            raise damaged(str(path), "the checksum of its sample ids does not match")
        self.ids = StoredIds(names)
        found = os.stat(path)
        key = str(path.resolve()), found.st_ino, found.st_mtime_ns, found.st_size
        self._checked = _CHECKED.setdefault(key, np.zeros(len(self.committed), np.uint8))
        self._all_intact = False
        self._file = open(path, "r+b") if writable else None  # noqa: SIM115  # kept open; see close

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(blocks,) committed blocks that are not known to be damaged."""
        usable: NDArray[np.bool_] = (self.committed != 0) & (self._checked != _DAMAGED)
        return usable

    @property
    def complete(self) -> bool:
        return bool(self.usable.all())

    @property
    def nbytes(self) -> int:
        return int(self._map.size)

    def rows_of(self, block: int) -> slice:
        """Rows of a block."""
        return slice(block * self.block_rows, min(len(self), (block + 1) * self.block_rows))

    def pending(self) -> list[int]:
        """Blocks that are not usable, including the last one if its commit was interrupted by a power failure."""
        self.check(np.flatnonzero(self.committed)[-1:])
        return [int(block) for block in np.flatnonzero(~self.usable)]

    def commit(self, block: int, values: Mapping[str, NDArray[Any]], status: NDArray[np.uint8]) -> None:
        """Write one block; the data reaches the disk before its commit mark.

        Args:
            block: its number.
            values: signal name -> (rows of the block, *shape); zeros in rows that are not present.
            status: (rows of the block,) of ``ABSENT``, ``PRESENT``, ``UNREADABLE``.
        """
        if self._file is None:
            raise ValueError(f"{self.path} is not open for writing")
        self._checked[block], self._all_intact = _UNKNOWN, False
        start = self.rows_of(block).start
        stored = {name: np.ascontiguousarray(values[name], array.dtype) for name, array in self.arrays.items()}
        _write_at(self._file, self._offsets["committed"] + block, b"\0")
        for name, array in stored.items():
            _write_at(self._file, self._starts[name] + start * array[0].nbytes, array.tobytes())
        _write_at(self._file, self._offsets["status"] + start, status.tobytes())
        os.fsync(self._file.fileno())
        _write_at(self._file, self._offsets["checksums"] + block * _CHECKSUM, _checksum(stored.values(), status))
        _write_at(self._file, self._offsets["committed"] + block, b"\1")
        os.fsync(self._file.fileno())

    def committed_now(self) -> NDArray[np.bool_]:
        """(blocks,) commit marks as they are on the disk; a map may lag behind what another machine wrote."""
        with open(self.path, "rb") as file:
            file.seek(self._offsets["committed"])
            marks = np.frombuffer(file.read(len(self.committed)), np.uint8)
        found: NDArray[np.bool_] = marks != 0
        return found

    def discard(self, block: int) -> None:
        """Remove a block's commit mark, so that every process computes it again."""
        if self._file is None:
            raise ValueError(f"{self.path} is not open for writing")
        _write_at(self._file, self._offsets["committed"] + block, b"\0")
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close for writing; the shard can still be read."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def check(self, blocks: Iterable[int], *, again: bool = False) -> list[int]:
        """Compare committed blocks with their checksums; returns the damaged ones.

        Args:
            blocks: their numbers.
            again: also those that this process compared before.
        """
        for block in blocks:
            if self.committed[block] and (again or self._checked[block] == _UNKNOWN):
                self._checked[block] = _INTACT if self._is_intact(block) else _DAMAGED
        return [int(block) for block in blocks if self._checked[block] == _DAMAGED]

    def require_intact(self, rows: NDArray[np.int64]) -> None:
        """Check the blocks of these rows.

        Raises:
            KdkitError: a block is damaged.
        """
        if self._all_intact:
            return
        blocks = rows // self.block_rows
        if (self._checked.take(blocks) == _INTACT).all():
            return
        damage = self.check(np.unique(blocks))
        self._all_intact = bool((self._checked == _INTACT).all())
        if damage:
            raise KdkitError(
                "KD-FEAT-020",
                f"features of '{self.header.teacher}' are damaged: {self.describe(damage[0])}",
                where=str(self.path),
                why="the block does not match its checksum",
                fix=self.header.remedy,
                code=ExitCode.FOUND,
            )

    def describe(self, block: int) -> str:
        """The block and its rows, for messages."""
        rows = self.rows_of(block)
        return f"block {block} (rows {rows.start}..{rows.stop - 1})"

    def _is_intact(self, block: int) -> bool:
        rows = self.rows_of(block)
        return bytes(self._checksums[block]) == _checksum(
            (array[rows] for array in self.arrays.values()), self.status[rows]
        )

    def _view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        size = int(np.prod(shape)) * dtype.itemsize
        if offset + size > self._map.size:
            raise damaged(str(self.path), f"truncated: {self._map.size} bytes, at least {offset + size} expected")
        # asarray drops the memmap subclass, whose bookkeeping costs more than gathering a small batch
        return np.asarray(self._map[offset : offset + size]).view(dtype).reshape(shape)


def _own(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset whose values lie in this file; HDF5 can link to others, and take values from any file."""
    parents = [name[:end] for end, char in enumerate(name) if char == "/"]
    plain = all(isinstance(file.get(part, getlink=True), h5py.HardLink) for part in (*parents, name))
    if not plain or file[name].external or file[name].is_virtual:
        raise ValueError(f"dataset {name} is missing or lies in another file")
    return file[name]


def _location(dataset: h5py.Dataset) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    offset = dataset.id.get_offset()
    if offset is None:
        raise ValueError(f"dataset {dataset.name} is not contiguous")
    return offset, dataset.shape, dataset.dtype


def _write_at(file: BufferedRandom, offset: int, data: bytes) -> None:
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
    """BLAKE2b of the ids with zeros between them, and the digests; a part at a time."""
    state = blake2b(digest_size=_CHECKSUM)
    for start in range(0, len(names), IDS_AT_A_TIME):
        state.update(b"\0" * (start > 0) + b"\0".join(names[start : start + IDS_AT_A_TIME].tolist()))
    for start in range(0, len(digests), IDS_AT_A_TIME):
        state.update(digests[start : start + IDS_AT_A_TIME].astype("<u8").tobytes())
    return state.hexdigest()
