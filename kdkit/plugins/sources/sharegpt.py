"""LLaMA-Factory's data: an entry of ``dataset_info.json`` with formatting ``sharegpt``."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import IMAGE_MARK, Sample, Split
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

UNREAD = ("videos", "audios", "tools", "chosen", "rejected", "kto_tag")
"""Columns that kdkit does not support; they must be empty."""
COLUMNS = ("id", "task", "modality", "split")
"""Keys of the option ``columns``."""


@dataclass(frozen=True)
class Entry:
    """A data set of ``dataset_info.json``, with LLaMA-Factory's names and defaults.

    As in LLaMA-Factory, an entry with ``tags`` (or ``columns``) sets all others of them to None: system messages are
    then recognized only with ``system_tag``.
    """

    messages: str | None = "conversations"
    images: str | None = None
    system: str | None = None
    role_tag: str | None = "from"
    content_tag: str | None = "value"
    user_tag: str | None = "human"
    assistant_tag: str | None = "gpt"
    system_tag: str | None = "system"

    @classmethod
    def of(cls, entry: Mapping[str, Any], where: str) -> Entry:
        """Raises: KdkitError for anything but sharegpt data for supervised fine-tuning in a local file."""
        if entry.get("formatting", "alpaca") != "sharegpt" or entry.get("ranking"):
            fix = "convert the data set to sharegpt, or to a JSON Lines manifest"
            raise KdkitError("KD-SRC-051", "not 'formatting: sharegpt' without ranking", where=where, fix=fix)
        if "file_name" not in entry:
            raise KdkitError(
                "KD-SRC-052", "this entry has no file_name", where=where, fix="download the data set first"
            )
        columns, tags = entry.get("columns"), entry.get("tags")
        for name, part in (("columns", columns), ("tags", tags)):
            if part is not None and not isinstance(part, dict):
                fix = f"write {name}: {{...}} in dataset_info.json"
                raise KdkitError("KD-SRC-053", f"'{name}' must be an object, not {part!r}", where=where, fix=fix)
        given: dict[str, Any] = {}
        for field in fields(cls):
            group = tags if field.name.endswith("_tag") else columns
            if group is not None:
                given[field.name] = group.get(field.name)
        made = cls(**given)
        needed = ("messages", "images", "role_tag", "content_tag", "user_tag", "assistant_tag")
        missing = [name for name in needed if getattr(made, name) is None]
        if missing:
            raise KdkitError(
                "KD-SRC-054",
                f"this entry does not define '{missing[0]}'",
                where=where,
                why="an entry with columns or tags resets all that it does not list",
                fix="add it to columns or tags in dataset_info.json",
            )
        return made


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
) -> Iterator[Sample]:
    """A sample for every answer of every conversation, in the order of the file.

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
        skip_broken: skip broken records with a warning.

    Raises:
        KdkitError: with ``file:line``; a record is broken.
    """
    name, entry = _entry(location, dataset)
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
        pattern=_pattern(modality_pattern, str(location)) if modality_pattern else None,
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


def _pattern(text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise KdkitError(
            "KD-SRC-056",
            f"modality_pattern '{text}' is no regular expression",
            where=where,
            why=str(error),
            fix="correct the option, for example modality_pattern: '^([a-z]+)_'",
        ) from error


def _entry(location: Path, dataset: str | None) -> tuple[str, Mapping[str, Any]]:
    info = json_object(location)
    if dataset is None and len(info) != 1:
        raise KdkitError(
            "KD-SRC-057", f"{len(info)} data sets here", where=f"{location}:1", fix=f"set dataset: {' or '.join(info)}"
        )
    name = dataset or next(iter(info))
    if not isinstance(info.get(name), dict):
        raise KdkitError(
            "KD-SRC-058", f"no data set '{name}'", where=f"{location}:1", fix=did_you_mean(name, tuple(info))
        )
    return name, info[name]


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

    def samples(self, record: Record, where: str) -> Iterator[Sample]:
        """A sample for each of the assistant's turns, since LLaMA-Factory trains on all of them."""
        for name in UNREAD:
            if record.get(name):
                fix = "remove such records, or skip them with the option skip_broken: true"
                raise KdkitError("KD-SRC-060", f"kdkit does not read '{name}'", where=where, fix=fix)
        turns, images = self._turns(record, where), self._images(record, where)
        check_messages(turns, len(images), where)
        key = self._field(record, "id", where) or fingerprint(record)
        places = [number for number, (role, _) in enumerate(turns) if role == "assistant"]
        for number in places:
            before = turns[:number]
            marks = sum(content.count(IMAGE_MARK) for _, content in before)
            question = Question(
                id=self.ids(key if len(places) == 1 else f"{key}/{places.index(number) + 1}"),
                images=images[:marks],
                messages=before,
                answer=turns[number][1].strip(),
                task=check_task(self._require(record, "task", where), where),
                modality=self._modality(record, images[0], where),
            )
            yield sample_of(question, self._split(record, images[0], where), self.boxes, where)

    def _turns(self, record: Record, where: str) -> list[tuple[str, str]]:
        info = self.info
        roles = {info.user_tag: "user", info.assistant_tag: "assistant"}
        turns = [("system", str(record[info.system]))] if info.system and record.get(info.system) else []
        messages = record.get(str(info.messages))
        if not isinstance(messages, list) or not messages:
            raise KdkitError(
                "KD-SRC-062",
                f"a record needs '{info.messages}', a list",
                where=where,
                why=f"fields: {', '.join(record)}",
                fix="set messages of the entry's columns in dataset_info.json",
            )
        for number, message in enumerate(messages):
            role = message.get(info.role_tag) if isinstance(message, dict) else None
            content = message.get(info.content_tag) if isinstance(message, dict) else None
            first = number == 0 and info.system_tag is not None and role == info.system_tag
            if not isinstance(content, str) or (role not in roles and not first):
                known = ", ".join(map(str, [*roles, *([info.system_tag] if info.system_tag else [])]))
                raise KdkitError(
                    "KD-SRC-063",
                    f"message {number + 1} has {info.role_tag} {role!r}, or no text in {info.content_tag}",
                    where=where,
                    why=f"the roles of this entry are {known}",
                    fix="define the tags of the entry in dataset_info.json",
                )
            turns = [("system", content)] if first else [*turns, (roles[role], content)]
        return turns

    def _images(self, record: Record, where: str) -> list[Path]:
        given = record.get(str(self.info.images)) or []
        return [file_below(self.root, name, where) for name in (given if isinstance(given, list) else [given])]

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
