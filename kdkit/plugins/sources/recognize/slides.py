"""Whole-slide images: a folder of them, or a CSV file that names them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from kdkit.core.contracts import USUAL_SPLITS, Recognition
from kdkit.plugins.sources.manifest import CsvManifest
from kdkit.plugins.sources.recognize.fields import (
    FRACTIONS,
    describe_fields,
    find_root,
    translated,
    values_of,
)
from kdkit.plugins.sources.recognize.folders import BY_HASH, some
from kdkit.plugins.sources.recognize.tables import DELIMITERS
from kdkit.plugins.sources.records import read_text
from kdkit.plugins.sources.wsi_slides import DOMAIN, SLIDES, TABLES, slide_files

LOOKED_AT = 2000
TIFF = (".tif", ".tiff")
MADE_FOR_SLIDES = tuple(ending for ending in SLIDES if ending not in TIFF)
TILES = "tiles: 256 pixels at 0.5 microns per pixel with half tissue, 500 of each slide (options)"
PER_SLIDE = 500


def recognize_wsi(path: Path) -> Recognition | None:
    """Slides in a folder, one slide, or a CSV file whose rows name slides."""
    if path.is_file() and path.suffix.lower() in TABLES:
        return _table(path)
    found = [one for one in islice(slide_files(path), LOOKED_AT) if isinstance(one, Path)]
    if path.is_file():
        found = [one for one in found if one.suffix.lower() in SLIDES]
    if not found or not _are_slides(found):
        return None
    options: dict[str, Any] = {"max_tiles_per_slide": PER_SLIDE}
    says = [f"layout: {len(found)} slides", f"domain: {DOMAIN}, for all (option domain)"]
    if path.is_file():
        return Recognition(path, options | {"split_fractions": FRACTIONS}, (*says, TILES), 92)
    places = [one.relative_to(path).parts[:-1] for one in found]
    firsts = sorted({parts[0] for parts in places if parts})
    by_split = bool(firsts) and all(places) and {name.lower() for name in firsts} <= USUAL_SPLITS.keys()
    named = {parts[-1] for parts in places if len(parts) > by_split}
    if len(named) > 1 and all(len(parts) > by_split for parts in places):
        options["classes"] = True
        says.append(f"classes: {some(sorted(named))}, by the folders of the slides")
    else:
        says.append("classes: none (the option classes takes them from folders, a CSV file from its column label)")
    options |= translated(firsts) if by_split else {"split_fractions": FRACTIONS}
    says.append(TILES)
    says.append("splits: " + some(firsts) if by_split else f"{BY_HASH} of the slide (of the patient: group_pattern)")
    return Recognition(path, options, tuple(says), 92)


def _table(path: Path) -> Recognition | None:
    header = read_text(path).split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=header.count)
    rows = [row for _, row in islice(CsvManifest(path, delimiter=delimiter).rows(), LOOKED_AT)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    slide = next((name for name in columns if _name_slides(values_of(rows, name))), None)
    if slide is None:
        return None
    values = values_of(rows, slide)
    root = find_root(path.parent, values, str(path))
    if root is None or not _are_slides([path.parent / root / value for value in values]):
        return None
    described, says, warns = describe_fields(rows, DOMAIN, str(path), image=slide, complete=len(rows) < LOOKED_AT)
    columns_of = {("slide" if name == "image" else name): value for name, value in described.pop("columns", {}).items()}
    columns_of.setdefault("slide", slide)
    described.pop("constants", None)
    options = {"columns": columns_of, **described, "max_tiles_per_slide": PER_SLIDE}
    options |= {} if root == "." else {"image_root": root}
    options |= {} if delimiter == "," else {"delimiter": delimiter}
    says = [f"table: {path.name}, slides in the column '{slide}' below {root}", *says, TILES]
    return Recognition(path, options, tuple(says), 95, tuple(warns))


def _name_slides(values: Sequence[str]) -> bool:
    return bool(values) and all(Path(value).suffix.lower() in SLIDES for value in values)


def _are_slides(paths: Sequence[Path]) -> bool:
    """Whether these are slides: by their endings, and TIFF files if OpenSlide finds a pyramid in the first one."""
    if any(path.suffix.lower() in MADE_FOR_SLIDES for path in paths):
        return True
    try:
        import openslide
    except (ImportError, OSError):
        return False
    try:
        with openslide.OpenSlide(paths[0]) as slide:
            return bool(slide.level_count > 1)
    except (openslide.OpenSlideError, OSError):
        return False
