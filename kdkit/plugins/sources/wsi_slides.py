"""Which slides there are: those in a folder, or the rows of a CSV file.

A slide is a ``Sample`` whose image is the slide's file.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Sample, Skipped, Split
from kdkit.plugins.sources.fields import FolderSplits, compile_pattern, fill_caption, find_group
from kdkit.plugins.sources.manifest import CsvManifest
from kdkit.plugins.sources.records import read_text
from kdkit.plugins.sources.rows import RowReader
from kdkit.plugins.sources.tree import walk_files

SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".tif", ".tiff")
"""Endings of files that OpenSlide reads. DICOM slides are of several files; they are not read."""
TABLES = (".csv", ".tsv")
DOMAIN = "histopathology"
BY_LABEL, BARE = "a {domain} image of {label}", "{domain} image"
"""Templates of texts with and without labels."""
GROUP = "group"


@dataclass(frozen=True)
class SlideFolder:
    """Slides at any depth: ``[split/][class/]slide``. Links to folders are followed; hidden names are skipped.

    Attributes:
        location: the folder, or one slide.
        domain, caption: of all slides; the caption may use ``{domain}``, and ``{label}`` with ``classes``.
        classes: the folder that holds a slide names its class.
        splits: of the slides.
        group_pattern: regular expression searched in the file name; its first group (or the whole match) is the
            patient.
    """

    location: Path
    domain: str
    caption: str
    classes: bool
    splits: FolderSplits
    group_pattern: re.Pattern[str] | None

    def __iter__(self) -> Iterator[Sample | Skipped]:
        """The slides in the order of their paths.

        Raises:
            KdkitError: no such folder; a wrong caption; a folder that names no split; a file name that
                ``group_pattern`` does not match.
        """
        if not self.location.exists():
            fix = "check the path of the data entry; it is relative to registry.yaml"
            raise KdkitError("KD-SRC-347", "no such folder", where=str(self.location), fix=fix, code=ExitCode.MISSING)
        for path in slide_files(self.location):
            yield path if isinstance(path, Skipped) else self._slide(path)

    def _slide(self, path: Path) -> Sample:
        relative = path.name if path == self.location else path.relative_to(self.location).as_posix()
        id_ = without_suffix(relative)
        group = id_ if self.group_pattern is None else find_group(self.group_pattern, path)
        label = path.parent.name if self.classes else None
        return Sample(
            id=id_,
            image=path,
            text=fill_caption(self.caption, self.domain, label, str(path)),
            domain=self.domain,
            label=label,
            split=self.splits.of_file(relative, group, str(path)),
            origin=str(path),
            extra={GROUP: group},
        )


def slide_files(location: Path) -> Iterator[Path | Skipped]:
    """The slides in a folder, and what is passed over. The files of a MIRAX slide are part of it: ``NAME/`` beside
    ``NAME.mrxs``.
    """
    if location.is_file():
        yield location
        return
    for path in walk_files(location):
        if not isinstance(path, Path) or path.suffix.lower() in SLIDES:
            yield path
        elif not Path(f"{path.parent}.mrxs").is_file():
            yield Skipped("files that are no slides", str(path), level="note")


def without_suffix(name: str) -> str:
    """A slide's path without its ending: the ids of imported features of TRIDENT and CLAM begin so."""
    return str(Path(name).with_suffix("").as_posix())


@dataclass(frozen=True)
class SlideTable(CsvManifest):
    """A CSV file with a row per slide: the fields of manifests, with ``slide`` instead of ``image``."""

    def __iter__(self) -> Iterator[Sample | Skipped]:
        """The slides in the order of the rows.

        Raises:
            KdkitError: with ``file:line``; a row is wrong.
        """
        for item in RowReader.__iter__(self):
            if not isinstance(item, Sample):
                yield item
                continue
            id_ = without_suffix(item.id) if item.id.lower().endswith(SLIDES) else item.id
            extra = {name: value for name, value in item.extra.items() if name != GROUP}
            yield replace(item, id=id_, extra={**extra, GROUP: item.extra.get(GROUP, id_)})


def open_table(
    location: Path,
    *,
    columns: Mapping[str, str],
    domain: str | None,
    caption: str | None,
    split: Split | None,
    splits: Mapping[str, str] | None,
    split_fractions: Mapping[str, float] | None,
    image_root: str,
    metadata: Sequence[str],
    delimiter: str,
) -> SlideTable:
    """The slides of a CSV file. Without a column for it, the domain is histopathology and the text names the label.

    Raises:
        KdkitError: a wrong option.
    """
    header = read_header(location, delimiter)
    named = {("image" if name == "slide" else name): column for name, column in columns.items()}
    if "image" not in named and "slide" in header:
        named["image"] = "slide"
    constants = {} if split is None else {"split": str(split)}
    if domain is not None or ("domain" not in named and "domain" not in header):
        constants["domain"] = domain or DOMAIN
    if caption is None and "text" not in named and "text" not in header:
        caption = BY_LABEL if "label" in named or "label" in header else BARE
    return SlideTable(
        location,
        columns=named,
        constants=constants,
        caption=caption,
        splits=splits or {},
        split_fractions=split_fractions,
        image_root=image_root,
        metadata=tuple(metadata),
        delimiter=delimiter,
    )


def read_header(location: Path, delimiter: str) -> list[str]:
    """The columns of a CSV file; empty if there is none, which its reader reports."""
    if not location.is_file():
        return []
    try:
        return next(csv.reader(io.StringIO(read_text(location)), delimiter=delimiter), [])
    except (csv.Error, TypeError):
        return []


def open_folder(
    location: Path,
    *,
    domain: str | None,
    caption: str | None,
    classes: bool,
    splits: FolderSplits,
    group_pattern: str | None,
) -> SlideFolder:
    """The slides of a folder.

    Raises:
        KdkitError: ``group_pattern`` is no regular expression.
    """
    pattern = None if group_pattern is None else compile_pattern("group_pattern", group_pattern, str(location))
    return SlideFolder(location, domain or DOMAIN, caption or (BY_LABEL if classes else BARE), classes, splits, pattern)
