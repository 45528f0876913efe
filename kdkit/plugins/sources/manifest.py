"""CSV and JSON Lines manifests: one row per sample."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.sources.fast_csv import read_columns
from kdkit.plugins.sources.fast_jsonl import read_jsonl_columns, refuse_odd_value
from kdkit.plugins.sources.records import jsonl_rows, read_text
from kdkit.plugins.sources.rows import RowReader


@dataclass(frozen=True)
class CsvManifest(RowReader):
    """A CSV file with a header line, UTF-8 or UTF-16.

    Attributes:
        delimiter: the character between two fields.
    """

    delimiter: str = ","

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.delimiter, str) or len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise KdkitError(
                "KD-SRC-008",
                f"delimiter must be one character, not {self.delimiter!r}",
                where=str(self.location),
                fix="write ';', or a tab as \"\\t\" in double quotes",
            )

    def __iter__(self) -> Iterator[Any]:
        """Batches of samples where the file is as usual, else the samples one by one."""
        self.require_location()
        batches = read_columns(self, self.delimiter)
        yield from super().__iter__() if batches is None else batches

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(``file:line``, row) pairs; a row may span several lines, and the first one counts."""
        text, start, delimiter = read_text(self.location), 1, self.delimiter
        if named := re.match(r"sep=(.)\r?\n", text):  # spreadsheets write and obey this line
            text, start, delimiter = text[named.end() :], 2, named[1]
        csv.field_size_limit(sys.maxsize)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        line = start
        try:
            header = next(reader, [])
            _check_header(header, f"{self.location}:{start}")
            line = reader.line_num + start
            for row in reader:
                if len(row) not in (0, len(header)):
                    raise KdkitError(
                        "KD-SRC-009",
                        f"{len(row)} fields, but the header has {len(header)}",
                        where=f"{self.location}:{line}",
                        fix="add the missing fields, or put fields with a delimiter in quotes",
                    )
                if row:
                    yield f"{self.location}:{line}", dict(zip(header, row, strict=True))
                line = reader.line_num + start
        except csv.Error as error:
            fix = 'close every quote; write a " inside a quoted field as ""'
            raise KdkitError(
                "KD-SRC-011", "not a CSV row", where=f"{self.location}:{line}", why=str(error), fix=fix
            ) from error


class JsonlManifest(RowReader):
    """A JSON Lines file: an object per line."""

    def __iter__(self) -> Iterator[Any]:
        """Batches of samples where the file is as usual, else the samples one by one."""
        self.require_location()
        if (batches := read_jsonl_columns(self)) is not None:
            yield from batches
            return
        refuse_odd_value(self)
        yield from super().__iter__()

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(``file:line``, row) pairs."""
        for line, row in jsonl_rows(self.location):
            yield f"{self.location}:{line}", row


def _check_header(header: Sequence[str], where: str) -> None:
    repeated = sorted({name for name in header if name and header.count(name) > 1})  # spreadsheets add nameless ones
    if repeated:
        raise KdkitError(
            "KD-SRC-012", f"column '{repeated[0]}' occurs twice", where=where, fix="rename one of the columns"
        )
    for other, written in ((";", "';'"), ("\t", '"\\t"')):
        if len(header) == 1 and other in header[0]:
            raise KdkitError(
                "KD-SRC-013",
                f"the header has one column: {header[0]}",
                where=where,
                fix=f"set the option delimiter: {written}",
            )
