"""``kdkit data check``: what is in the data, and what is wrong with them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdkit.core.contracts import SPLITS, Reporter, Sample
from kdkit.core.data.digests import DigestCache, pixel_digest
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.load import (
    Sourced,
    file_cache,
    find_duplicates,
    images_of,
    name_some,
    read_sources,
    stamp_of,
)
from kdkit.core.project.project import Project
from kdkit.core.project.registry.load import line_of

UNLABELLED = "(no label)"


class _Read(NamedTuple):
    """A sample of which an image could be decoded, and what it may share with others: digests of all such images."""

    sample: Sample
    entry: int
    files: set[int | str]
    pixels: set[int | str]


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be decoded, or is not there."""

    id: str
    image: str
    why: str


@dataclass(frozen=True)
class Leak:
    """Samples of different splits that share something that they must not.

    ``same`` is ``file`` (equal bytes), ``pixels`` (equal once decoded) or ``group`` (one patient). The first ``ids``
    are one of each of the ``splits``, in their order.
    """

    same: Literal["file", "pixels", "group"]
    ids: tuple[str, ...]
    splits: tuple[str, ...]

    def __str__(self) -> str:
        more = len(self.ids) - len(self.splits)
        return " = ".join(
            f"{name} ({split})" for name, split in zip(self.ids, self.splits, strict=False)
        ) + f" = {more} more" * (more > 0)


