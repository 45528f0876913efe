"""Folders of images or DICOM files, tar shards, and arrays."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import USUAL_SPLITS, Recognition, Skipped
from kdkit.plugins.sources.dicom_index import is_dicom
from kdkit.plugins.sources.folder import IMAGES
from kdkit.plugins.sources.medmnist import LABELS
from kdkit.plugins.sources.recognize.fields import FRACTIONS, describe_fields, translated
from kdkit.plugins.sources.webdataset import WebDataset

FILES = 20_000
"""Files of a folder that are looked at."""
DICOMS = 50
SAMPLES = 10_000
BY_HASH = "splits: 80 % train, 10 % calibration, 10 % test, by a stable hash"
TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
"""Endings of tables that may lie beside the images."""


def recognize_folder(path: Path) -> Recognition | None:
    """Images in folders that name classes, with or without levels of splits and domains above."""
    if not path.is_dir():
        return None
    places = [file.relative_to(path).parts[:-1] for file in _files(path) if file.suffix.lower() in IMAGES]
    depths = Counter(map(len, places))
    if not places:
        return None
    if len(depths) > 1 or 0 in depths:
        found = ", ".join(f"{count} images {depth} folders deep" for depth, count in sorted(depths.items()))
        tables = sorted(file.name for file in path.iterdir() if file.suffix.lower() in TABLES)
        fix = "sort the images into folders of classes, or write a table with a row per image"
        raise KdkitError(
            "KD-SRC-109",
            "these folders do not name classes",
            where=str(path),
            why=f"{found}; expected are class/image.png, domain/class/image.png, with a split above or not",
            fix=f"name a table in it ({', '.join(tables[:5])}): kdkit init --from {path / tables[0]}"
            if tables
            else fix,
        )
    (depth,) = depths
    firsts = list(dict.fromkeys(parts[0] for parts in places))
    by_split = depth > 1 and {name.lower() for name in firsts} <= USUAL_SPLITS.keys()
    levels = depth - by_split
    if levels not in (1, 2):
        return None
    options: dict[str, Any] = translated(firsts) if by_split else {"split_fractions": FRACTIONS}
    says = [f"layout: {'split/' * by_split}{'domain/' * (levels == 2)}class/image"]
    if levels == 1:
        options["domain"] = path.name
        says.append(f"domain: {path.name}, for all")
    else:
        says.append(f"domains: {_some([parts[-2] for parts in places])}")
    says.append(f"classes: {_some([parts[-1] for parts in places])}")
    says.append("splits: " + _some(firsts) if by_split else f"{BY_HASH} of the path (of the patient: group_pattern)")
    return Recognition(path, options, tuple(says), 60)


def recognize_dicom(path: Path) -> Recognition | None:
    """DICOM files in a folder, or one."""
    looked = list(islice(_files(path), DICOMS)) if path.is_dir() else [path]
    count = sum(is_dicom(file) for file in looked)
    if not count or 2 * count < len(looked):
        return None
    firsts = sorted(name.name for name in path.iterdir() if name.is_dir()) if path.is_dir() else []
    by_split = bool(firsts) and {name.lower() for name in firsts} <= USUAL_SPLITS.keys()
    options: dict[str, Any] = {} if by_split else {"split_fractions": FRACTIONS}
    says = (
        "layout: DICOM files at any depth; a sample is a file with a picture",
        "domains: by modality; classes: none (the option classes takes them from folders, a table from anywhere)",
        "windows: those of the files (option windows)",
        "splits: " + _some(firsts) if by_split else f"{BY_HASH} of the patient",
    )
    return Recognition(path, options, says, 90 if path.is_file() else 70)


def recognize_webdataset(path: Path) -> Recognition | None:
    """Tar files."""
    if path.suffix.lower() != ".tar" and not (path.is_dir() and any(path.rglob("*.tar"))):
        return None
    reader = WebDataset(path, skip_broken=True)
    rows = [row for _, row in islice(reader.rows(), SAMPLES) if not isinstance(row, Skipped)]
    by_name = [reader.with_split({}, file) for file in reader.files()]
    has_split = all(by_name)
    fields = [{key: value for key, value in row.items() if key not in ("image", reader.KEY)} for row in rows]
    if has_split:
        fields = [{key: value for key, value in row.items() if key != "split"} for row in fields]
    options, says = describe_fields(fields, path.stem, str(path), has_split=has_split)
    says.insert(0, f"layout: {len(by_name)} tar shards; samples by key")
    if has_split:
        says.append("splits: by the names of shards and folders")
    return Recognition(path, options, tuple(says), 90 if path.is_file() else 80)


def recognize_medmnist(path: Path) -> Recognition | None:
    """Arrays ``train_images`` and so on."""
    try:
        if path.is_dir():
            names = {file.stem for file in path.glob("*.npy")}
        elif path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                names = {name.removesuffix(".npy") for name in archive.namelist()}
        else:
            return None
    except (OSError, zipfile.BadZipFile):
        return None
    parts = sorted(name.removesuffix("_images") for name in names if name.endswith("_images"))
    if not parts:
        return None
    known = path.stem.partition("_")[0]
    if known not in LABELS:
        raise KdkitError(
            "KD-SRC-110",
            "the labels of these arrays have no names",
            where=str(path),
            why=f"'{known}' is none of MedMNIST's own files: {', '.join(LABELS)}",
            fix="write the data entry yourself: {source: medmnist, path: ..., options: {labels: [normal, ...]}}",
        )
    says = (f"arrays of MedMNIST: {', '.join(parts)}", f"domain: {known}", f"classes: {_some(list(LABELS[known]))}")
    return Recognition(path, {}, says, 95)


def _files(path: Path) -> Iterator[Path]:
    """Files below a folder, hidden ones left out, up to a number."""
    count = 0
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder, name)
                count += 1
                if count == FILES:
                    return


def _some(values: list[str]) -> str:
    names = list(dict.fromkeys(values))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
