"""What the samples of the built-in sources depend on, so that kdkit reads the sources again only after a change."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdkit.core.contracts import Sample
from kdkit.plugins.sources import vqa_med
from kdkit.plugins.sources.omni_med_vqa import INFORMATION
from kdkit.plugins.sources.pmc_vqa import CLEAN, FILES, FOLDERS
from kdkit.plugins.sources.records import json_object
from kdkit.plugins.sources.vqa import SLAKE_FILES
from kdkit.plugins.sources.wsi_slides import TABLES


def the_file(location: Path, **_: Any) -> Iterator[Path]:
    """The manifest."""
    yield location


def all_folders(location: Path, **_: Any) -> Iterator[Path]:
    """Folders alone, and links: a new, renamed or removed image changes its folder."""
    yield from _walk(location, files=False)


def all_files(location: Path, **_: Any) -> Iterator[Path]:
    """A file, or a folder with all folders and files below."""
    yield from _walk(location, files=True)


def dicom_files(location: Path, **_: Any) -> Iterator[Path]:
    """All files, and the folders of installed packages: a new decoder reads files that were skipped without it."""
    yield from _walk(location, files=True)
    yield from (Path(folder) for folder in sys.path if folder.endswith(("site-packages", "dist-packages")))


def wsi_files(location: Path, **options: Any) -> Iterator[Path]:
    """A folder with all files below, or a CSV file and its slides; and the files of coordinates."""
    from kdkit.plugins.sources.wsi import WholeSlides

    slides = WholeSlides(location, **options)
    if location.suffix.lower() in TABLES:
        yield location
        yield from (Path(str(slide.image)) for slide in slides.slides() if isinstance(slide, Sample))
    else:
        yield from _walk(location, files=True)
    if (folder := slides.coordinates_folder()) is not None:
        yield from _walk(folder, files=True)


def slake_files(location: Path, **_: Any) -> Iterator[Path]:
    """The folder, and the files of SLAKE."""
    yield from (location, *(location / name for name in SLAKE_FILES))


def pmc_vqa_files(location: Path, **_: Any) -> Iterator[Path]:
    """The folder, the folders of images that decide where they are, and the CSV files."""
    yield location
    if location.is_dir():
        yield from (location / name for name in (*(file for names in FILES.values() for file in names), CLEAN))
    folder = location if location.is_dir() else location.parent
    yield from (folder / name for name in FOLDERS)


def omni_med_vqa_files(location: Path, **_: Any) -> Iterator[Path]:
    """The folders of questions, and the files in them."""
    yield from _walk(location / INFORMATION, files=True)


def vqa_med_files(location: Path, **_: Any) -> Iterator[Path]:
    """The files of questions, and the folders that may hold them or their images."""
    yield from (path for depth in range(4) for path in location.glob("*/" * depth) if path.is_dir())
    yield from (file.path for file in vqa_med.question_files(location))


def sharegpt_files(location: Path, *, dataset: str | None = None, file: str | None = None, **_: Any) -> Iterator[Path]:
    """``dataset_info.json`` and the file of the data set."""
    yield location
    entries = json_object(location)
    entry = entries.get(dataset) if dataset else next(iter(entries.values()), None)
    name = file or (entry.get("file_name") if isinstance(entry, dict) else None)
    if isinstance(name, str):
        yield location.parent / name


def _walk(folder: Path, *, files: bool, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Path]:
    """Folders below ``folder``, and files or links; links to folders are followed, each way down once."""
    yield folder
    try:
        found = os.stat(folder)
        entries = list(os.scandir(folder)) if os.path.isdir(folder) else []
    except OSError:  # the source reports it
        return
    here = (found.st_dev, found.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), files=files, above=(*above, here))
        elif files or entry.is_symlink():
            yield Path(entry.path)
