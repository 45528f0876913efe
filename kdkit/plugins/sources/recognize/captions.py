"""Captions in COCO's form."""

from __future__ import annotations

from pathlib import Path

from kdkit.core.contracts import Recognition, Skipped
from kdkit.plugins.sources.coco import CocoCaptions
from kdkit.plugins.sources.recognize.fields import describe_fields, values_of
from kdkit.plugins.sources.recognize.tables import find_images, name_of
from kdkit.plugins.sources.records import json_object, read_text

START = 4096
"""Characters in which the first key must begin, and be one of COCO's."""
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
