"""Samples as Arrow columns; a ``Sample`` is made for a row when it is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdkit.core.contracts import SPLITS, ImageLocation, ImageOptions, ImageRef, Sample
from kdkit.core.data.extra import decode_extra

NAMES = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("domain", NAMES, nullable=False),
        pa.field("label", NAMES),
        pa.field("split", pa.int8(), nullable=False),  # position in SPLITS
        pa.field("text", pa.string(), nullable=False),
        pa.field("group", pa.string()),  # of extra, where it is the last key and a text
        pa.field("extra", pa.string()),  # the rest of extra as JSON; null if empty
        pa.field("file", pa.string(), nullable=False),  # that is the image or holds it
        pa.field("reader", NAMES),  # null for an image file
        pa.field("at", pa.string()),  # JSON
        pa.field("name", pa.string()),
        pa.field("others", pa.list_(pa.string())),  # keys of further images
        pa.field("options", NAMES),  # image options as JSON; null for none
        pa.field("place", NAMES),  # origin = place + line; null if it is the file
        pa.field("line", pa.string()),
    ]
)
"""Columns of a :class:`SampleTable`."""
GROUP = "group"
CHUNK = 1024
"""Rows that an iteration converts at once."""
NO_OPTIONS = ImageOptions()


class TextColumn(Sequence[str]):
    """A column of texts; texts are made when they are read."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, row: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> TextColumn: ...
    def __getitem__(self, row: SupportsIndex | slice) -> str | TextColumn:
        if isinstance(row, slice):
            return TextColumn(_sliced(self.column, row))
        return self.column[row.__index__()].as_py()  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.column), CHUNK):
            yield from self.column.slice(start, CHUNK).to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]


class SampleTable(Sequence[Sample]):
    """N samples as Arrow columns; see :data:`SCHEMA`.

    Args:
        table: of that schema.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table.unify_dictionaries()
        self._columns = {name: self.table.column(name) for name in SCHEMA.names}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """The column ``name`` of :data:`SCHEMA`."""
        return self._columns[name]

    def texts(self, name: str) -> TextColumn:
        """A column of texts as a sequence."""
        return TextColumn(self._columns[name])

    def codes(self, name: str) -> tuple[NDArray[np.int64], list[str]]:
        """((N,) position of each value among the names, -1 for null; names) of a column of names."""
        column = self._columns[name]
        if not column.num_chunks:
            return np.zeros(0, np.int64), []
        parts = [pc.fill_null(chunk.indices, -1).to_numpy().astype(np.int64) for chunk in column.chunks]
        return np.concatenate(parts), column.chunk(0).dictionary.to_pylist()

    @cached_property
    def is_question(self) -> NDArray[np.bool_]:
        """(N,) samples with ``extra["messages"]``."""
        found: NDArray[np.bool_] = np.zeros(len(self), dtype=bool)
        for row in self.rows_with("messages").tolist():
            found[row] = bool(self._extra(row).get("messages"))
        return found

    @cached_property
    def has_text(self) -> NDArray[np.bool_]:
        """(N,) samples with a text that is not empty."""
        return mask(pc.greater(pc.binary_length(self._columns["text"]), 0))

    @property
    def image_keys(self) -> pa.ChunkedArray:
        """A text for each sample that tells its first image from all others."""
        file, reader, at = (self._columns[name] for name in ("file", "reader", "at"))
        if reader.null_count == len(reader):
            return file
        return pc.coalesce(pc.binary_join_element_wise(file, reader.cast(pa.string()), at, "\0"), file)

    def naming(self, key: str) -> NDArray[np.int64]:
        """Ascending rows of the samples with this text anywhere in ``extra``."""
        return np.flatnonzero(mask(pc.match_substring(self._columns["extra"], json.dumps(key)))).astype(np.int64)

    def rows_with(self, key: str) -> NDArray[np.int64]:
        """Ascending rows of the samples with this key in ``extra``."""
        rows = self.naming(key)
        if key == GROUP:
            rows = np.union1d(rows, np.flatnonzero(mask(pc.is_valid(self._columns[GROUP]))))
        return rows[[key in self._extra(row) for row in rows.tolist()]].astype(np.int64)

    def _extra(self, row: int) -> dict[str, Any]:
        return extra_of(self._columns[GROUP][row].as_py(), self._columns["extra"][row].as_py())

    def with_options(self, change: Callable[[ImageOptions], ImageOptions]) -> SampleTable:
        """The same samples with other image options."""
        codes, names = self.codes("options")
        own = [NO_OPTIONS, *map(options_of, names)]
        new = [change(options) for options in own]
        if new == own:
            return self
        given = pa.array([options_text(options) for options in new], pa.string()).dictionary_encode()
        column = given.take(pa.array(codes + 1)).cast(NAMES)
        return SampleTable(self.table.set_column(SCHEMA.get_field_index("options"), "options", column))

    def take(self, rows: NDArray[np.int64]) -> SampleTable:
        """The samples ``rows`` alone."""
        return SampleTable(self.table.take(pa.array(rows)))

    @overload
    def __getitem__(self, row: SupportsIndex) -> Sample: ...
    @overload
    def __getitem__(self, row: slice) -> SampleTable: ...
    def __getitem__(self, row: SupportsIndex | slice) -> Sample | SampleTable:
        if isinstance(row, slice):
            return SampleTable(_sliced(self.table, row))
        number = row.__index__()
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return _sample(*(column[number].as_py() for column in self._columns.values()))

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, len(self), CHUNK):
            part = self.table.slice(start, CHUNK)
            yield from map(_sample, *(column.to_pylist() for column in part.columns))


def join_tables(tables: Sequence[SampleTable]) -> SampleTable:
    """The samples of all tables, one after the other."""
    return SampleTable(pa.concat_tables([one.table for one in tables]) if tables else SCHEMA.empty_table())


def mask(values: Any) -> NDArray[np.bool_]:
    """(N,) Arrow's booleans, with false for null."""
    return np.asarray(pc.fill_null(values, False).to_numpy(), dtype=bool)


def extra_of(group: str | None, extra: str | None) -> dict[str, Any]:
    """``Sample.extra`` of the columns ``group`` and ``extra``."""
    found = {} if extra is None else decode_extra(extra)
    if group is not None:
        found[GROUP] = group
    return found


def options_text(options: ImageOptions) -> str | None:
    """Image options as text of the column ``options``."""
    return None if options == NO_OPTIONS else json.dumps(astuple(options))


def options_of(text: str | None) -> ImageOptions:
    """The image options of :func:`options_text`."""
    return NO_OPTIONS if text is None else ImageOptions(*json.loads(text))


def _sliced(values: Any, rows: slice) -> Any:
    start, stop, step = rows.indices(len(values))
    return values.slice(start, max(stop - start, 0)) if step == 1 else values.take(pa.array(range(start, stop, step)))


def _sample(
    id_: str, domain: str, label: str | None, split: int, text: str, group: str | None, extra: str | None, file: str,
    reader: str | None, at: str | None, name: str | None, others: object, options: str | None, place: str | None,
    line: str | None,
) -> Sample:  # fmt: skip
    del others
    more = extra_of(group, extra)
    path = Path(file)
    image: ImageRef = path if reader is None else ImageLocation(reader, path, tuple(json.loads(at or "[]")), name or "")
    origin = file if place is None else place + (line or "")
    return Sample(id_, image, text, domain, label, SPLITS[split], origin, more, options_of(options))
