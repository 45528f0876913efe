"""Which columns of a table are the fields of samples, by name and by values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import SPLITS, USUAL_SPLITS
from kdkit.plugins.sources.folder import IMAGES
from kdkit.plugins.sources.rows import DICOM

Row = Mapping[str, Any]
NAMES: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "image_path", "img_path", "file_name", "filename", "filepath", "file", "path", "img", "picture"),
    "text": ("text", "caption", "captions", "report", "findings", "impression", "description", "sentence"),
    "label": ("label", "class", "class_name", "diagnosis", "dx", "category", "target", "disease", "finding"),
    "split": ("split", "set", "subset", "partition", "phase"),
    "group": ("group", "patient", "patient_id", "patientid", "subject", "subject_id", "case", "case_id"),
    "domain": ("domain", "modality"),
}
"""Field -> usual names of its column, the most certain first; compared without case, spaces and dashes."""
FRACTIONS = {"train": 0.8, "calibration": 0.1, "test": 0.1}
CAPTION = "a {domain} image of {label}"
MAX_DOMAINS = 50
"""A column with more values is no domain."""
SHOWN = 4
FOLDERS = 200
"""Folders below a manifest that are tried as the root of its images."""


def find_column(field: str, columns: Sequence[str]) -> str | None:
    """The column that is ``field`` by its name."""
    plain = {re.sub(r"[\s\-.]+", "_", name.strip().lower()): name for name in reversed(columns)}
    return next((plain[name] for name in NAMES[field] if name in plain), None)


def values_of(rows: Sequence[Row], column: str) -> list[str]:
    """The values of a column as texts, empty ones left out."""
    found = (row.get(column) for row in rows)
    return [text for value in found if value is not None and (text := str(value).strip())]


def describe_fields(
    rows: Sequence[Row], name: str, where: str, *, image: str = "", has_split: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Options for the fields of a table, and lines about them.

    Args:
        rows: some of it.
        name: the domain, if no column names it.
        where: for errors.
        image: its column of images; empty if the format has none.
        has_split: the format knows the split already.

    Raises:
        KdkitError: there is neither a text nor a label.
    """
    known = list(dict.fromkeys(column for row in rows for column in row if column != image))
    found = {field: find_column(field, known) for field in ("text", "label", "group", "domain", "split")}
    columns = {"image": image} if image and image != "image" else {}
    columns |= {field: found[field] or "" for field in ("text", "label", "group") if found[field]}
    options: dict[str, Any] = {}
    says = []
    if "id" in known and image and len(set(values_of(rows, "id"))) < len(rows):
        columns["id"] = image
        says.append(f"ids: the column '{image}'; those of 'id' repeat or are empty")
    domain = found["domain"]
    if domain and 0 < len(set(values_of(rows, domain))) <= MAX_DOMAINS and len(values_of(rows, domain)) == len(rows):
        columns["domain"] = domain
        says.append(f"domains: {_some(values_of(rows, domain))}")
    else:
        options["constants"] = {"domain": name}
        says.append(f"domain: {name}, for all (option constants)")
    if not found["text"] and not found["label"]:
        raise KdkitError(
            "KD-SRC-106",
            "no column of texts or labels",
            where=where,
            why=f"columns: {', '.join([*filter(None, [image]), *known])}",
            fix="name it text, caption or label, or write the data entry yourself with the option columns",
        )
    if found["label"]:
        says.append(f"classes: {_some(values_of(rows, found['label']))} (column '{found['label']}')")
    if found["text"]:
        says.append(f"texts: the column '{found['text']}'")
    else:
        options["caption"] = CAPTION
        says.append(f"texts: '{CAPTION}', since no column has them")
    if found["group"]:
        says.append(f"groups: the column '{found['group']}'; a group never spans two splits")
    if not has_split:
        options |= _describe_split(rows, found["split"], columns, says)
    columns = {field: column for field, column in columns.items() if field != column}
    return ({"columns": columns} if columns else {}) | options, says


def _describe_split(
    rows: Sequence[Row], column: str | None, columns: dict[str, str], says: list[str]
) -> dict[str, Any]:
    named = values_of(rows, column) if column else []
    if column and len(named) == len(rows) and {value.lower() for value in named} <= USUAL_SPLITS.keys():
        columns["split"] = column
        says.append(f"splits: {_some(named)} (column '{column}')")
        return translated(named)
    says.append("splits: 80 % train, 10 % calibration, 10 % test, by a stable hash of the group or id")
    return {"split_fractions": FRACTIONS}


def translated(names: Sequence[str]) -> dict[str, Any]:
    """The option ``splits`` for names that are not kdkit's own."""
    splits = {name: USUAL_SPLITS[name.lower()] for name in dict.fromkeys(names) if name not in SPLITS}
    return {"splits": splits} if splits else {}


def _some(values: Sequence[str]) -> str:
    names = list(dict.fromkeys(values))
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


# ------------------------------------------------------------------------------- columns of images


def find_image_column(rows: Sequence[Row], columns: Sequence[str]) -> str | None:
    """The column of paths: by its values, then by its name."""
    paths = [column for column in columns if _are_paths(values_of(rows, column))]
    named = find_column("image", columns)
    return named if named in paths or (named and not paths) else next(iter(paths), None)


def _are_paths(values: Sequence[str]) -> bool:
    return bool(values) and all(Path(value).suffix.lower() in (*IMAGES, *DICOM) for value in values)


def find_root(manifest: Path, values: Sequence[str]) -> str | None:
    """The folder, relative to the manifest's, that all image files are below; None if there is none."""
    folder = manifest.parent
    if all(os.path.isabs(value) for value in values):
        if not all(os.path.isfile(value) for value in values):
            return None
        return os.path.relpath(os.path.commonpath([os.path.dirname(value) for value in values]), folder)
    for root in _folders(folder):
        if all(os.path.isfile(root / value) for value in values):
            return os.path.relpath(root, folder)
    return None


def _folders(folder: Path) -> Iterator[Path]:
    """The folder, those below it (two levels), the one above and those beside it."""
    yield folder
    below = sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_dir())
    yield from below[:FOLDERS]
    yield folder.parent
    yield from sorted(path for path in folder.parent.glob("*") if path.is_dir() and path != folder)[:FOLDERS]
