"""``kdkit data check``: counts the data and finds its problems."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.result import Result, Section, Table
from kdkit.core.contracts import SPLITS, Reporter, Sample
from kdkit.core.data.digests import file_digests, pixel_digests, stamp_of
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.load import LoadedEntry, find_duplicates, images_of, name_some, read_sources
from kdkit.core.project.project import Project
from kdkit.core.project.registry.load import line_of

SHOWN = 20
"""Unreadable images and duplicate ids that are listed."""
UNLABELED = "(no label)"
Basis = Literal["file", "pixels", "group"]


class _Decoded(NamedTuple):
    """A sample with at least one image that can be decoded, and the digests of all such images."""

    sample: Sample
    entry: int
    files: set[int | str]
    pixels: set[int | str]


@dataclass(frozen=True)
class Unreadable:
    """An image that is missing or cannot be decoded."""

    id: str
    image: str
    why: str


@dataclass(frozen=True)
class Leak:
    """Samples of different splits that share an image or a group.

    ``same`` is ``file`` (equal bytes), ``pixels`` (equal once decoded) or ``group`` (one patient). The first ``ids``
    are one of each of the ``splits``, in their order.
    """

    same: Basis
    ids: tuple[str, ...]
    splits: tuple[str, ...]

    def __str__(self) -> str:
        more = len(self.ids) - len(self.splits)
        return " = ".join(
            f"{name} ({split})" for name, split in zip(self.ids, self.splits, strict=False)
        ) + f" = {more} more" * (more > 0)


@dataclass(frozen=True)
class DataReport(Result):
    """What :func:`check_data` found.

    Attributes:
        counts: domain -> class -> split -> samples; samples without a label have the class ``(no label)``.
        unreadable: images that cannot be read; ``skipped``: those that their data entry skips.
        entries_without_images: ``registry.yaml:LINE`` of data entries without any existing image -> one such path.
        duplicates: ids that occur more than once -> their places.
        leaks: samples that share an image or a group across splits.
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
    unreadable: tuple[Unreadable, ...]
    skipped: tuple[Unreadable, ...]
    entries_without_images: Mapping[str, str]
    duplicates: Mapping[str, tuple[str, ...]]
    leaks: tuple[Leak, ...]
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
            *(f"  unreadable: {bad.image}: {bad.why}" for bad in self.unreadable[:SHOWN]),
            *(f"  id '{id_}' is at {', '.join(places)}" for id_, places in list(self.duplicates.items())[:SHOWN]),
        ]
        return parts if self.problems else [*parts, "no problems found"]

    def _notes(self) -> list[str]:
        notes = []
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
        lines = []
        if self.unreadable:
            lines.append(f"{_n(self.unreadable, 'unreadable image')}: {name_some(u.id for u in self.unreadable)}")
        for where, path in self.entries_without_images.items():
            lines.append(f"{where}: no image of this entry exists, for example {path}; check its option image_root")
        if self.duplicates:
            lines.append(f"{_n(self.duplicates, 'duplicate id')}: {name_some(self.duplicates)}")
        for same, words in {"file": "the same file", "pixels": "the same pixels", "group": "one group"}.items():
            leaks = [leak for leak in self.leaks if leak.same == same]
            if leaks:
                named = name_some(map(str, leaks))
                lines.append(f"{_n(leaks, 'leak')} between splits, {words}: {named}")
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
    paths = {path for sample in samples for path in images_of(sample)}
    broken = _find_unreadable(project.state, paths, reporter)
    keys = [(str(path), stamp_of(path)) for path in sorted(paths - set(broken))]
    caches = (file_digests(project.state), pixel_digests(project.state))
    files, pixels = (dict(zip((path for path, _ in keys), cache.get(keys, reporter), strict=True)) for cache in caches)
    bad: list[Unreadable] = []
    skipped: list[Unreadable] = []
    good: list[_Decoded] = []
    for sample, number in zip(samples, numbers, strict=True):
        images = images_of(sample)
        wrong = [path for path in images if path in broken]
        if wrong:
            skip = skip_unreadable or entries[number].skip_unreadable
            (skipped if skip else bad).append(Unreadable(sample.id, str(wrong[0]), broken[wrong[0]]))
        right = [str(path) for path in images if path not in broken]
        if right:
            good.append(_Decoded(sample, number, {files[path] for path in right}, {pixels[path] for path in right}))
    return DataReport(
        samples=len(samples),
        counts=_count(samples),
        unreadable=tuple(bad),
        skipped=tuple(skipped),
        entries_without_images=_entries_without_images(project.registry_path, entries),
        duplicates=_find_places(samples),
        leaks=_find_leaks(good),
        repeated=_count_repeated(good),
        uncalibrated=_find_uncalibrated(samples),
        unlabeled=tuple(
            sorted({s.domain for s in samples} - {s.domain for s in samples if s.label or _is_question(s)})
        ),
        without_calibration_answers=_find_without_calibration_answers(samples),
        unanswered=_count_unanswered(samples),
    )


