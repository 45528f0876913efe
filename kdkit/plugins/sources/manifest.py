"""CSV and JSON Lines manifests: one row per sample."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdkit.core.errors import KdkitError
from kdkit.plugins.sources.rows import RowReader


class CsvManifest(RowReader):
    """A CSV file with a header line, UTF-8."""

    def rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        return _csv_rows(self.location)


class JsonlManifest(RowReader):
    """A JSON Lines file: an object per line."""

    def rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        return jsonl_rows(self.location)


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with open(path, encoding="utf-8-sig", newline="") as handle:
        reader = csv.reader(handle)
        try:
            header = next(reader, [])
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                raise KdkitError(f"column '{twice[0]}' occurs twice", where=f"{path}:1")
            for row in reader:
                if len(row) not in (0, len(header)):
                    raise KdkitError(
                        f"{len(row)} fields, but the header has {len(header)}",
                        where=f"{path}:{reader.line_num}",
                    )
                if row:
                    yield reader.line_num, dict(zip(header, row, strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise KdkitError("not a UTF-8 CSV file", where=f"{path}:{reader.line_num}", why=str(error)) from error


def jsonl_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, object) pairs; raises KdkitError with ``file:line`` for anything else."""
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise KdkitError("not valid JSON", where=f"{path}:{number}", why=str(error)) from error
            if not isinstance(row, dict):
                raise KdkitError("not a JSON object", where=f"{path}:{number}")
            yield number, row
