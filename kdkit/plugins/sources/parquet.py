"""Parquet files: a row per sample, with the image in a cell, or its path."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation, Skipped
from kdkit.plugins.readers.parquet_files import binary_leaf, open_parquet
from kdkit.plugins.sources.fast_parquet import Table, TableRows, read_tables
from kdkit.plugins.sources.records import refuse_pointer
from kdkit.plugins.sources.rows import FIELDS
from kdkit.plugins.sources.shards import no_name

ROWS = 4096
"""Rows that are read at once, without their images."""
LABELS = "__labels__"


@dataclass(frozen=True)
class ParquetRows(TableRows):
    """The column ``image`` holds image files as bytes, the Hub's struct ``{bytes, path}``, or paths.

    Names of labels are those of the Hub's feature ``ClassLabel``, if the file has one.
    """

    ending: ClassVar[str] = ".parquet"
    alike: ClassVar[tuple[str, ...]] = (".pq", ".parq", ".arrow", ".feather")

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any] | Skipped]]:
        """(``file:row``, row) pairs; rows count from 1."""
        yield from ((skipped.where, skipped) for skipped in self.other_files())
        for path in self.files():
            refuse_pointer(path)
            with self.table(path) as table:
                yield from self._rows_of(path, table)

    @contextmanager
    def table(self, path: Path) -> Iterator[Table]:
        """The opened file.

        Raises:
            KdkitError: it is damaged.
        """
        with open_parquet(path) as file:

            def batches(columns: list[str]) -> Iterator[Any]:
                return file.iter_batches(ROWS, columns=columns, use_threads=False)  # type: ignore[no-any-return]

            yield Table("parquet", file.schema_arrow, lambda columns: _batches(file, columns, path), batches)

    def __iter__(self) -> Iterator[Any]:
        """Batches of samples where the tables are as usual, else the samples one by one."""
        self.require_location()
        batches = read_tables(self)
        if batches is None:
            yield from super().__iter__()
        else:
            yield from self.other_files()
            yield from batches

    def keys_of(self, path: Path, numbers: Any) -> Any:
        """(n,) ids of rows without one; ``numbers`` count from 0. An Arrow array of texts, as :meth:`key_of` makes."""
        import pyarrow as pa
        import pyarrow.compute as pc

        return pc.binary_join_element_wise(self.shard_name(path), numbers.cast(pa.string()), "-")

    def label_names(self, schema: Any) -> tuple[str, ...]:
        """Names of labels that are numbers: by the option, or by the table."""
        return tuple(self.labels) or self._class_labels(schema)

    def _rows_of(self, path: Path, table: Table) -> Iterator[tuple[str, Mapping[str, Any]]]:
        schema, column = table.schema, self.columns.get("image", "image")
        if column not in schema.names:
            raise KdkitError(
                "KD-SRC-093",
                f"no column '{column}'",
                where=str(path),
                why=f"columns: {', '.join(schema.names)}",
                fix="name the column of the images: columns: {image: picture}",
            )
        if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
            raise KdkitError(
                "KD-SRC-111",
                "two columns of one name",
                where=str(path),
                why=", ".join(twice),
                fix="rename one of them",
            )
        self._refuse_types(schema, path)
        if not (binary_leaf(schema, column) or _is_plain(schema.field(column).type)):
            raise KdkitError(
                "KD-SRC-112",
                f"the column '{column}' holds no images",
                where=str(path),
                why=f"its type is {schema.field(column).type}",
                fix="write bytes (binary), the Hub's struct {bytes, path}, or paths as text",
            )
        in_cells, names = binary_leaf(schema, column) is not None, self._class_labels(schema)
        kept = {*self.extra, *self.metadata, self.columns.get("extra", "extra")}
        if self._holds_findings(schema, label := self.columns.get("label", "label")):
            kept.add(label)
        wanted = [name for name in schema.names if name in kept or _is_plain(schema.field(name).type)]
        leaves = [name for name in wanted if name != column or not in_cells]
        if in_cells and schema.field(column).type.num_fields and schema.field(column).type.get_field_index("path") >= 0:
            leaves.append(f"{column}.path")
        number = 0
        for batch in table.batches(leaves):
            for row in batch:
                number += 1
                where = f"{path}:{number}"
                if in_cells:
                    row = {**row, **self._cell(table.reader, path, column, number - 1, row.get(column))}
                if names:
                    row[LABELS] = names
                yield where, self.with_split(row, path)

    def _refuse_types(self, schema: Any, path: Path) -> None:
        """Raises: KdkitError when a field's column has another type: without it, groups would span splits."""
        for name in (name for name in FIELDS if name not in ("image", "extra", *self.constants)):
            column = self.columns.get(name, name)
            if name == "label" and self._holds_findings(schema, column):
                continue
            if column in schema.names and not _is_plain(schema.field(column).type):
                raise KdkitError(
                    "KD-SRC-151",
                    f"the column '{column}' cannot be the {name} of a sample",
                    where=str(path),
                    why=f"its type is {schema.field(column).type}",
                    fix=f"write it as text, or rename it, or name another column: columns: {{{name}: other}}",
                )

    def _cell(self, reader: str, path: Path, column: str, number: int, value: Any) -> dict[str, Any]:
        given = value.get("path") if isinstance(value, Mapping) else None
        name = os.path.basename(given) if isinstance(given, str) and given else f"row {number + 1}"
        return {
            "image": ImageLocation(reader, path, (column, number), name),
            self.KEY: self.key_of(path, number),
        }

    def key_of(self, path: Path, number: int) -> str:
        """The id of a row without one; ``number`` counts from 0."""
        return f"{self.shard_name(path)}-{number}"

    def features(self, schema: Any) -> Mapping[str, Any]:
        """Column -> its feature by the metadata that the library ``datasets`` writes; empty without them."""
        try:
            found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        except (KeyError, TypeError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _class_labels(self, schema: Any) -> tuple[str, ...]:
        """Names of the labels: those of the feature ``ClassLabel``, or of a list of it."""
        feature = self.features(schema).get(self.columns.get("label", "label"))
        while isinstance(feature, dict) and "names" not in feature and "feature" in feature:
            feature = feature["feature"]
        names = feature.get("names") if isinstance(feature, dict) else None
        return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()

    def _holds_findings(self, schema: Any, column: str) -> bool:
        """Whether the column of labels holds lists of texts, or of numbers with names."""
        return is_list(schema, column, texts=True) or (
            is_list(schema, column, texts=False) and bool(self.labels or self._class_labels(schema))
        )

    def _findings(self, row: Mapping[str, Any], where: str) -> list[str] | None:
        value = row.get(column := self.columns.get("label", "label"))
        if isinstance(value, list) and any(isinstance(one, int) for one in value):
            names = self._label_names(row)
            if odd := [one for one in value if not isinstance(one, int) or not 0 <= one < len(names)]:
                raise no_name(odd[0], names, where)
            row = {**row, column: [names[one] for one in value]}
        return super()._findings(row, where)

    def _label_names(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(self.labels) or tuple(row.get(LABELS, ()))


def is_list(schema: Any, column: str, *, texts: bool) -> bool:
    """Whether the column exists and holds lists, of texts or of whole numbers."""
    import pyarrow as pa

    if column not in schema.names:
        return False
    kind = schema.field(column).type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return bool(pa.types.is_string(kind.value_type) if texts else pa.types.is_integer(kind.value_type))


def _is_plain(kind: Any) -> bool:
    """A text, a number, a flag, or nothing at all: what a field can be."""
    import pyarrow as pa

    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_integer,
        pa.types.is_floating,
    )
    return any(test(kind) for test in (*tests, pa.types.is_boolean, pa.types.is_dictionary, pa.types.is_null))


def _batches(file: Any, columns: list[str], path: Path) -> Iterator[list[dict[str, Any]]]:
    """Rows of ``columns``; without columns, empty ones."""
    if not columns:
        for start in range(0, file.metadata.num_rows, ROWS):
            yield [{} for _ in range(min(ROWS, file.metadata.num_rows - start))]
        return
    try:
        for batch in file.iter_batches(ROWS, columns=columns, use_threads=False):
            yield batch.to_pylist()
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise KdkitError(
            "KD-SRC-094",
            "this Parquet file is damaged",
            where=str(path),
            why=str(error).partition("\n")[0],
            fix="download or write the file again",
        ) from None
