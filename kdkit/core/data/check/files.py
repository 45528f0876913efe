"""Files: what sources did not read, images that cannot be decoded, ids that repeat, folders named as another split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from kdkit.core.contracts import USUAL_SPLITS, Sample
from kdkit.core.data.check.examined import Examined
from kdkit.core.data.check.finding import SHOWN, Finding
from kdkit.core.data.locations import file_of, images_of
from kdkit.core.data.names import count_of, name_some, near_miss
from kdkit.core.data.unreadable import MISSING, all_images_of
from kdkit.core.project.registry.load import line_of


@dataclass(frozen=True)
class Unreadable:
    """An image that is missing, cannot be decoded, or is not allowed. ``what`` is the kind, ``why`` the reason."""

    id: str
    image: str
    what: str
    why: str


def check_skipped(data: Examined) -> Iterator[Finding]:
    """Files and records that sources skipped, by kind; the items are ``SkippedKind``."""
    for kind in (kind for entry in data.entries for kind in entry.skipped):
        yield Finding("skipped-files", "problem" if kind.level == "problem" else "note", str(kind), (kind,))


def check_images(data: Examined) -> Iterator[Finding]:
    """Images that cannot be decoded, by kind; the items are :class:`Unreadable`."""
    bad, skipped = list[Unreadable](), list[Unreadable]()
    for row, sample in enumerate(data.samples if data.images.reasons else ()):
        found = ((image[0], data.images.reason(image)) for image in all_images_of(sample))
        path, reason = next(((path, reason) for path, reason in found if reason is not None), (None, ""))
        if path is not None and reason is not None:
            what, _, why = reason.partition(": ")
            (skipped if data.skips(row) else bad).append(Unreadable(sample.id, str(path), what, why))
    for what, group in groupby(sorted(bad, key=lambda one: one.what), lambda one: one.what):
        ones = [_explain_missing(one) if number < SHOWN else one for number, one in enumerate(group)]
        details = tuple(f"{one.image}: {one.what}{one.why and ': '}{one.why}" for one in ones[:SHOWN])
        text = f"{count_of(ones, 'sample')}, {what}: {name_some(one.id for one in ones)}"
        yield Finding("images", "problem", text, tuple(ones), details)
    if skipped:
        yield Finding("images", "note", f"{count_of(skipped, 'unreadable image')} skipped", tuple(skipped))


def _explain_missing(one: Unreadable) -> Unreadable:
    """Add the file that a missing one probably means."""
    return replace(one, why=near_miss(Path(one.image))) if one.what == MISSING else one


def check_entries(data: Examined) -> Iterator[Finding]:
    """Data entries without any existing image; the items are (``registry.yaml:LINE``, such a path)."""
    for number, entry in enumerate(data.entries):
        if len(entry.samples) and not any(os.path.isfile(file) for sample in entry.samples for file in _files(sample)):
            where, path = line_of(data.project.registry_path, "data", number), str(entry.samples[0].image)
            text = f"{where}: no image of this entry exists, for example {path}; check its option image_root"
            yield Finding("images", "problem", text, ((where, path),))


def check_ids(data: Examined) -> Iterator[Finding]:
    """Ids that occur more than once; the items are (id, its places)."""
    places: dict[str, list[str]] = {}
    repeated = {id_ for id_, count in Counter(sample.id for sample in data.samples).items() if count > 1}
    for sample in (sample for sample in data.samples if sample.id in repeated):
        places.setdefault(sample.id, []).append(sample.origin)
    if places:
        details = tuple(f"id '{id_}' is at {', '.join(found)}" for id_, found in list(places.items())[:SHOWN])
        text = f"{count_of(places, 'duplicate id')}: {name_some(places)}"
        yield Finding("ids", "problem", text, tuple((id_, tuple(found)) for id_, found in places.items()), details)


def check_folders(data: Examined) -> Iterator[Finding]:
    """Training samples in a folder named as another split; the items are (folder, samples).

    Folders above all images of an entry do not count.
    """
    found: Counter[str] = Counter()
    for number in range(len(data.entries)):
        rows = np.flatnonzero(data.entry == number).tolist()
        folders = {row: {os.path.dirname(file) for file in _files(data.samples[row])} for row in rows}
        every = set[str]().union(*folders.values())
        above = len(Path(os.path.commonpath(every)).parts) if every else 0
        named = {folder: _other_splits(Path(folder).parts[above:]) for folder in every}
        for row in rows:
            if data.samples[row].split == "train":
                found.update(set[str]().union(*(named[folder] for folder in folders[row])))
    for name, count in sorted(found.items()):
        yield Finding("folders", "problem", f"{count} training samples are in a folder '{name}'", ((name, count),))


def _other_splits(folders: Sequence[str]) -> set[str]:
    """Those named as another split than training."""
    return {name for name in folders if USUAL_SPLITS.get(name.lower(), "train") != "train"}


def _files(sample: Sample) -> list[Path]:
    return [file_of(ref) for ref in images_of(sample)]