def find_skipped(index: SampleIndex, state: Path, reporter: Reporter | None = None) -> NDArray[np.bool_]:
    """(N,) samples with an unreadable image whose data entry skips it.

    For runs without an extraction before them. Decodes only images of such entries, once.

    Args:
        index: N samples.
        state: the project's folder for machine state.
        reporter: shows progress.
    """
    skipped, rows = np.zeros(len(index), dtype=bool), np.flatnonzero(index.may_skip)
    images = [images_of(index.samples[row]) for row in rows]
    broken = _find_unreadable(state, {path for paths in images for path in paths}, reporter)
    skipped[rows] = [any(path in broken for path in paths) for paths in images]
    return skipped


def _find_unreadable(state: Path, paths: Collection[Path], reporter: Reporter | None) -> dict[Path, str]:
    """Unreadable image -> reason."""
    there = [path for path in sorted(paths) if path.is_file()]
    keys = [(str(path), stamp_of(path)) for path in there]
    found = zip(there, pixel_digests(state).get(keys, reporter, "decoding"), strict=True)
    wrong = {path: value for path, value in found if isinstance(value, str)}
    return {path: "no such file" for path in paths if not path.is_file()} | wrong


def _entries_without_images(registry: Path, entries: Sequence[LoadedEntry]) -> dict[str, str]:
    return {
        line_of(registry, "data", number): str(entry.samples[0].image)
        for number, entry in enumerate(entries)
        if entry.samples and not any(path.is_file() for sample in entry.samples for path in images_of(sample))
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


def _find_leaks(good: Sequence[_Decoded]) -> tuple[Leak, ...]:
    by_file, by_pixels, by_group = (defaultdict[object, list[Sample]](list) for _ in range(3))
    for sample, entry, files, pixels in good:
        for digest in files:
            by_file[digest].append(sample)
        for digest in pixels:
            by_pixels[digest].append(sample)
        if "group" in sample.extra:  # another data entry may use the same name for another patient
            by_group[entry, sample.extra["group"]].append(sample)
    same_file = _leaks_among("file", by_file)
    known = {leak.ids for leak in same_file}
    same_pixels = [leak for leak in _leaks_among("pixels", by_pixels) if leak.ids not in known]
    return (*same_file, *same_pixels, *_leaks_among("group", by_group))


def _leaks_among(same: Basis, groups: Mapping[object, Sequence[Sample]]) -> list[Leak]:
    """Groups that span several splits, each once."""
    leaks = []
    for found in groups.values():
        splits = tuple(split for split in SPLITS if any(s.split == split for s in found))
        if len(splits) > 1:
            first = [next(s for s in found if s.split == split) for split in splits]
            others = [s for s in found if all(s is not other for other in first)]
            leaks.append(Leak(same, tuple(s.id for s in (*first, *others)), splits))
    return list(dict.fromkeys(leaks))


def _count_repeated(good: Sequence[_Decoded]) -> int:
    seen: set[tuple[str, int | str]] = set()
    count = 0
    for decoded in good:
        own = {(decoded.sample.split, digest) for digest in decoded.pixels}
        count += not seen.isdisjoint(own)
        seen |= own
    return count


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
