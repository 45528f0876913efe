"""Tables with images in cells, or paths, read a column at a time; see :mod:`~kdkit.plugins.sources.fast_columns`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.readers.parquet_files import binary_leaf
from kdkit.plugins.sources.fast_columns import FIELDS, Cells, ColumnReader, Unusual, can_read, with_names
from kdkit.plugins.sources.shards import NO_LABEL, ShardedRows

if TYPE_CHECKING:
    import pyarrow as pa

NUMBER = r"^\W*\d+(\.0*)?\W*$"
"""Texts that might be the number of a label."""


@dataclass(frozen=True)
class Table:
    """An opened file.

    Attributes:
        reader: of its images in cells.
        schema: Arrow's.
        batches: rows of columns, and of fields such as ``image.path``; without columns, empty ones.
        record_batches: the same as Arrow's, with a column ``image`` for its field; at least one column.
    """

    reader: str
    schema: Any
    batches: Callable[[list[str]], Iterator[list[dict[str, Any]]]]
    record_batches: Callable[[list[str]], Iterator[Any]]


class TableRows(ShardedRows):
    """Rows of files with a schema."""

    def table(self, path: Path) -> AbstractContextManager[Table]:
        """The opened file. Raises: KdkitError: it is damaged."""
        raise NotImplementedError

    def keys_of(self, path: Path, numbers: Any) -> Any:
        """(n,) ids of rows without one; ``numbers`` count from 0. Both are arrays of Arrow."""
        raise NotImplementedError

    def label_names(self, schema: Any) -> tuple[str, ...]:
        """Names of labels that are numbers: by the option, or by the table."""
        raise NotImplementedError


def read_tables(source: TableRows) -> list[pa.RecordBatch] | None:
    """The samples of all files as batches, as sources may yield them; None if the rows must be read one by one."""
    import pyarrow as pa

    if not can_read(source):
        return None
    try:
        found = [batch for path in source.files() for batch in _batches_of(source, path)]
    except (Unusual, KdkitError, OSError, pa.ArrowException):
        return None
    return found or None


def _batches_of(source: TableRows, path: Path) -> Iterator[pa.RecordBatch]:
    """The samples of a file.

    Raises:
        Unusual: a row that only the other reader understands.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    with source.table(path) as table:
        schema, image = table.schema, source.columns.get("image", "image")
        leaf, names = binary_leaf(schema, image), source.label_names(schema)
        split = None if "split" in schema.names else source.with_split({}, path).get("split")
        header = _readable(source, table, leaf is not None)
        if names and "label" in source.constants:
            raise Unusual
        root = (source.location if source.location.is_dir() else source.location.parent) / source.image_root
        reader = ColumnReader(source, header, root, in_cells=leaf is not None, split=split)
        wanted, start = sorted(set(reader.columns.values())), 0
        nested = leaf is not None and leaf != image and schema.field(image).type.get_field_index("path") >= 0
        for batch in table.record_batches([*wanted, *([f"{image}.path"] if nested else [])]):
            columns = {name: _texts(batch.column(name)) for name in wanted}
            if names and "label" in reader.columns:
                columns[reader.columns["label"]] = _labels(batch.column(reader.columns["label"]), names)
            lines = pa.array(range(start + 1, start + batch.num_rows + 1))
            cells = None
            if leaf is not None:
                paths = _paths(batch.column(image)) if nested else None
                keys = source.keys_of(path, pc.subtract(lines, 1))
                cells = Cells(table.reader, image, paths, keys)
            start += batch.num_rows
            if batch.num_rows:
                yield reader.batch(columns, path, lines, cells)


def _readable(source: TableRows, table: Table, in_cells: bool) -> list[str]:
    """Columns of texts and whole numbers.

    Raises:
        Unusual: a field has another type, or two columns one name.
    """
    import pyarrow as pa

    schema = table.schema

    def fits(kind: Any) -> bool:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_null)
        return any(test(kind) for test in tests)

    if len(set(schema.names)) < len(schema.names):
        raise Unusual
    header = [name for name in schema.names if fits(schema.field(name).type)]
    fields = {source.columns.get(name, name) for name in (*FIELDS, "extra")
              if name not in source.constants and not (in_cells and name == "image")}  # fmt: skip
    if not fields & set(schema.names) <= set(header):
        raise Unusual
    return header


def _texts(values: pa.Array) -> pa.Array:
    """As texts. Raises: Unusual where one has a NUL, which the other reader refuses."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = values.cast(pa.string())
    if pc.any(pc.match_substring(texts, "\0")).as_py():
        raise Unusual
    return texts


def _labels(values: pa.Array, names: tuple[str, ...]) -> pa.Array:
    """The names of labels that are numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_integer(values.type):
        return with_names(values, names, NO_LABEL)
    texts = _texts(values)
    if pc.any(pc.match_substring_regex(texts, NUMBER)).as_py():
        raise Unusual
    return texts


def _paths(cells: pa.Array) -> pa.Array:
    """The field ``path``. Raises: Unusual where the bytes are known to be missing: the path may name a file."""
    import pyarrow.compute as pc

    if cells.type.get_field_index("bytes") >= 0 and pc.struct_field(cells, "bytes").null_count:
        raise Unusual
    return _texts(pc.struct_field(cells, "path"))
