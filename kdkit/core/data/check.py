"""``kdkit data check``: counts the data and finds its problems."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.result import Result, Section, Table
from kdkit.core.contracts import SPLITS, USUAL_SPLITS, ImageOptions, ImageRef, Reporter, Sample
from kdkit.core.data.digests import file_digests, pixel_digests, stamp_of
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.load import LoadedEntry, SkippedKind, find_duplicates, name_some, read_sources
from kdkit.core.data.locations import file_of, images_of
from kdkit.core.data.names import (
    SimilarNames,
    count_no_names,
    find_similar_names,
    find_split_names,
    near_miss,
)
from kdkit.core.data.shared_images import (
    Contradiction,
    Decoded,
    Leak,
    count_repeated,
    find_contradictions,
    find_leaks,
)
from kdkit.core.project.project import Project
from kdkit.core.project.registry.load import line_of

SHOWN = 20
"""Unreadable images and duplicate ids that are listed."""
UNLABELED = "(no label)"
MISSING = "no such file"
Image = tuple[ImageRef, ImageOptions]


@dataclass(frozen=True)
class Unreadable:
    """An image that is missing, cannot be decoded, or is not allowed. ``what`` is the kind, ``why`` the reason."""

    id: str
    image: str
    what: str
    why: str


@dataclass(frozen=True)
class DataReport(Result):
    """What :func:`check_data` found.

    Attributes:
        counts: domain -> class -> split -> samples; samples without a label have the class ``(no label)``.
        not_read: files and records that sources skipped, by kind.
        unreadable: images that cannot be read; ``skipped``: those that their data entry skips.
        entries_without_images: ``registry.yaml:LINE`` of data entries without any existing image -> one such path.
        duplicates: ids that occur more than once -> their places.
        leaks: samples that share an image or a group across splits.
        misplaced: folder named as another split -> training samples in it.
        split_names: domains, and classes, that are named as splits.
        contradictions: images with several labels.
        similar_names: domains or classes whose names differ in case, Unicode form, spaces or order alone.
        no_names: domains, classes and captions that are missing values or lists written as text -> samples.
        repeated: samples with an image that an earlier sample of their split has (a note, not a problem).
        uncalibrated: (domain, class) without a calibration sample: trust cannot be measured there.
        unlabeled: domains with neither labels nor questions: trust cannot be measured there (a note).
        without_calibration_answers: domains that train on questions but have no answered calibration question: neither
            trust nor the guard can judge there (a note).
        unanswered: domain -> split -> questions without an answer, which are neither trained on nor evaluated (a note:
            pseudo-labels may follow).
    """

    samples: int
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    not_read: tuple[SkippedKind, ...]
    unreadable: tuple[Unreadable, ...]
    skipped: tuple[Unreadable, ...]
    entries_without_images: Mapping[str, str]
    duplicates: Mapping[str, tuple[str, ...]]
    leaks: tuple[Leak, ...]
    misplaced: Mapping[str, int]
    split_names: tuple[str, ...]
    contradictions: tuple[Contradiction, ...]
    similar_names: tuple[SimilarNames, ...]
    no_names: Mapping[str, int]
    repeated: int
    uncalibrated: tuple[tuple[str, str], ...]
    unlabeled: tuple[str, ...]
    without_calibration_answers: tuple[str, ...]
    unanswered: Mapping[str, Mapping[str, int]]

    def to_json(self) -> dict[str, Any]:
        """All attributes, with ``ok`` and ``problems``."""
        return {"ok": not self.problems, "problems": self.problems, **asdict(self)}

    def sections(self) -> list[Section]:
        """Samples by domain and class, notes, problems."""
        rows = [
            (domain, label, *splits.values(), sum(splits.values()))
            for domain, labels in self.counts.items()
            for label, splits in labels.items()
        ]
        parts: list[Section] = [
            Table(("domain", "class", "train", "calibration", "test", "all"), rows, "llrrrr"),
            f"{self.samples} samples, {len(self.counts)} domains",
            *(f"note: {note}" for note in self._notes()),
            *(f"problem: {problem}" for problem in self.problems),
            *(f"  {bad.image}: {bad.what}{bad.why and ': '}{bad.why}" for bad in self.unreadable[:SHOWN]),
            *(f"  id '{id_}' is at {', '.join(places)}" for id_, places in list(self.duplicates.items())[:SHOWN]),
        ]
        return parts if self.problems else [*parts, "no problems found"]

    def _notes(self) -> list[str]:
        notes = [str(kind) for kind in self.not_read if kind.level != "problem"]
        if self.repeated:
            notes.append(f"samples whose image occurs before in the same split: {self.repeated}")
        if self.unlabeled:
            notes.append(f"no labels, so no trust is measured, in: {', '.join(self.unlabeled)}")
        if self.without_calibration_answers:
            missing = ", ".join(self.without_calibration_answers)
            notes.append(f"no calibration questions, so no trust and no retention is measured, in: {missing}")
        for domain, splits in self.unanswered.items():
            counts = ", ".join(f"{count} in {split}" for split, count in splits.items() if count)
            notes.append(f"questions without an answer, unused in training and evaluation, in {domain}: {counts}")
        if self.skipped:
            notes.append(f"{_n(self.skipped, 'unreadable image')} skipped")
        return notes

    @property
    def problems(self) -> tuple[str, ...]:
        """One line per kind of problem; empty if there is none."""
        lines = [str(kind) for kind in self.not_read if kind.level == "problem"]
        for what, found in groupby(sorted(self.unreadable, key=lambda bad: bad.what), lambda bad: bad.what):
            ids = [bad.id for bad in found]
            lines.append(f"{_n(ids, 'sample')}, {what}: {name_some(ids)}")
        for where, path in self.entries_without_images.items():
            lines.append(f"{where}: no image of this entry exists, for example {path}; check its option image_root")
        if self.duplicates:
            lines.append(f"{_n(self.duplicates, 'duplicate id')}: {name_some(self.duplicates)}")
        for same, words in {"file": "the same file", "pixels": "the same pixels", "group": "one group"}.items():
            leaks = [leak for leak in self.leaks if leak.same == same]
            if leaks:
                named = name_some(map(str, leaks))
                lines.append(f"{_n(leaks, 'leak')} between splits, {words}: {named}")
        lines += [f"{n} training samples are in a folder '{name}'" for name, n in self.misplaced.items()]
        if self.split_names:
            lines.append(f"named as splits, so probably read at the wrong level: {', '.join(self.split_names)}")
        if self.contradictions:
            named = name_some(map(str, self.contradictions))
            lines.append(f"{_n(self.contradictions, 'image')} with several labels: {named}")
        lines += [f"names that probably mean one thing: {names}" for names in self.similar_names]
        if self.no_names:
            named = name_some(f"{name} ({count})" for name, count in self.no_names.items())
            lines.append(f"missing values or lists written as text: {named}")
        if self.uncalibrated:
            named = name_some(f"{domain}/{label}" for domain, label in self.uncalibrated)
            lines.append(f"{_n(self.uncalibrated, 'class')} without a calibration sample: {named}")
        return tuple(lines)


def check_data(project: Project, *, skip_unreadable: bool = False, reporter: Reporter | None = None) -> DataReport:
    """Read all data and decode every image.

    Args:
        project: the project.
        skip_unreadable: count unreadable images of all entries as skipped, not as problems.
        reporter: shows progress.

    Raises:
        KdkitError: a manifest cannot be read.
    """
    entries = read_sources(project)
    samples = [sample for entry in entries for sample in entry.samples]
    numbers = [number for number, entry in enumerate(entries) for _ in entry.samples]
    pixels = _decode_all(project.state, samples, reporter)
    broken = {image: value for image, value in pixels.items() if isinstance(value, str)}
    paths = list(dict.fromkeys(path for path, options in pixels if (path, options) not in broken))
    values = file_digests(project.state).get([(path, stamp_of(path)) for path in paths], reporter)
    files = {path: value for path, value in zip(paths, values, strict=True) if isinstance(value, int)}
    bad: list[Unreadable] = []
    skipped: list[Unreadable] = []
    good: list[Decoded] = []
    for sample, number in zip(samples, numbers, strict=True):
        images = _images(sample)
        wrong = [image for image in images if image in broken]
        if wrong:
            skip = skip_unreadable or entries[number].skip_unreadable
            (skipped if skip else bad).append(_unreadable(sample, wrong[0][0], broken[wrong[0]]))
        right = {path: value for path, options in images if isinstance(value := pixels[path, options], int)}
        if right:
            own = {files[path] for path in right if path in files}
            good.append(Decoded(sample, number, own, set(right.values())))
    return DataReport(
        samples=len(samples),
        counts=_count(samples),
        not_read=tuple(kind for entry in entries for kind in entry.skipped),
        unreadable=_explain_missing(bad),
        skipped=tuple(skipped),
        entries_without_images=_entries_without_images(project.registry_path, entries),
        duplicates=_find_places(samples),
        leaks=find_leaks(good),
        misplaced=_count_misplaced(entries),
        split_names=find_split_names(samples),
        contradictions=find_contradictions(good),
        similar_names=find_similar_names(samples),
        no_names=count_no_names(samples),
        repeated=count_repeated(good),
        uncalibrated=_find_uncalibrated(samples),
        unlabeled=tuple(
            sorted({s.domain for s in samples} - {s.domain for s in samples if s.label or _is_question(s)})
        ),
        without_calibration_answers=_find_without_calibration_answers(samples),
        unanswered=_count_unanswered(samples),
    )


def find_skipped(
    index: SampleIndex, state: Path, reporter: Reporter | None = None, *, refuse: bool = False
) -> NDArray[np.bool_]:
    """(N,) samples with an unreadable image whose data entry skips it.

    For runs without an extraction before them. Decodes each image once.

    Args:
        index: N samples.
        state: the project's folder for machine state.
        reporter: shows progress, and is warned of skipped samples.
        refuse: decode the images of all entries, and refuse those that may not be skipped.

    Raises:
        KdkitError: ``refuse`` is set and an entry without ``skip_unreadable`` has unreadable images.
    """
    broken, rows = np.zeros(len(index), dtype=bool), np.arange(len(index)) if refuse else np.flatnonzero(index.may_skip)
    found = _decode_all(state, [index.samples[row] for row in rows], reporter)
    for row in rows:
        broken[row] = any(isinstance(found[image], str) for image in _images(index.samples[row]))
    refused = [index.samples[row] for row in np.flatnonzero(broken & ~index.may_skip)]
    if refused:
        image = next(image for image in _images(refused[0]) if isinstance(found[image], str))
        raise KdkitError(
            "KD-DATA-018",
            f"{_n(refused, 'sample')} with an unreadable image: {name_some(sample.id for sample in refused)}",
            where=str(image[0]),
            why=str(found[image]),
            fix="repair or remove the files ('kdkit data check' lists them), or set skip_unreadable: true in the "
            "options of their data entry",
            code=ExitCode.FOUND,
        )
    if reporter and broken.any():
        names = name_some(index.ids[row] for row in np.flatnonzero(broken))
        reporter.warn(f"{int(broken.sum())} samples with unreadable images skipped: {names}")
    return broken


def _files(sample: Sample) -> list[Path]:
    return [file_of(ref) for ref in images_of(sample)]


def _images(sample: Sample) -> list[Image]:
    return [(path, sample.image_options) for path in images_of(sample)]


def _decode_all(state: Path, samples: Sequence[Sample], reporter: Reporter | None) -> dict[Image, int | str]:
    """Image -> digest of its pixels, or ``kind: reason`` of an unreadable one."""
    wanted: dict[ImageOptions, dict[ImageRef, None]] = defaultdict(dict)  # in the order of the samples
    for path, options in (image for sample in samples for image in _images(sample)):
        wanted[options][path] = None
    found: dict[Image, int | str] = {}
    for options, paths in wanted.items():
        files = {file: os.path.isfile(file) for file in dict.fromkeys(map(file_of, paths))}
        there = [path for path in paths if files[file_of(path)]]
        keys = [(path, stamp_of(path)) for path in there]
        values = pixel_digests(state, options).get(keys, reporter, "decoding")
        found |= {(path, options): MISSING for path in paths}
        found |= {(path, options): value for path, value in zip(there, values, strict=True)}
    return found


def _unreadable(sample: Sample, path: ImageRef, reason: str) -> Unreadable:
    what, _, why = reason.partition(": ")
    return Unreadable(sample.id, str(path), what, why)


def _explain_missing(bad: Sequence[Unreadable]) -> tuple[Unreadable, ...]:
    """Add the file that a missing one probably means, to those that are listed."""
    return tuple(
        replace(one, why=near_miss(Path(one.image))) if number < SHOWN and one.what == MISSING else one
        for number, one in enumerate(bad)
    )


def _entries_without_images(registry: Path, entries: Sequence[LoadedEntry]) -> dict[str, str]:
    return {
        line_of(registry, "data", number): str(entry.samples[0].image)
        for number, entry in enumerate(entries)
        if entry.samples and not any(os.path.isfile(file) for sample in entry.samples for file in _files(sample))
    }


def _count(samples: Sequence[Sample]) -> dict[str, dict[str, dict[str, int]]]:
    found = Counter((s.domain, s.label or UNLABELED, s.split) for s in samples)
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for domain, label in sorted({(domain, label) for domain, label, _ in found}):
        counts.setdefault(domain, {})[label] = {split: found[domain, label, split] for split in SPLITS}
    return counts


def _find_places(samples: Sequence[Sample]) -> dict[str, tuple[str, ...]]:
    places: dict[str, list[str]] = {}
    for earlier, later in find_duplicates(samples):
        places.setdefault(earlier.id, [earlier.origin]).append(later.origin)
    return {id_: tuple(found) for id_, found in places.items()}


def _count_misplaced(entries: Sequence[LoadedEntry]) -> dict[str, int]:
    """Folder that names another split -> training samples in it; folders above all images of an entry do not count."""
    found: Counter[str] = Counter()
    for entry in entries:
        folders = {path.parent for sample in entry.samples for path in _files(sample)}
        above = len(Path(os.path.commonpath(folders)).parts) if folders else 0
        for sample in (sample for sample in entry.samples if sample.split == "train"):
            names = {part for path in _files(sample) for part in path.parent.parts[above:]}
            found.update(name for name in names if USUAL_SPLITS.get(name.lower(), "train") != "train")
    return dict(sorted(found.items()))


def _find_uncalibrated(samples: Sequence[Sample]) -> tuple[tuple[str, str], ...]:
    classes = {(s.domain, s.label) for s in samples if s.label}
    calibrated = {(s.domain, s.label) for s in samples if s.label and s.split == "calibration"}
    return tuple(sorted(classes - calibrated))


def _is_question(sample: Sample) -> bool:
    return bool(sample.extra.get("messages"))


def _find_without_calibration_answers(samples: Sequence[Sample]) -> tuple[str, ...]:
    questions = [s for s in samples if _is_question(s) and not s.label]
    calibrated = {s.domain for s in questions if s.split == "calibration" and s.text}
    return tuple(sorted({s.domain for s in questions if s.split == "train"} - calibrated))


def _count_unanswered(samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    found = Counter((s.domain, s.split) for s in samples if _is_question(s) and not s.text)
    return {domain: {split: found[domain, split] for split in SPLITS} for domain in sorted({d for d, _ in found})}


def _n(things: Sequence[object] | Mapping[str, object], what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{len(things)} {what}{plural if len(things) != 1 else ''}"
