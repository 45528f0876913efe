"""Rows of tables read by Arrow, a column at a time, into batches of samples.

The result is that of :class:`~kdkit.plugins.sources.rows.RowReader`, row by row. Where anything is unusual or wrong,
:class:`Unusual` is raised, and the rows are read one by one: they know what to say about it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.contracts import SPLITS
from kdkit.plugins.sources.fields import read_fractions, stable_split
from kdkit.plugins.sources.records import file_below

if TYPE_CHECKING:
    import pyarrow as pa

    from kdkit.plugins.sources.rows import RowReader

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


def can_read(manifest: RowReader) -> bool:
    """Whether the options of the data entry ask for whole columns alone."""
    plain = manifest.caption is None and not (manifest.extra or manifest.metadata) and manifest.label_separator is None
    return plain and "extra" not in manifest.columns and os.sep == "/"


@dataclass(frozen=True)
class Cells:
    """Images in the cells of a column.

    Attributes:
        reader: of the images.
        column: their column.
        names: (n,) paths that the cells hold beside the bytes; None without any.
        keys: (n,) ids where no column has ids.
    """

    reader: str
    column: str
    names: pa.Array | None
    keys: pa.Array


class ColumnReader:
    """Turns columns into batches of samples.

    Args:
        manifest: the source.
        header: columns that the table has.
        root: folder of the images.
        in_cells: images are in cells, and so in no field.
        split: of all rows, where neither a column nor a constant names one.

    Raises:
        Unusual: the table lacks a column, or a constant is no text.
    """

    def __init__(
        self,
        manifest: RowReader,
        header: Collection[str],
        root: Path,
        *,
        in_cells: bool = False,
        split: str | None = None,
    ) -> None:
        self._manifest, self._root = manifest, os.path.abspath(root)
        constants = dict(manifest.constants) if split is None else {**manifest.constants, "split": split}
        self.columns = {
            name: column
            for name in FIELDS
            if name not in constants
            and not (in_cells and name == "image")
            and ((column := manifest.columns.get(name, name)) in header or name in manifest.columns)
        }
        needed = {"text"} if in_cells else {"image", "text"}
        if not needed <= self.columns.keys() or not set(self.columns.values()) <= set(header):
            raise Unusual
        if not {"domain"} <= {*self.columns, *constants}:
            raise Unusual
        self._constants = {name: text.strip() for name, text in constants.items() if isinstance(text, str)}
        if self._constants.keys() != constants.keys() or not all(self._constants.values()):
            raise Unusual
        given = manifest.split_fractions
        self._fractions = None if given is None else read_fractions(given, str(manifest.location))

    def batch(
        self, table: Mapping[str, pa.Array], file: Path, lines: pa.Array, cells: Cells | None = None
    ) -> pa.RecordBatch:
        """The samples of some rows.

        Args:
            table: column -> (n,) texts, null where a row has none.
            file: which holds the rows.
            lines: (n,) numbers of their lines, from 1.
            cells: where the images are, if they are in cells.

        Raises:
            Unusual: a row that only the other reader understands.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        count = len(lines)
        fields = {name: _stripped(table[column]) for name, column in self.columns.items()}
        fields |= {name: pa.repeat(text, count) for name, text in self._constants.items()}
        _require(fields, "text", "domain")
        if cells is None:
            _require(fields, "image")
            images, names = self._images(fields["image"])
            place = {"image": images}
        else:
            names = cells.keys
            place = {"image": pa.repeat(str(file), count), **_located(cells, lines)}
        if "id" in fields:
            _require(fields, "id")
        ids = pc.binary_join_element_wise(self._manifest.id_prefix, fields.get("id", names), "")
        optional = {name: _null_if_empty(fields[name]) for name in OPTIONAL if name in fields}
        keys = pc.coalesce(optional["group"], ids) if "group" in optional else ids
        columns: dict[str, pa.Array] = {
            "id": ids,
            **place,
            "text": fields["text"],
            "domain": fields["domain"],
            "split": self._splits(fields, keys),
            **optional,
            "file": pa.DictionaryArray.from_arrays(np.zeros(count, dtype=np.int32), [str(file)]),
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
            paths = [str(file_below(Path(self._root), name, where)) for name in given.filter(odd).to_pylist()]
            replaced = [os.path.relpath(path, self._root) for path in paths]
            names = pc.replace_with_mask(names, odd, pa.array(replaced, pa.string()))
        images = pc.binary_join_element_wise(below.removesuffix("/"), names, "/")
        _refuse(images, DICOM)
        return images, names

    def _splits(self, fields: Mapping[str, pa.Array], keys: pa.Array) -> pa.Array:
        import pyarrow.compute as pc

        given = fields.get("split")
        blank = None if given is None else pc.fill_null(pc.equal(given, ""), True)
        if self._fractions is not None:
            if blank is not None and not pc.all(blank).as_py():
                raise Unusual
            fractions = self._fractions
            return _mapped(keys, lambda key: stable_split(key, fractions))
        if given is None or blank is None or pc.any(blank).as_py():
            raise Unusual
        return _mapped(given, lambda name: self._manifest.splits.get(name, name))


def _located(cells: Cells, lines: pa.Array) -> dict[str, pa.Array]:
    """The columns of an :class:`ImageLocation`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = pc.subtract(lines, 1).cast(pa.string())
    names = pc.binary_join_element_wise("row ", lines.cast(pa.string()), "")
    if cells.names is not None:
        own = _null_if_empty(pc.replace_substring_regex(cells.names, r"(?s)^.*/", ""))
        if pc.any(pc.and_(pc.is_null(own), pc.greater(pc.binary_length(cells.names), 0))).as_py():
            raise Unusual
        names = pc.coalesce(own, names)
    return {
        "reader": pa.repeat(cells.reader, len(lines)),
        "at": pc.binary_join_element_wise(
            pc.binary_join_element_wise(f"[{json.dumps(cells.column)}, ", rows, ""), "]", ""
        ),
        "name": names,
    }


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

    doubtful = pc.fill_null(pc.match_substring_regex(texts, BLANK_END), False)
    if not pc.any(doubtful).as_py():
        return texts
    stripped = pa.array([text.strip() for text in texts.filter(doubtful).to_pylist()], pa.string())
    return pc.replace_with_mask(texts, doubtful, stripped)


def _refuse(texts: pa.Array, pattern: str) -> None:
    import pyarrow.compute as pc

    if pc.any(pc.match_substring_regex(texts, pattern)).as_py():
        raise Unusual


def _require(fields: Mapping[str, pa.Array], *names: str) -> None:
    import pyarrow.compute as pc

    for name in names:
        if fields[name].null_count or pc.any(pc.equal(fields[name], "")).as_py():
            raise Unusual


def _null_if_empty(texts: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def with_names(numbers: pa.Array, names: Sequence[str], none: int) -> pa.Array:
    """The name of each number, null for ``none``.

    Raises:
        Unusual: a number has no name.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.if_else(pc.equal(numbers, none), pa.scalar(None, numbers.type), numbers).cast(pa.int64())
    if len(numbers) and pc.any(pc.or_(pc.less(known, 0), pc.greater_equal(known, len(names)))).as_py():
        raise Unusual
    return pa.array(names, pa.string()).take(known)
