"""Captions in COCO's form: ``{"images": [{id, file_name}], "annotations": [{id, image_id, caption}]}``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import IMAGE_CAPTIONS, Sample, Skipped
from kdkit.plugins.sources.fields import Fractions
from kdkit.plugins.sources.records import json_object, text_of
from kdkit.plugins.sources.rows import RowReader

PLACE = "__place__"
"""Field of a row: the number of its caption, and how many its image has."""


@dataclass(frozen=True)
class CocoCaptions(RowReader):
    """A sample per caption. The captions of an image are one group, unless images have a ``group`` of their own.

    Attributes:
        captions: ``all`` captions of an image are read in each pass over the data, or ``one`` of them; calibration and
            test then have the first one alone, as with the source ``pmc-jsonl``.
    """

    captions: Literal["all", "one"] = "all"

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any] | Skipped]]:
        """(file and annotation, row) pairs; with ``captions: one`` the captions of an image are together."""
        if self.captions == "all":
            yield from self._annotated()
            return
        found = list(self._annotated())
        yield from (one for one in found if isinstance(one[1], Skipped))
        images: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
        for where, row in found:
            if not isinstance(row, Skipped):
                images.setdefault(row["image"], []).append((where, row))
        for rows in images.values():
            for number, (where, row) in enumerate(rows, start=1):
                yield where, {**row, PLACE: (number, len(rows))}

    def _sample_or_skipped(
        self, row: Mapping[str, Any], where: str, root: Path, fractions: Fractions | None
    ) -> Sample | Skipped:
        sample, (number, count) = self._sample(row, where, root, fractions), row.get(PLACE, (1, 1))
        if count == 1:
            return sample
        if sample.split != "train":
            what = "further captions of calibration and test images"
            return sample if number == 1 else Skipped(what, where, level="note")
        return replace(sample, extra={IMAGE_CAPTIONS: count, **sample.extra})

    def _annotated(self) -> Iterator[tuple[str, Mapping[str, Any] | Skipped]]:
        """(file and annotation, row) pairs in the order of the annotations; a row has the fields of its image too."""
        record = json_object(self.location)
        images: dict[str, Mapping[str, Any]] = {}
        for number, image in enumerate(self._objects(record, "images"), start=1):
            where = f"{self.location}, image {number}"
            key = text_of(image, "id", where)
            if key in images:
                fix = "give each image an id of its own: captions would belong to either"
                raise KdkitError("KD-SRC-152", f"two images have the id {key}", where=where, fix=fix)
            images[key] = image
        lacking = dict.fromkeys(images)
        for number, annotation in enumerate(self._objects(record, "annotations"), start=1):
            where = f"{self.location}, annotation {number}"
            key = text_of(annotation, "image_id", where)
            if key not in images:
                yield where, Skipped("captions without an image", where, "correct image_id, or add the image")
                continue
            if "caption" not in annotation:
                why, fix = f"fields: {', '.join(annotation)}", "give COCO's file of captions, not that of boxes"
                raise KdkitError("KD-SRC-153", "an annotation without a caption", where=where, why=why, fix=fix)
            lacking.pop(key, None)
            image = images[key]
            yield (
                where,
                {
                    "group": key,
                    **{name: value for name, value in image.items() if name not in ("id", "file_name")},
                    "id": f"{key}-{text_of(annotation, 'id', where)}",
                    "image": text_of(image, "file_name", where),
                    "text": annotation["caption"],
                },
            )
        for key in lacking:
            where = f"{self.location}, image {key}"
            yield where, Skipped("images without a caption", where, level="warning")

    def _objects(self, record: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
        found = record.get(name)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise KdkitError(
                "KD-DATA-024",
                f"'{name}' is not a list of objects",
                where=f"{self.location}:1",
                why=f"fields: {', '.join(record)}",
                fix="give COCO's file of captions, such as captions_train2017.json",
            )
        return found
