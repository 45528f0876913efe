"""Captions in COCO's form, and figures of articles."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

from kdkit.core.contracts import Recognition, Skipped
from kdkit.plugins.sources.coco import CocoCaptions
from kdkit.plugins.sources.pmc_jsonl import LAYOUTS, ROCO, PmcJsonl
from kdkit.plugins.sources.recognize.fields import describe_fields, find_root, values_of
from kdkit.plugins.sources.recognize.tables import ROWS, find_images, name_of
from kdkit.plugins.sources.records import json_object, parse_json, read_text

START = 4096
"""Characters in which the first key must begin, and be one of COCO's."""
CHECKED = 2000
"""Images that must exist, or missing ones are left out."""
TRIED = 20
"""Images, one of which must be found."""
KEYS = ('"images"', '"annotations"', '"info"', '"licenses"')


def recognize_coco_captions(path: Path) -> Recognition | None:
    """A JSON file with images and annotations, or the only one in a folder.

    Raises:
        KdkitError: its annotations are no captions, or its images are not found.
    """
    file = path if path.is_file() else _only_json(path)
    if file is None or file.suffix.lower() != ".json" or not _begins_as_coco(file):
        return None
    record = json_object(file)
    if not {"images", "annotations"} <= record.keys():
        return None
    found = list(CocoCaptions(file).rows())
    rows = [row for _, row in found if not isinstance(row, Skipped)]
    root = find_images(file, file.parent, values_of(rows, "image"))
    options, says, warns = describe_fields(rows, name_of(file), str(file), image="image")
    says.insert(0, f"captions of COCO: {file.name}, {len(rows)} captions, images below {root.get('image_root', '.')}")
    if lost := len(found) - len(rows):
        warns.append(f"{lost} images without a caption, or captions without an image")
    return Recognition(file, {**options, **root}, tuple(says), 90 if path.is_file() else 85, tuple(warns))


def _begins_as_coco(file: Path) -> bool:
    text = read_text(file)[:START].lstrip().removeprefix("{").lstrip()
    return text.startswith(KEYS)


def _only_json(folder: Path) -> Path | None:
    found = [file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".json" and file.is_file()]
    return found[0] if len(found) == 1 else None


def recognize_pmc_jsonl(path: Path) -> Recognition | None:
    """Records of PMC-OA or MedICaT, files of ROCO, or images with lists of captions. Others are left to ``jsonl``.

    Raises:
        KdkitError: the images are not found.
    """
    source = PmcJsonl(path, skip_broken=True)
    if not source.fits():
        return None
    files = source.files()
    kinds = {kind for file in files if (kind := _kind_of(file))}
    if len(kinds) != 1 or not all(map(_kind_of, files)):
        return None
    found = [row for _, row in islice(source.rows(), ROWS) if not isinstance(row, Skipped)]
    if not found:
        return None
    images = list(dict.fromkeys(values_of(found, "image")))
    several = any(row["__caption__"][1] > 1 for row in found)
    root = {} if "ROCO" in kinds else _image_root(files[0], path if path.is_dir() else path.parent, images)
    by_name = "split" in found[0]
    kept = [{name: row[name] for name in ("image", "text", "group")} for row in found]
    splits = [str(row.get("split", "train")) for row in found] if by_name else None
    whole = len(found) < ROWS
    options, says, warns = describe_fields(kept, name_of(path), str(path), image="image", splits=splits, complete=whole)
    options.pop("columns", None)  # the source finds these fields itself
    folder = (path if path.is_dir() else path.parent) / root.get("image_root", ".")
    if missing := sum(not os.path.isfile(folder / image) for image in images[:CHECKED]):
        options["skip_missing"] = True
        count = f"{missing} of {len(images[:CHECKED])} images looked at are missing"
        warns.append(f"{count}, as after a download with errors: they are left out (skip_missing)")
    says = [line for line in says if "the column" not in line]
    says.insert(0, f"{', '.join(kinds)}: {len(files)} files; the figures of an article are a group")
    if several:
        says.append("several captions of an image: each is a sample; a pass over the data takes one of them")
    if by_name:
        says.append("splits: by the names of files and folders")
    return Recognition(path, {**options, **root}, tuple(says), 92 if path.is_file() else 87, tuple(warns))


def _image_root(file: Path, folder: Path, images: list[str]) -> dict[str, str]:
    """The option ``image_root`` by all images, or by the first one of a few that is there: a download lacks some.

    Raises:
        KdkitError: as :func:`find_images`.
    """
    if find_root(folder, images, str(file)) is None:
        images = next(([one] for one in images[:TRIED] if find_root(folder, [one], str(file)) is not None), images)
    return find_images(file, folder, images)


def _kind_of(file: Path) -> str:
    """What the first record of a file is; empty for others."""
    if fnmatch(file.name.lower(), ROCO):
        return "ROCO"
    with open(file, encoding="utf-8", errors="replace") as lines:
        line = next((line for line in lines if line.strip()), "")
    try:
        record = parse_json(line)
    except (ValueError, RecursionError):
        return ""
    layout = next((one for one in LAYOUTS if isinstance(record, dict) and one.fits(record)), None)
    if layout is LAYOUTS[-1] and not isinstance(record.get("captions", record.get("caption")), list):
        return ""
    return layout.name if layout else ""
