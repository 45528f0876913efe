"""Figures of articles with one caption or several: PMC-OA, MedICaT, ROCO, and JSON Lines with lists of captions.

Each caption is a sample of its own, so teachers' text features are kept per caption. Training samples that are captions
of one image say so (``IMAGE_CAPTIONS``), and a pass over the data takes one of them. Images of the other splits have
their first caption alone: each counts once in what is measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.templates import fill
from kdkit.core.contracts import IMAGE_CAPTIONS, Sample, Skipped
from kdkit.plugins.sources.fields import Fractions
from kdkit.plugins.sources.records import Record, file_below, jsonl_rows, read_text, refuse_pointer
from kdkit.plugins.sources.shards import ShardedRows

ROCO = "captions*.txt"
"""Files of ROCO: an id, a tab and a caption in each line. The images are in the folder ``images`` beside them."""
PLACE = "__caption__"
"""Field of a row: (number of the caption from 1, how many the image has)."""


@dataclass(frozen=True)
class Layout:
    """Records of a published data set.

    Attributes:
        image: template of the image's path.
        captions: fields with a caption or a list of them; the record has at least one of them.
        group: field with the article, whose figures are a group; empty: each image is one.
    """

    name: str
    image: str
    captions: tuple[str, ...]
    group: str = ""

    def fits(self, record: Record) -> bool:
        """Whether the record has these fields."""
        names = [part.partition("}")[0] for part in self.image.split("{")[1:]]
        return {*names, *filter(None, [self.group])} <= record.keys() and any(name in record for name in self.captions)


LAYOUTS = (
    Layout("PMC-OA", "{image}", ("caption",), "pmcid"),
    Layout("MedICaT", "{pdf_hash}_{fig_uri}", ("s2_caption", "s2orc_caption"), "pdf_hash"),
    Layout("lists of captions", "{image}", ("captions", "caption", "text")),
)


@dataclass(frozen=True)
class PmcJsonl(ShardedRows):
    """A record per image; a file, or a folder with such files.

    Attributes:
        captions: fields with captions, instead of those of the layout; each a text or a list of texts.
        skip_missing: leave out images that do not exist, and count them.
    """

    ending: ClassVar[str] = ".jsonl"
    alike: ClassVar[tuple[str, ...]] = (".json", ".ndjson")
    captions: tuple[str, ...] | list[str] = ()
    skip_missing: bool = False

    def _is_shard(self, path: Path) -> bool:
        return super()._is_shard(path) or fnmatch(path.name.lower(), ROCO)

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any] | Skipped]]:
        """(``file:line``, row) pairs, one per caption."""
        yield from ((skipped.where, skipped) for skipped in self.other_files() if not _is_image(skipped))
        for path in self.files():
            for line, record in _roco_rows(path) if fnmatch(path.name.lower(), ROCO) else jsonl_rows(path):
                where = f"{path}:{line}"
                try:
                    for row in self._captioned(record, where):
                        yield where, row if isinstance(row, Skipped) else self.with_split(row, path)
                except KdkitError as error:
                    if not self.skip_broken:
                        raise
                    yield where, Skipped(f"broken records ({error.what})", where, level="warning")

    def _captioned(self, record: Record, where: str) -> Iterator[dict[str, Any] | Skipped]:
        """A row for each caption of a record."""
        layout = self._layout(record, where)
        image = record.get(self.columns["image"]) if "image" in self.columns else _fill(layout.image, record, where)
        texts = self._texts(record, layout, where)
        if self.skip_missing and not os.path.isfile(file_below(self._root, image, where)):
            yield Skipped("records without their image file", where, "download the images again", level="warning")
            return
        for number, text in enumerate(texts, start=1):
            row = dict(record)
            row[self.columns.get("image", "image")] = image
            row[self.columns.get("text", "text")] = text
            if not {"group"} & (self.columns.keys() | record.keys()):
                row["group"] = record.get(layout.group) or image
            row[PLACE] = (number, len(texts))
            yield row

    @property
    def _root(self) -> Path:
        return (self.location if self.location.is_dir() else self.location.parent) / self.image_root

    def _layout(self, record: Record, where: str) -> Layout:
        found = next((layout for layout in LAYOUTS if layout.fits(record)), None)
        named = "image" in (*self.columns, *record) and (self.captions or "text" in self.columns)
        if found is not None or named:
            return found or LAYOUTS[-1]
        raise KdkitError(
            "KD-SRC-329",
            "this record has neither the fields of PMC-OA, nor those of MedICaT, nor an image and captions",
            where=where,
            why=f"fields: {', '.join(record)}",
            fix="name its fields: columns: {image: file, group: article}, captions: [title, legend]",
        )

    def _texts(self, record: Record, layout: Layout, where: str) -> list[str]:
        """The different captions of a record, in their order."""
        own = (self.columns["text"],) if "text" in self.columns else layout.captions
        names, found = tuple(self.captions) or own, list[str]()
        for name in names:
            value = record.get(name)
            values = value if isinstance(value, list) else [value]
            if odd := [one for one in values if not isinstance(one, str | None)]:
                raise KdkitError(
                    "KD-SRC-330",
                    f"'{name}' is neither a text nor a list of texts",
                    where=where,
                    why=f"it has {odd[0]!r:.80}",
                    fix="correct the record, or skip such records with the option skip_broken: true",
                )
            found += [one.strip() for one in values if one and one.strip()]
        if not found:
            raise KdkitError(
                "KD-SRC-331",
                "this image has no caption",
                where=where,
                why=f"looked at: {', '.join(names)}; fields: {', '.join(record)}",
                fix="add a caption, or skip such records with the option skip_broken: true",
            )
        return list(dict.fromkeys(found))

    def _sample_or_skipped(
        self, row: Mapping[str, Any], where: str, root: Path, fractions: Fractions | None
    ) -> Sample | Skipped:
        sample, (number, count) = super()._sample_or_skipped(row, where, root, fractions), row[PLACE]
        if isinstance(sample, Skipped) or count == 1:
            return sample
        if sample.split != "train":
            what = "further captions of calibration and test images"
            return sample if number == 1 else Skipped(what, where, level="note")
        own_id = sample.id if number == 1 else f"{sample.id}#{number}"
        return replace(sample, id=own_id, extra={IMAGE_CAPTIONS: count, **sample.extra})


def _fill(template: str, record: Record, where: str) -> str:
    fields = {name: value for name, value in record.items() if isinstance(value, str) and value.strip()}
    try:
        return fill(template, fields)
    except KeyError as error:
        raise KdkitError(
            "KD-SRC-332",
            f"{error} names no image",
            where=where,
            why=f"the image is {template}",
            fix="correct the record, or skip such records with the option skip_broken: true",
        ) from error


def _roco_rows(path: Path) -> Iterator[tuple[int, Record]]:
    """(line, record) pairs of a file of ROCO."""
    refuse_pointer(path)
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        if not tab or not name.strip() or "/" in name:
            raise KdkitError(
                "KD-SRC-333",
                "not a line of ROCO's captions",
                where=f"{path}:{number}",
                fix="write an id, a tab and the caption: ROCO_00002<tab>Chest radiograph ...",
            )
        yield number, {"image": str(path.parent / "images" / f"{name.strip()}.jpg"), "caption": caption}


def _is_image(skipped: Skipped) -> bool:
    """The images beside the records are no files that are left out."""
    return skipped.where.lower().endswith((".jpg", ".jpeg", ".png", ".gif", ".tif", ".tiff", ".webp", ".bmp"))
