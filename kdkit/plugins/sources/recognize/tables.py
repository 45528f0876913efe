"""CSV, JSON Lines and Parquet."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import USUAL_SPLITS, Recognition, Skipped
from kdkit.plugins.readers.parquet_files import binary_leaf, open_parquet
from kdkit.plugins.sources.manifest import CsvManifest, JsonlManifest
from kdkit.plugins.sources.parquet import ParquetRows
from kdkit.plugins.sources.recognize.fields import describe_fields, find_image_column, find_root, values_of
from kdkit.plugins.sources.records import read_text

ROWS = 100_000
"""Rows that are looked at."""
CSV, JSONL = (".csv", ".tsv"), (".jsonl", ".ndjson")
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
Rows = Iterable[tuple[str, Mapping[str, Any] | Skipped]]


def recognize_tables(path: Path) -> Recognition | None:
    """The tables in a folder, whatever their format.

    Raises:
        KdkitError: one of them has something missing.
    """
    found = (recognizer(path) for recognizer in (recognize_csv, recognize_jsonl, recognize_parquet))
    return next(filter(None, found), None)


def recognize_csv(path: Path) -> Recognition | None:
    """A CSV file, or the only manifest in a folder."""
    file = _only_manifest(path, CSV)
    if file is None:
        return None
    header = read_text(file).split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=header.count)
    options = {} if delimiter == "," else {"delimiter": delimiter}
    says = [f"encoding: {_encoding(file)}", f"delimiter: {DELIMITERS[delimiter]}"]
    return _manifest(file, path, CsvManifest(file, delimiter=delimiter).rows(), options, says)


def recognize_jsonl(path: Path) -> Recognition | None:
    """A JSON Lines file, or the only manifest in a folder."""
    file = _only_manifest(path, JSONL)
    if file is None:
        return None
    return _manifest(file, path, JsonlManifest(file).rows(), {}, [f"encoding: {_encoding(file)}"])


def recognize_parquet(path: Path) -> Recognition | None:
    """A Parquet file, or a folder with such files."""
    if not ParquetRows(path).fits():
        return None
    files = ParquetRows(path).files()
    with open_parquet(files[0]) as opened:
        schema = opened.schema_arrow
        cells = [name for name in schema.names if binary_leaf(schema, name)]
    if cells:
        image = "image" if "image" in cells else cells[0]
    else:
        plain = _some_rows(ParquetRows(files[0], columns={"image": schema.names[0]}).rows())
        image = find_image_column(plain, schema.names) or ""
    if not image:
        raise _no_images(files[0], schema.names)
    reader = ParquetRows(path, columns={"image": image})
    rows = _some_rows(reader.rows())
    keep = [{key: value for key, value in row.items() if key in schema.names} for row in rows]
    split = "split" in rows[0] and "split" not in schema.names if rows else False
    options, says, warns = describe_fields(
        keep,
        name_of(path),
        str(files[0]),
        image=image,
        splits=[str(row["split"]) for row in rows] if split else None,
        complete=len(rows) < ROWS,
    )
    says.insert(0, f"images: the column '{image}', {'in cells' if cells else 'as paths'}; {len(files)} files")
    if split:
        says.append("splits: by the names of files and folders")
    if not cells:
        options |= find_images(files[0], path if path.is_dir() else path.parent, values_of(rows, image))
    return Recognition(path, options, tuple(says), 90 if path.is_file() else 80, tuple(warns))


def _manifest(file: Path, path: Path, rows: Rows, options: dict[str, Any], says: list[str]) -> Recognition | None:
    found = _some_rows(rows)
    columns = list(dict.fromkeys(column for row in found for column in row))
    image = find_image_column(found, columns)
    if image is None:
        if path.is_dir():
            return None
        raise _no_images(file, columns)
    root = find_images(file, file.parent, values_of(found, image))
    described, more, warns = describe_fields(found, name_of(file), str(file), image=image, complete=len(found) < ROWS)
    says = [f"table: {file.name}, images in the column '{image}' below {root.get('image_root', '.')}", *says, *more]
    certainty = 90 if path.is_file() else 85
    return Recognition(file, {**described, **root, **options}, tuple(says), certainty, tuple(warns))


def find_images(file: Path, folder: Path, values: Sequence[str]) -> dict[str, str]:
    """The option ``image_root`` of a table, if its images are elsewhere than in ``folder``.

    Raises:
        KdkitError: they are nowhere near, or in several folders.
    """
    root = find_root(folder, values, str(file))
    if root is None:
        raise KdkitError(
            "KD-SRC-107",
            "the images of this table were not found",
            where=str(file),
            why=f"for example {values[0]}" if values else "its column of images is empty",
            fix="put them beside the table, or write the data entry yourself with the option image_root",
        )
    return {} if root == "." else {"image_root": root}


def _only_manifest(path: Path, endings: Sequence[str]) -> Path | None:
    """``path`` itself, or the one table that lies in the folder."""
    if path.is_file():
        return path if path.suffix.lower() in endings else None
    tables = [file for file in sorted(path.iterdir()) if file.suffix.lower() in (*CSV, *JSONL) and file.is_file()]
    return tables[0] if len(tables) == 1 and tables[0].suffix.lower() in endings else None


def _some_rows(rows: Rows) -> list[Mapping[str, Any]]:
    return [row for _, row in islice(rows, ROWS) if not isinstance(row, Skipped)]


def name_of(path: Path) -> str:
    """A domain: the name of the file, or of its folder if the file is named after a split or 'samples'."""
    general = (*USUAL_SPLITS, "samples", "data", "metadata", "labels", "images", "index", "manifest")
    return path.parent.name if path.stem.lower() in general and path.parent.name else path.stem


def _encoding(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(4)
    return json.detect_encoding(head) + (" with a byte order mark" if head.startswith(codecs.BOM_UTF8) else "")


def _no_images(path: Path, columns: Sequence[str]) -> KdkitError:
    return KdkitError(
        "KD-SRC-108",
        "no column of images",
        where=str(path),
        why=f"columns: {', '.join(columns)}",
        fix="a column needs paths of images with their endings; or write the data entry yourself",
    )
