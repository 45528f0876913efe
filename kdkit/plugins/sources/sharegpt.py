"""LLaMA-Factory's data: an entry of ``dataset_info.json`` in any of its formats (alpaca, sharegpt, openai)."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import IMAGE_MARK, Sample, Skipped, Split
from kdkit.plugins.sources.fields import compile_pattern
from kdkit.plugins.sources.llama_factory import Entry, choose_entry
from kdkit.plugins.sources.questions import (
    Boxes,
    Question,
    SplitRule,
    check_messages,
    check_task,
    read_all,
    sample_of,
)
from kdkit.plugins.sources.records import Ids, Record, file_below, fingerprint, json_object, json_records, text_of

COLUMNS = ("id", "task", "modality", "split")
"""Keys of the option ``columns``."""


def read_sharegpt(
    location: Path,
    *,
    dataset: str | None = None,
    file: str | None = None,
    task: str | None = None,
    modality: str | None = None,
    modality_pattern: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: Split | None = None,
    split_fractions: Mapping[str, float] | None = None,
    image_root: str = ".",
    id_prefix: str = "",
    boxes: str | None = None,
    boxes_as: str | None = None,
    skip_broken: bool = False,
) -> Iterator[Sample | Skipped]:
    """A sample for every answer of every conversation that follows an image, in the order of the file.

    Args:
        location: ``dataset_info.json``; images and the data are below its folder.
        dataset: the entry, if there are several.
        file: replaces the entry's ``file_name``.
        task, modality, split: of all samples.
        modality_pattern: regular expression for the image's file name; its first group is the modality.
        columns: ``id``, ``task``, ``modality`` or ``split`` -> the record's field.
        split_fractions: shares by which a hash of the first image's name decides the split.
        image_root: folder of the images, relative to the file's.
        id_prefix: prefix of every id; an id is a hash of the record, or its field, and the turn.
        boxes, boxes_as: families of boxes in the file and in the samples, see :class:`BoxCodec`.
        skip_broken: skip broken records, and count them.

    Raises:
        KdkitError: with ``file:line``; a record is broken.
    """
    name, entry = choose_entry(json_object(location), dataset, f"{location}:1")
    info = Entry.of(entry, f"{location} '{name}'")
    named = dict(columns or {})
    for field in named:
        if field not in COLUMNS:
            raise KdkitError(
                "KD-SRC-055", f"columns: '{field}' is not known", where=str(location), fix=did_you_mean(field, COLUMNS)
            )
    reader = _Reader(
        info=info,
        root=location.parent / image_root,
        constants={k: v for k, v in (("task", task), ("modality", modality), ("split", split)) if v is not None},
        columns=named,
        pattern=compile_pattern("modality_pattern", modality_pattern, str(location)) if modality_pattern else None,
        fractions=split_fractions,
        boxes=Boxes(boxes, boxes_as, str(location)),
        ids=Ids(id_prefix),
    )
    if "split" not in named:
        SplitRule(split, split_fractions, str(location))
    if file:
        data = location.parent / file
    else:
        data = file_below(location.parent, entry["file_name"], str(location), "set the option file")
    return read_all(json_records(data), reader.samples, data, skip_broken=skip_broken)


@dataclass(frozen=True)
class _Reader:
    info: Entry
    root: Path
    constants: Mapping[str, str]
    columns: Mapping[str, str]
    pattern: re.Pattern[str] | None
    fractions: Mapping[str, float] | None
    boxes: Boxes
    ids: Ids

    def samples(self, record: Record, where: str) -> Iterator[Sample | Skipped]:
        """A sample for each of the assistant's turns, since LLaMA-Factory trains on all of them."""
        turns, names = self.info.conversation(record, where)
        images = [file_below(self.root, name, where) for name in names]
        if not images and not any(IMAGE_MARK in content for _, content in turns):
            yield Skipped("records without an image", where, level="warning")
            return
        check_messages(turns, len(images), where)
        key = self._field(record, "id", where) or fingerprint(record)
        places = [number for number, (role, _) in enumerate(turns) if role == "assistant"]
        for number in places:
            before = turns[:number]
            marks = sum(content.count(IMAGE_MARK) for _, content in before)
            if not marks:
                yield Skipped("answers before the first image of their conversation", where, level="warning")
                continue
            question = Question(
                id=self.ids(key if len(places) == 1 else f"{key}/{places.index(number) + 1}"),
                images=images[:marks],
                messages=before,
                answer=turns[number][1].strip(),
                task=check_task(self._require(record, "task", where), where),
                modality=self._modality(record, images[0], where),
            )
            yield sample_of(question, self._split(record, images[0], where), self.boxes, where)

    def _field(self, record: Record, name: str, where: str) -> str | None:
        return text_of(record, self.columns[name], where) if name in self.columns else self.constants.get(name)

    def _require(self, record: Record, name: str, where: str) -> str:
        value = self._field(record, name, where)
        if value is None:
            fix = f"set {name}: ..., or columns: {{{name}: FIELD}}"
            raise KdkitError("KD-SRC-065", f"the {name} is not set", where=where, fix=fix)
        return value

    def _modality(self, record: Record, image: Path, where: str) -> str:
        if self.pattern is None:
            return self._require(record, "modality", where).lower()
        found = self.pattern.search(image.name)
        if found is None or not found.groups() or found.group(1) is None:
            raise KdkitError(
                "KD-SRC-066",
                f"modality_pattern '{self.pattern.pattern}' has no group, or its first does not match '{image.name}'",
                where=where,
                fix="correct the option modality_pattern",
            )
        return str(found.group(1)).lower()

    def _split(self, record: Record, image: Path, where: str) -> Split:
        rule = SplitRule(self._field(record, "split", where), self.fractions, where)
        return rule(os.path.relpath(image, self.root))
