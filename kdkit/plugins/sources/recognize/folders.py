"""Folders of images or DICOM files, tar shards, and arrays."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tarfile import is_tarfile
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import USUAL_SPLITS, Recognition, Skipped
from kdkit.plugins.sources.dicom_index import is_dicom
from kdkit.plugins.sources.folder import IMAGES
from kdkit.plugins.sources.medmnist import LABELS
from kdkit.plugins.sources.recognize.fields import CAPTION, FRACTIONS, describe_fields, translated, warn_of_numbers
from kdkit.plugins.sources.recognize.tables import recognize_tables
from kdkit.plugins.sources.tree import is_hidden, walk_files
from kdkit.plugins.sources.webdataset import WebDataset

FILES = 20_000
"""Images of a folder that are looked at, in equal shares of the folders in it."""
LEAST = 200
"""Of a folder in it, at least that many."""
FEW = 10
"""Shards with that many samples for each loose image are the data; the images are extras."""
DICOMS = 50
SAMPLES = 10_000
BY_HASH = "splits: 80 % train, 10 % calibration, 10 % test, by a stable hash"
GENERAL = ("images", "image", "imgs", "img", "pictures", "data", "files")
"""Names of folders that say nothing about the images in them."""
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Endings of tables that may lie beside the images."""


def recognize_folder(path: Path) -> Recognition | None:
    """Images in folders that name classes, with or without levels of splits and domains above."""
    if not path.is_dir():
        return None
    places = [file.relative_to(path).parts[:-1] for file in _images(path)]
    depths = Counter(map(len, places))
    if not places:
        return None
    tables = sorted(file.name for file in path.iterdir() if file.suffix.lower() in TABLES)
    by_table = recognize_tables(path) if tables else None
    if len(depths) > 1 or 0 in depths:
        if by_table:
            return None
        raise _no_classes(path, depths, tables)
    if tables and not by_table:
        raise _unread_tables(path, tables)
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
    elif {parts[-2].lower() for parts in places} <= set(GENERAL):
        named = list(dict.fromkeys(parts[-2] for parts in places))
        options |= {"domain_by": {"of": "domain", "map": dict.fromkeys(named, path.name)}, "text_by": CAPTION}
        says.append(f"domain: {path.name}, for all, since '{some(named)}' names none (option domain_by)")
    else:
        says.append(f"domains: {some([parts[-2] for parts in places])}")
    says.append(f"classes: {some([parts[-1] for parts in places])}")
    says.append("splits: " + some(firsts) if by_split else f"{BY_HASH} of the path (of the patient: group_pattern)")
    return Recognition(path, options, tuple(says), 60, tuple(warn_of_numbers([parts[-1] for parts in places])))


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
        "splits: " + some(firsts) if by_split else f"{BY_HASH} of the patient",
    )
    return Recognition(path, options, says, 90 if path.is_file() else 70)


def recognize_webdataset(path: Path) -> Recognition | None:
    """Tar files."""
    reader = WebDataset(path, skip_broken=True)
    if not reader.fits():
        return None
    rows = [row for _, row in islice(reader.rows(), SAMPLES) if not isinstance(row, Skipped)]
    loose = sum(1 for _ in _images(path)) if path.is_dir() else 0
    if FEW * loose > len(rows):
        return None
    if not rows:
        first = reader.files()[0]
        raise KdkitError(
            "KD-SRC-116",
            "no sample in this tar file" if is_tarfile(first) else "this is not a tar file",
            where=str(first),
            fix="write or download it again: a sample is an image with a .txt, .json or .cls of the same name",
        )
    by_name = [reader.with_split({}, file) for file in reader.files()]
    has_split = all(by_name)
    splits = [str(row["split"]) for row in rows] if has_split else None
    fields = [{key: value for key, value in row.items() if key not in ("image", reader.KEY)} for row in rows]
    if has_split:
        fields = [{key: value for key, value in row.items() if key != "split"} for row in fields]
    options, says, warns = describe_fields(fields, path.stem, str(path), splits=splits, complete=len(rows) < SAMPLES)
    says.insert(0, f"layout: {len(by_name)} tar shards; samples by key")
    if loose:
        says.append(f"not read: {loose} images beside the shards")
    if has_split:
        says.append("splits: by the names of shards and folders")
    return Recognition(path, options, tuple(says), 90 if path.is_file() else 80, tuple(warns))


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
    says = (f"arrays of MedMNIST: {', '.join(parts)}", f"domain: {known}", f"classes: {some(list(LABELS[known]))}")
    return Recognition(path, {}, says, 95)


def _no_classes(path: Path, depths: Counter[int], tables: list[str]) -> KdkitError:
    found = ", ".join(f"{count} images {depth} folders deep" for depth, count in sorted(depths.items()))
    fix = "sort the images into folders of classes, or write a table with a row per image"
    if tables:
        fix = f"name a table in it ({', '.join(tables[:5])}): kdkit init --from {path / tables[0]}"
    return KdkitError(
        "KD-SRC-109",
        "these folders do not name classes",
        where=str(path),
        why=f"{found}; expected are class/image.png, domain/class/image.png, with a split above or not",
        fix=fix,
    )


def _unread_tables(path: Path, tables: list[str]) -> KdkitError:
    """The labels may be in the table, and the folders mere parts of the download."""
    return KdkitError(
        "KD-SRC-115",
        f"no source reads {some(tables)}, so whether these folders name classes is not known",
        where=str(path),
        why="a table needs a column with paths of images with their endings, and must be the only one in the folder",
        fix=f"name the table (kdkit init --from {path / tables[0]}), or move the tables away if the folders name"
        " classes, or write the data entry yourself",
    )


def _images(path: Path) -> Iterator[Path]:
    """Images in a folder: its own, and a share of each folder in it, so that none is missed."""
    folders = []
    for name in sorted(os.listdir(path)):
        if is_hidden(name):
            continue
        if os.path.isdir(path / name):
            folders.append(path / name)
        elif Path(name).suffix.lower() in IMAGES:
            yield path / name
    share = max(FILES // max(len(folders), 1), LEAST)
    for folder in folders:
        yield from islice((file for file in _files(folder) if file.suffix.lower() in IMAGES), share)


def _files(path: Path) -> Iterator[Path]:
    """Files below a folder, hidden ones left out."""
    return (found for found in walk_files(path) if isinstance(found, Path))


def some(values: list[str]) -> str:
    """The first of these names."""
    names = list(dict.fromkeys(values))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
