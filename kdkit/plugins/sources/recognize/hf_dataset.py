"""Data sets of the library ``datasets``: saved on the disk, or in a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import USUAL_SPLITS, Recognition, Skipped
from kdkit.plugins.readers.parquet_files import binary_leaf
from kdkit.plugins.sources.hf_dataset import HfDataset
from kdkit.plugins.sources.hf_layout import STATE, feature_kind, looks_saved
from kdkit.plugins.sources.parquet import LABELS
from kdkit.plugins.sources.recognize.fields import FRACTIONS, describe_fields, find_column, translated
from kdkit.plugins.sources.recognize.tables import ROWS

CACHE = "datasets--"
"""Beginning of the name of a data set's folder in the Hub's cache."""


def recognize_hf_dataset(path: Path) -> Recognition | None:
    """A folder of ``save_to_disk``, or of one of the caches. Parquet files elsewhere are left to their own source.

    Raises:
        KdkitError: no column has images, or there is neither a text nor a label.
    """
    if not (looks_saved(path) if path.is_dir() else path.suffix == ".arrow"):
        return None
    source = HfDataset(path)
    if not source.layout.files and not (path.name.startswith(CACHE) and source.fits()):
        return None
    files = source.files()
    with source.table(files[0]) as table:
        schema, features = table.schema, source.features(table.schema)
    cells = [name for name in schema.names if binary_leaf(schema, name)]
    images = [name for name in cells if feature_kind(features.get(name)) in ("Image", "")]
    if not images:
        raise KdkitError(
            "KD-SRC-328",
            "no column of this data set has images",
            where=str(path),
            why=f"columns: {', '.join(schema.names)}",
            fix="cast a column to the feature Image, and save the data set again",
        )
    image = "image" if "image" in images else images[0]
    label = find_column("label", schema.names)
    reader = HfDataset(path, columns={"image": image, **({"label": label} if label else {})})
    found = list(islice(((where, row) for where, row in reader.rows() if not isinstance(row, Skipped)), ROWS))
    rows = [_named(row, label, schema.names) for _, row in found]
    named = ["split" in row for _, row in found]
    by_name = bool(named) and all(named) and "split" not in schema.names
    splits = [str(row["split"]) for _, row in found] if by_name else None
    whole = len(found) < ROWS
    name = _name(path, source.layout.root)
    options, says, warns = describe_fields(rows, name, str(path), image=image, splits=splits, complete=whole)
    if splits is not None:
        names = list(dict.fromkeys(splits)) if whole else sorted({*filter(None, source.layout.files.values())})
        if {name.lower() for name in names} <= USUAL_SPLITS.keys() and set(names) != {"train"}:
            options |= translated(names)
            says.append(f"splits: {', '.join(names)}")
        else:
            options["split_fractions"] = FRACTIONS
            says.append("splits: 80 % train, 10 % calibration, 10 % test, by a stable hash of the group or id; "
                        f"the data set has {', '.join(names)}")  # fmt: skip
    says.insert(0, f"{source.layout.says}; images: the column '{image}'; files: {len(files)}")
    return Recognition(path, options, tuple(says), 95, tuple(warns))


def _named(row: Mapping[str, Any], label: str | None, columns: Sequence[str]) -> dict[str, Any]:
    """The row as its columns alone, with the name of its label."""
    kept, names = {name: value for name, value in row.items() if name in columns}, row.get(LABELS, ())
    if label is not None and names:
        value = kept.get(label)
        numbers = value if isinstance(value, list) else [value]
        texts = [names[one] for one in numbers if isinstance(one, int) and 0 <= one < len(names)]
        kept[label] = texts if isinstance(value, list) else next(iter(texts), None)
    return kept


def _name(path: Path, root: Path) -> str:
    """The domain: the name of the data set, without its owner."""
    if path.name.startswith(CACHE):
        return path.name.rpartition("--")[2]
    folder = root if path.is_file() else path
    below = root.relative_to(folder).parts
    if below and "___" not in folder.name:  # in the library's cache
        return below[0].rpartition("___")[2]
    if (folder / STATE).is_file() and folder.name.lower() in USUAL_SPLITS:
        folder = folder.parent
    return folder.name.rpartition("___")[2]
