"""Parquet files: a row per sample, with the image in a cell, or its path."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation, Skipped
from kdkit.plugins.readers.parquet_files import binary_leaf, open_parquet
from kdkit.plugins.sources.records import refuse_pointer
from kdkit.plugins.sources.rows import FIELDS
from kdkit.plugins.sources.shards import ShardedRows

ROWS = 4096
"""Rows that are read at once, without their images."""
LABELS = "__labels__"


@dataclass(frozen=True)
class ParquetRows(ShardedRows):
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
            with open_parquet(path) as file:
                yield from self._rows_of(path, file)

    def _rows_of(self, path: Path, file: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
        schema, column = file.schema_arrow, self.columns.get("image", "image")
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
        if is_text_list(schema, label := self.columns.get("label", "label")):
            kept.add(label)
        wanted = [name for name in schema.names if name in kept or _is_plain(schema.field(name).type)]
        leaves = [name for name in wanted if name != column or not in_cells]
        if in_cells and schema.field(column).type.num_fields and schema.field(column).type.get_field_index("path") >= 0:
            leaves.append(f"{column}.path")
        number = 0
        for batch in _batches(file, leaves, path):
            for row in batch:
                number += 1
                where = f"{path}:{number}"
                if in_cells:
                    row = {**row, **self._cell(path, column, number - 1, row.get(column))}
                if names:
                    row[LABELS] = names
                yield where, self.with_split(row, path)

    def _refuse_types(self, schema: Any, path: Path) -> None:
        """Raises: KdkitError when a field's column has another type: without it, groups would span splits."""
        for name in (name for name in FIELDS if name not in ("image", "extra", *self.constants)):
            column = self.columns.get(name, name)
            if name == "label" and is_text_list(schema, column):
                continue
            if column in schema.names and not _is_plain(schema.field(column).type):
                raise KdkitError(
                    "KD-SRC-151",
                    f"the column '{column}' cannot be the {name} of a sample",
                    where=str(path),
                    why=f"its type is {schema.field(column).type}",
                    fix=f"write it as text, or rename it, or name another column: columns: {{{name}: other}}",
                )

    def _cell(self, path: Path, column: str, number: int, value: Any) -> dict[str, Any]:
        given = value.get("path") if isinstance(value, Mapping) else None
        name = os.path.basename(given) if isinstance(given, str) and given else f"row {number + 1}"
        return {
            "image": ImageLocation("parquet", path, (column, number), name),
            self.KEY: f"{self.shard_name(path)}-{number}",
        }

    def _class_labels(self, schema: Any) -> tuple[str, ...]:
        """Names of the labels by the metadata that the library ``datasets`` writes."""
        try:
            features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
            names = features[self.columns.get("label", "label")]["names"]
        except (KeyError, TypeError, ValueError, RecursionError):
            return ()
        return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()

    def _label_names(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(self.labels) or tuple(row.get(LABELS, ()))


def is_text_list(schema: Any, column: str) -> bool:
    """Whether the column exists and holds lists of texts."""
    import pyarrow as pa

    if column not in schema.names:
        return False
    kind = schema.field(column).type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind)) and bool(pa.types.is_string(kind.value_type))


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
