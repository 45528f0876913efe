"""CSV manifests read by Arrow, a column at a time.

The result is that of :class:`~kdkit.plugins.sources.rows.RowReader`, row by row. Where anything is unusual or wrong,
:func:`read_columns` gives None, and the rows are read one by one: they know what to say about it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import SPLITS
from kdkit.plugins.sources.csv_blocks import Records, find_records
from kdkit.plugins.sources.fields import read_fractions, stable_split
from kdkit.plugins.sources.records import file_below

if TYPE_CHECKING:
    import pyarrow as pa

    from kdkit.plugins.sources.rows import RowReader

BLOCK = 1 << 24
"""Bytes of a batch."""
FIELDS = ("id", "image", "text", "domain", "label", "split", "group")
OPTIONAL: tuple[str, ...] = ("label", "group")
URL = r"(?i)^([a-z]+://|data:)"
DICOM = r"(?i)\.(dcm|dicom)$"
ODD_PART = r"(^|/)\.{0,2}(/|$)"
"""An empty part of a path, ``.`` or ``..``."""
BLANK_END = r"^[^!-~]|[^!-~]$"
"""Texts that might have spaces around them."""


class Unusual(Exception):
    """The rows must be read one by one."""


def read_columns(manifest: RowReader, delimiter: str) -> list[pa.RecordBatch] | None:
    """The samples as batches, as sources may yield them; None if the rows must be read one by one."""
    taken = manifest.caption is None and not (manifest.extra or manifest.metadata) and manifest.label_separator is None
    if not taken or "extra" in manifest.columns or os.sep != "/":
        return None
    records = find_records(manifest.location, delimiter)
    if records is None or len(set(records.header)) < len(records.header):
        return None
    import pyarrow as pa

    try:
        return _Reader(manifest, records).batches(delimiter)
    except (Unusual, KdkitError, pa.ArrowException):
        return None


class _Reader:
    def __init__(self, manifest: RowReader, records: Records) -> None:
        self._manifest, self._records = manifest, records
        self._root = os.path.abspath(manifest.location.parent / manifest.image_root)
        self._columns = {
            name: column
            for name in FIELDS
            if name not in manifest.constants
            and ((column := manifest.columns.get(name, name)) in records.header or name in manifest.columns)
        }
        if not {"image", "text"} <= self._columns.keys() or not set(self._columns.values()) <= set(records.header):
            raise Unusual
        if not {"domain"} <= {*self._columns, *manifest.constants} or not self._columns:
            raise Unusual
        self._constants = {name: text.strip() for name, text in manifest.constants.items() if isinstance(text, str)}
        if self._constants.keys() != manifest.constants.keys() or not all(self._constants.values()):
            raise Unusual
        given = manifest.split_fractions
        self._fractions = None if given is None else read_fractions(given, str(manifest.location))

    def batches(self, delimiter: str) -> list[pa.RecordBatch]:
        """All rows.

        Raises:
            Unusual: a row that only the other reader understands.
        """
        import pyarrow as pa
        from pyarrow import csv

        names = sorted(set(self._columns.values()))
        reader = csv.open_csv(
            str(self._manifest.location),
            csv.ReadOptions(use_threads=False, block_size=BLOCK, skip_rows=1, column_names=self._records.header),
            csv.ParseOptions(delimiter=delimiter, newlines_in_values=self._records.multiline),
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), include_columns=names),
        )
        found, start = [], 0
        for batch in reader:
            found.append(self._samples(batch, start))
            start += batch.num_rows
        if start != len(self._records.lines):
            raise Unusual
        return found

    def _samples(self, batch: pa.RecordBatch, start: int) -> pa.RecordBatch:
        import pyarrow as pa
        import pyarrow.compute as pc

        count, manifest = batch.num_rows, self._manifest
        fields = {name: _stripped(batch.column(column)) for name, column in self._columns.items()}
        fields |= {name: pa.repeat(text, count) for name, text in self._constants.items()}
        _require(fields, "image", "text", "domain")
        images, names = self._images(fields["image"])
        if "id" in fields:
            _require(fields, "id")
        ids = pc.binary_join_element_wise(manifest.id_prefix, fields.get("id", names), "")
        named = [name for name in OPTIONAL if name in fields]
        optional = {name: _null_if_empty(fields[name]) for name in named}
        keys = pc.coalesce(optional["group"], ids) if "group" in optional else ids
        lines = pa.array(self._records.lines[start : start + count])
        columns: dict[str, pa.Array] = {
            "id": ids,
            "image": images,
            "text": fields["text"],
            "domain": fields["domain"],
            "split": self._splits(fields, keys),
            **optional,
            "file": pa.DictionaryArray.from_arrays(np.zeros(count, dtype=np.int32), [str(manifest.location)]),
            "line": lines,
        }
        return pa.RecordBatch.from_pydict(columns)

    def _images(self, given: pa.Array) -> tuple[pa.Array, pa.Array]:
        """Absolute paths, and paths below the root."""
        import pyarrow as pa
        import pyarrow.compute as pc

        _refuse(given, URL)
        below = self._root.rstrip("/") + "/"
        names = pc.if_else(pc.starts_with(given, below), pc.utf8_slice_codeunits(given, len(below)), given)
        odd = pc.match_substring_regex(names, ODD_PART)
        if pc.any(odd).as_py():
            where = str(self._manifest.location)
            paths = [str(file_below(self._manifest.location.parent / self._manifest.image_root, name, where))
                     for name in given.filter(odd).to_pylist()]  # fmt: skip
            replaced = [os.path.relpath(path, self._root) for path in paths]
            names = pc.replace_with_mask(names, odd, pa.array(replaced, pa.string()))
        images = pc.binary_join_element_wise(below.removesuffix("/"), names, "/")
        _refuse(images, DICOM)
        return images, names

    def _splits(self, fields: dict[str, pa.Array], keys: pa.Array) -> pa.Array:
        import pyarrow.compute as pc

        given = fields.get("split")
        blank = None if given is None else pc.equal(given, "")
        if self._fractions is not None:
            if blank is not None and not pc.all(blank).as_py():
                raise Unusual
            fractions = self._fractions
            return _mapped(keys, lambda key: stable_split(key, fractions))
        if given is None or blank is None or pc.any(blank).as_py():
            raise Unusual
        return _mapped(given, lambda name: self._manifest.splits.get(name, name))


def _mapped(texts: pa.Array, change: Callable[[str], str]) -> pa.Array:
    """Splits of texts, computed once for each different one."""
    import pyarrow as pa

    coded = texts.dictionary_encode()
    found = [change(text) for text in coded.dictionary.to_pylist()]
    if not set(found) <= set(SPLITS):
        raise Unusual
    return pa.array(found, pa.string()).take(coded.indices)


def _stripped(texts: pa.Array) -> pa.Array:
    """Without spaces around them, as ``str.strip`` defines them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    doubtful = pc.match_substring_regex(texts, BLANK_END)
    if not pc.any(doubtful).as_py():
        return texts
    stripped = pa.array([text.strip() for text in texts.filter(doubtful).to_pylist()], pa.string())
    return pc.replace_with_mask(texts, doubtful, stripped)


def _refuse(texts: pa.Array, pattern: str) -> None:
    import pyarrow.compute as pc

    if pc.any(pc.match_substring_regex(texts, pattern)).as_py():
        raise Unusual


def _require(fields: dict[str, pa.Array], *names: str) -> None:
    import pyarrow.compute as pc

    for name in names:
        if pc.any(pc.equal(fields[name], "")).as_py():
            raise Unusual


def _null_if_empty(texts: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