@dataclass(frozen=True)
class DataReport:
    """What :func:`check_data` found.

    Attributes:
        counts: domain -> class -> split -> samples; the class of samples without a label is ``(no label)``.
        unreadable: images that cannot be read, and ``skipped`` those that a data entry says to skip.
        elsewhere: ``registry.yaml:LINE`` of data entries of which no image is where it should be -> one such path.
        duplicates: ids that occur more than once, with the places.
        leaks: samples that share an image, any of theirs, or a group across splits.
        repeated: samples with an image that an earlier one of their split has (said, but no problem).
        uncalibrated: (domain, class) without a calibration sample: trust cannot be measured on them.
        unlabeled: domains with neither labels nor questions: trust cannot be measured there (said, but no problem).
        unasked: domains with questions to train on but no answered one to calibrate with: neither trust nor the guard
            can judge there (said, but no problem).
        unanswered: domain -> split -> questions without an answer, which nobody learns from or is judged by (said, but
            no problem: they may wait for pseudo-labels).
    """

    samples: int
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    unreadable: tuple[Unreadable, ...]
    skipped: tuple[Unreadable, ...]
    elsewhere: Mapping[str, str]
    duplicates: Mapping[str, tuple[str, ...]]
    leaks: tuple[Leak, ...]
    repeated: int
    uncalibrated: tuple[tuple[str, str], ...]
    unlabeled: tuple[str, ...]
    unasked: tuple[str, ...]
    unanswered: Mapping[str, Mapping[str, int]]

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each kind of problem; empty when the data are fine."""
        lines = []
        if self.unreadable:
            lines.append(f"{_n(self.unreadable, 'unreadable image')}: {name_some(u.id for u in self.unreadable)}")
        for where, path in self.elsewhere.items():
            lines.append(f"{where}: no image of this entry is there, as {path}; does its option image_root fit?")
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
    """Read everything, decode every image.

    Args:
        project: the project.
        skip_unreadable: count unreadable images of all entries as skipped, not as problems.
        reporter: where progress is shown.

    Raises:
        KdkitError: for a manifest that cannot be read at all.
    """
    sourced = read_sources(project)
    samples = [sample for part in sourced for sample in part.samples]
    entries = [number for number, part in enumerate(sourced) for _ in part.samples]
    paths = {path for sample in samples for path in images_of(sample)}
    broken = _broken(project, paths, reporter)
    files, pixels = _digests(project, paths - set(broken), reporter)
    bad: list[Unreadable] = []
    skipped: list[Unreadable] = []
    good: list[_Read] = []
    for sample, entry in zip(samples, entries, strict=True):
        images = images_of(sample)
        wrong = [path for path in images if path in broken]
        if wrong:
            skip = skip_unreadable or sourced[entry].skip_unreadable
            (skipped if skip else bad).append(Unreadable(sample.id, str(wrong[0]), broken[wrong[0]]))
        right = [path for path in images if path not in broken]
        if right:
            good.append(_Read(sample, entry, {files[path] for path in right}, {pixels[path] for path in right}))
    return DataReport(
        samples=len(samples),
        counts=_counts(samples),
        unreadable=tuple(bad),
        skipped=tuple(skipped),
        elsewhere=_elsewhere(project, sourced),
        duplicates=_duplicates(samples),
        leaks=_leaks(good),
        repeated=_repeated(good),
        uncalibrated=_uncalibrated(samples),
        unlabeled=tuple(sorted({s.domain for s in samples} - {s.domain for s in samples if s.label or _asks(s)})),
        unasked=_unasked(samples),
        unanswered=_unanswered(samples),
    )


def skipped_images(project: Project, table: SampleIndex, reporter: Reporter | None = None) -> NDArray[np.bool_]:
    """(N,) samples of which an image cannot be read and whose data entry says to skip them.

    For runs that no teacher's extraction goes before. Only images of such entries are decoded, once.
    """
    skipped, rows = np.zeros(len(table), dtype=bool), np.flatnonzero(table.may_skip)
    images = [images_of(table.samples[row]) for row in rows]
    broken = _broken(project, {path for paths in images for path in paths}, reporter)
    skipped[rows] = [any(path in broken for path in paths) for paths in images]
    return skipped


def _broken(project: Project, paths: Collection[Path], reporter: Reporter | None) -> dict[Path, str]:
    """Why each of these images cannot be read; those that can be are left out."""
    there = [path for path in sorted(paths) if path.is_file()]
    keys = [(str(path), stamp_of(path)) for path in there]
    found = zip(there, _pixels(project).get(keys, reporter, "decoding"), strict=True)
    wrong = {path: value for path, value in found if isinstance(value, str)}
    return {path: "no such file" for path in paths if not path.is_file()} | wrong


def _elsewhere(project: Project, sourced: Sequence[Sourced]) -> dict[str, str]:
    return {
        line_of(project.registry_path, "data", number): str(part.samples[0].image)
        for number, part in enumerate(sourced)
        if part.samples and not any(path.is_file() for sample in part.samples for path in images_of(sample))
    }


def _digests(
    project: Project, paths: Collection[Path], reporter: Reporter | None
) -> tuple[dict[Path, int | str], dict[Path, int | str]]:
    """(of the bytes, of the pixels) of each image that can be decoded."""
    keys = [(str(path), stamp_of(path)) for path in sorted(paths)]
    caches = (file_cache(project), _pixels(project))
    files, pixels = (dict(zip(sorted(paths), cache.get(keys, reporter), strict=True)) for cache in caches)
    return files, pixels


def _pixels(project: Project) -> DigestCache:
    return DigestCache(project.state / "pixels.json", pixel_digest)


def _counts(samples: Sequence[Sample]) -> dict[str, dict[str, dict[str, int]]]:
    found = Counter((s.domain, s.label or UNLABELLED, s.split) for s in samples)
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for domain, label in sorted({(domain, label) for domain, label, _ in found}):
        counts.setdefault(domain, {})[label] = {split: found[domain, label, split] for split in SPLITS}
    return counts


def _duplicates(samples: Sequence[Sample]) -> dict[str, tuple[str, ...]]:
    places: dict[str, list[str]] = {}
    for earlier, later in find_duplicates(samples):
        places.setdefault(earlier.id, [earlier.origin]).append(later.origin)
    return {id_: tuple(found) for id_, found in places.items()}


def _leaks(good: Sequence[_Read]) -> tuple[Leak, ...]:
    by_file, by_pixels, by_group = (defaultdict[object, list[Sample]](list) for _ in range(3))
    for sample, entry, files, pixels in good:
        for digest in files:
            by_file[digest].append(sample)
        for digest in pixels:
            by_pixels[digest].append(sample)
        if "group" in sample.extra:  # the same name in another data entry is another patient
            by_group[entry, sample.extra["group"]].append(sample)
    same_file = _spanning("file", by_file)
    known = {leak.ids for leak in same_file}
    same_pixels = [leak for leak in _spanning("pixels", by_pixels) if leak.ids not in known]
    return (*same_file, *same_pixels, *_spanning("group", by_group))


def _spanning(same: Literal["file", "pixels", "group"], groups: Mapping[object, Sequence[Sample]]) -> list[Leak]:
    """A leak is named once, also where samples share several images."""
    leaks = []
    for found in groups.values():
        splits = tuple(split for split in SPLITS if any(s.split == split for s in found))
        if len(splits) > 1:
            first = [next(s for s in found if s.split == split) for split in splits]
            others = [s for s in found if all(s is not other for other in first)]
            leaks.append(Leak(same, tuple(s.id for s in (*first, *others)), splits))
    return list(dict.fromkeys(leaks))


def _repeated(good: Sequence[_Read]) -> int:
    seen: set[tuple[str, int | str]] = set()
    count = 0
    for read in good:
        own = {(read.sample.split, digest) for digest in read.pixels}
        count += not seen.isdisjoint(own)
        seen |= own
    return count


def _uncalibrated(samples: Sequence[Sample]) -> tuple[tuple[str, str], ...]:
    classes = {(s.domain, s.label) for s in samples if s.label}
    calibrated = {(s.domain, s.label) for s in samples if s.label and s.split == "calibration"}
    return tuple(sorted(classes - calibrated))


def _asks(sample: Sample) -> bool:
    """Is it a question, judged by its answer instead of a label?"""
    return bool(sample.extra.get("messages"))


def _unasked(samples: Sequence[Sample]) -> tuple[str, ...]:
    questions = [s for s in samples if _asks(s) and not s.label]
    calibrated = {s.domain for s in questions if s.split == "calibration" and s.text}
    return tuple(sorted({s.domain for s in questions if s.split == "train"} - calibrated))


def _unanswered(samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    found = Counter((s.domain, s.split) for s in samples if _asks(s) and not s.text)
    return {domain: {split: found[domain, split] for split in SPLITS} for domain in sorted({d for d, _ in found})}


def _n(things: Sequence[object] | Mapping[str, object], what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{len(things)} {what}{plural if len(things) != 1 else ''}"
