"""One teacher's features, over all shards."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.base.journal import Journal, JournalEntry, SampleKey
from kdkit.core.base.system_errors import optional_write
from kdkit.core.contracts import SignalSpec
from kdkit.core.features.store.header import Header, damaged
from kdkit.core.features.store.row_index import RowIndex
from kdkit.core.features.store.shard import BLOCK_ROWS, PRESENT, UNREADABLE, Shard, create_shard
from kdkit.core.features.store.sidecar import read_scores, read_texts, write_scores

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex

Rows = NDArray[np.int64]
UNREADABLE_IMAGES = "unreadable.jsonl"
"""Journal of images that could not be read for an answer."""
_UNSIGNED = np.dtype(np.uint64)
"""Read as unsigned, negative rows are beyond the end, so one comparison finds both kinds of bad row."""
_largest = np.maximum.reduce


class Column:
    """The features of one teacher under one fingerprint.

    Rows are numbered through all shards in order of creation; a row's number never changes. An open column is a
    snapshot: open it again after an extraction.

    Raises:
        KdkitError: a shard is damaged or belongs to another column.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self.folder, self.header = folder, header
        self.shards = tuple(Shard(path) for path in sorted(folder.glob("shard-*.h5")))
        for shard in self.shards:
            if shard.header != header:
                why = f"it holds '{shard.header.teacher}' {shard.header.fingerprint[:12]}"
                raise damaged(str(shard.path), f"{why}, not '{header.teacher}' {header.fingerprint[:12]}")
        self._starts = np.cumsum([0, *(len(shard) for shard in self.shards)])
        self._count = int(self._starts[-1])
        self._only = self.shards[0] if len(self.shards) == 1 else None
        self._located: tuple[SampleIndex, Rows] | None = None  # what the last index found

    @property
    def teacher(self) -> str:
        return self.header.teacher

    @property
    def fingerprint(self) -> str:
        return self.header.fingerprint

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        return self.header.signals

    @property
    def nbytes(self) -> int:
        """Bytes of the shards on disk."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def complete(self) -> bool:
        """Whether every block is committed, and none is known to be damaged."""
        return all(shard.complete for shard in self.shards)

    def __len__(self) -> int:
        """Rows of all shards, with or without features."""
        return self._count

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """(rows,) whether a row holds features; rows of blocks that are known to be damaged do not."""
        return self._rows_with(PRESENT)

    def locate(self, index: SampleIndex) -> Rows:
        """(N,) the row of each sample, -1 if it has none or if its image or text changed since.

        Rows of a shared column have no ids and are found by content digest.
        """
        located = self._located
        if located is None or located[0] is not index:
            located = self._located = index, self._row_of.find(index.ids, index.digests)
            located[1].flags.writeable = False
        return located[1]

    def unreadable(self, index: SampleIndex) -> NDArray[np.bool_]:
        """(N,) samples whose present image could not be read for features, and has none, or for an answer."""
        failed = self._failed.find(index.ids, index.digests) >= 0
        if failed.any():
            failed &= self.locate(index) < 0
        return failed | _in_journal(index, self._unanswered)

    def remember_images(self, readable: Mapping[SampleKey, bool]) -> None:
        """Remember which samples' images could be read for an answer; answers have no rows to mark."""
        changed = {key: able for key, able in readable.items() if able == (key in self._unanswered)}
        if changed:
            journal = Journal(self.folder / UNREADABLE_IMAGES)
            journal.append(JournalEntry(key, {"readable": able}) for key, able in changed.items())
        self._forget()

    def check(self, rows: Rows) -> list[str]:
        """Compare the blocks of ``rows`` with their checksums, each once per process; returns the damaged ones.

        From here on, rows of damaged blocks are not located, and an extraction computes them again.
        """
        shard_of = self._shard_of(rows)
        found = []
        for number, shard in enumerate(self.shards):
            blocks = np.unique((rows[shard_of == number] - self._starts[number]) // shard.block_rows)
            found += [f"{shard.path.name}, {shard.describe(block)}" for block in shard.check(blocks)]
        if found:
            self._forget()
        return found

    def pending(self) -> list[tuple[Shard, list[int]]]:
        """Shards that an extraction has to finish, with their blocks."""
        found = [(shard, blocks) for shard in self.shards if (blocks := shard.pending())]
        self._forget()  # the check of the last block may have found it torn
        return found

    def discard_damage(self) -> None:
        """Remove the commit marks of blocks that are known to be damaged and still are: an extraction replaces them.

        Open the column again afterwards.
        """
        for shard, blocks in self.pending():
            marked = [block for block in blocks if shard.committed[block]]
            if marked and (damaged := shard.check(marked, again=True)):
                writable = Shard(shard.path, writable=True)
                for block in damaged:
                    writable.discard(block)
                writable.close()

    def _forget(self) -> None:
        self._located = None
        for name in ("present", "_row_of", "_failed", "_unanswered"):
            vars(self).pop(name, None)

    def gather(self, signal: str, rows: Rows) -> NDArray[Any]:
        """Rows of one signal, in their stored dtype.

        Args:
            signal: its name.
            rows: (B,) from :meth:`locate`, none negative.

        Returns:
            (B, *shape).

        Raises:
            KdkitError: the column has no such signal, or a block of the rows is damaged.
            IndexError: a row does not exist.
        """
        if len(rows) and _largest(rows.view(_UNSIGNED)) >= self._count:
            raise IndexError(f"rows must be in 0..{self._count - 1}; got {rows.min()}..{rows.max()}")
        if self._only is not None and signal in self._only.arrays:
            self._only.require_intact(rows)
            return self._only.arrays[signal].take(rows, 0, mode="clip")  # the fast path; rows were checked
        return self._gather_shards(self.spec(signal), rows)

    def spec(self, signal: str) -> SignalSpec:
        """Shape and dtype of a signal.

        Raises:
            KdkitError: the column has no such signal.
        """
        for spec in self.signals:
            if spec.name == signal:
                return spec
        known = tuple(spec.name for spec in self.signals)
        raise KdkitError("KD-FEAT-009", f"'{self.teacher}' has no signal '{signal}'", fix=did_you_mean(signal, known))

    def verify(self, deep: bool = True) -> list[str]:
        """Problems of the column; empty if there are none.

        Opening has checked structure and ids. ``deep`` reads everything and compares the checksums.
        """
        problems = []
        for shard in self.shards:
            for block in shard.check(range(len(shard.committed)), again=True) if deep else ():
                problems.append(f"{shard.path}: {shard.describe(block)} is damaged")
        return problems

    def text_features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, D) float32 features of prompts, from :meth:`FeatureStore.put_texts`; not normalized.

        Raises:
            KdkitError: a text is not stored.
        """
        stored = self.texts
        missing = [text for text in dict.fromkeys(texts) if text not in stored]
        if missing:
            raise KdkitError(
                "KD-FEAT-010",
                f"'{self.teacher}' has no features of {len(missing)} texts, such as '{missing[0]}'",
                where=str(self.folder),
                fix=self.header.remedy,
            )
        width = next(iter(stored.values())).shape[0] if stored else 0
        return np.stack([stored[text] for text in texts]) if texts else np.zeros((0, width), np.float32)

    def text_digest(self, texts: Sequence[str]) -> str:
        """Digest of the features of prompts; one without features counts too."""
        digest = sha256()
        for text in sorted(set(texts)):
            values = self.texts.get(text)
            digest.update(json.dumps([text, None if values is None else len(values)]).encode())
            digest.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    @cached_property
    def texts(self) -> Mapping[str, NDArray[np.float32]]:
        """Text -> (D,) float32, of all prompts that are stored."""
        return read_texts(self.folder)

    def put_scores(self, name: str, rows: Rows, values: NDArray[np.floating[Any]]) -> None:
        """Store one number per row beside the features; other rows keep theirs.

        Raises:
            IndexError: a row does not exist.
        """
        if len(rows) and _largest(rows.view(_UNSIGNED)) >= self._count:
            raise IndexError(f"rows must be in 0..{self._count - 1}; got {rows.min()}..{rows.max()}")
        try:
            scores = self.scores(name)
        except KdkitError:  # damaged; scores are computed from features
            scores = np.full(len(self), np.nan, dtype=np.float32)
        scores[rows] = values
        with optional_write(f"the scores '{name}' of '{self.teacher}'"):
            write_scores(self.folder, name, scores)

    def scores(self, name: str) -> NDArray[np.float32]:
        """(rows,) float32 from :meth:`put_scores`, NaN for rows without a score."""
        return read_scores(self.folder, name, len(self))

    @property
    def next_shard(self) -> Path:
        """The path of a shard that is added."""
        number = max((int(shard.path.stem.partition("-")[2]) for shard in self.shards), default=-1) + 1
        return self.folder / f"shard-{number:04d}.h5"

    def add_shard(self, ids: Sequence[str], digests: NDArray[np.uint64], block_rows: int = BLOCK_ROWS) -> Path:
        """Make a new, empty shard for these samples; open it with ``Shard(path, writable=True)``.

        Raises:
            KdkitError: the disk is full.
        """
        path = self.next_shard
        create_shard(path, self.header, ids, digests, block_rows)
        return path

    def _gather_shards(self, spec: SignalSpec, rows: Rows) -> NDArray[Any]:
        out = np.empty((len(rows), *spec.shape), dtype=spec.dtype)
        shard_of = self._shard_of(rows)
        for number, shard in enumerate(self.shards):
            here = np.flatnonzero(shard_of == number)
            if len(here):
                local = rows[here] - self._starts[number]
                shard.require_intact(local)
                out[here] = shard.arrays[spec.name].take(local, axis=0, mode="clip")
        return out

    def _shard_of(self, rows: Rows) -> Rows:
        return np.searchsorted(self._starts, rows, side="right") - 1

    @cached_property
    def _row_of(self) -> RowIndex:
        return RowIndex(self.shards, self.present)

    @cached_property
    def _failed(self) -> RowIndex:
        return RowIndex(self.shards, self._rows_with(UNREADABLE))

    @cached_property
    def _unanswered(self) -> frozenset[SampleKey]:
        known = Journal(self.folder / UNREADABLE_IMAGES).read()
        return frozenset(key for key, value in known.items() if not value["readable"])

    def _rows_with(self, status: int) -> NDArray[np.bool_]:
        """(rows,) whether a row has this status in a usable block."""
        # The commit marks first: what another process commits between the two reads is then not half seen.
        parts = [_per_row(shard) & (shard.status == status) for shard in self.shards]
        return np.concatenate([np.zeros(0, dtype=bool), *parts])


def _per_row(shard: Shard) -> NDArray[np.bool_]:
    """(rows of the shard,) whether the row's block is usable."""
    return np.repeat(shard.usable, shard.block_rows)[: len(shard)]


def _in_journal(index: SampleIndex, known: Collection[SampleKey]) -> NDArray[np.bool_]:
    """(N,) whether a sample is one of ``known``."""
    if not known:
        return np.zeros(len(index), dtype=bool)
    keys = zip(index.ids, index.digests.tolist(), strict=True)
    return np.fromiter((key in known for key in keys), dtype=bool, count=len(index))
