"""From the registry's data entries to the index of samples."""

from __future__ import annotations

import inspect
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import (
    SPLITS,
    ImageLocation,
    ImageOptions,
    ImageRef,
    Reporter,
    Sample,
    Silent,
    Skipped,
    SourceSpec,
    StudentSpec,
)
from kdkit.core.data.digests import DigestCache, Stamp, content_digest, file_digests, stamp_of
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.locations import file_of, image_reader, images_of
from kdkit.core.data.names import near_miss
from kdkit.core.data.option_types import check_types
from kdkit.core.data.remote import location_of
from kdkit.core.data.rules import apply_rules, read_rules
from kdkit.core.plugin_system.catalogue import resolve
from kdkit.core.plugin_system.failures import plugin_errors
from kdkit.core.project.project import Project
from kdkit.core.project.registry.load import line_of, placed

SHOWN = 3
"""How many of many equal problems a message names."""
CACHE_FOLDER = "cache_folder"
"""Argument of a source that keeps an index of its files."""


@dataclass(frozen=True)
class EntryOptions:
    """Options that every data entry takes, beside those of its source; see :class:`ImageOptions` and
    :mod:`~kdkit.core.data.rules`."""

    skip_unreadable: bool = False
    frame: int | None = None
    max_pixels: int | None = None
    jpeg_min_side: int | None = None
    domain_by: Mapping[str, Any] | None = None
    label_by: Mapping[str, Any] | None = None
    text_by: str | None = None
    max_download_gib: int | None = None


@dataclass(frozen=True)
class SkippedKind:
    """What a source skipped of one kind.

    Attributes:
        entry: ``registry.yaml:LINE`` of the data entry.
        what, fix, level: as of :class:`Skipped`.
        count: how many.
        first: where the first one is.
    """

    entry: str
    what: str
    count: int
    first: str
    fix: str
    level: str

    def __str__(self) -> str:
        remedy = f"; {self.fix}" if self.fix else ""
        return f"{self.entry}: {self.count} {self.what} skipped, the first at {self.first}{remedy}"


@dataclass(frozen=True)
class LoadedEntry:
    """The samples of one data entry, and what its source skipped."""

    samples: tuple[Sample, ...]
    skip_unreadable: bool
    skipped: tuple[SkippedKind, ...] = ()


def load_index(project: Project, reporter: Reporter | None = None) -> SampleIndex:
    """Every sample of the project, in a fixed order.

    Raises:
        KdkitError: with ``file:line``: a row without a required column, an unknown split, a repeated id, a path that
            leaves its folder, a missing image file.
    """
    entries = read_sources(project, reporter)
    for kind in (kind for entry in entries for kind in entry.skipped):
        if reporter and kind.level != "note":
            reporter.warn(str(kind))
    return build_index(entries, file_digests(project.state), reporter)


def build_index(entries: Sequence[LoadedEntry], cache: DigestCache, reporter: Reporter | None = None) -> SampleIndex:
    """Join the samples of all entries into one index; errors as :func:`load_index`.

    Args:
        entries: one per data entry.
        cache: digests of the image files.
        reporter: shows the progress of hashing.
    """
    samples = tuple(sample for entry in entries for sample in entry.samples)
    _refuse_duplicates(samples)
    images = _hash_images(samples, cache, reporter)
    return SampleIndex(
        samples=samples,
        digests=np.fromiter((_content_digest(s, images) for s in samples), np.uint64, len(samples)),
        may_skip=np.repeat([entry.skip_unreadable for entry in entries], [len(entry.samples) for entry in entries]),
    )


def _hash_images(samples: Sequence[Sample], cache: DigestCache, reporter: Reporter | None) -> dict[ImageRef, int]:
    """Image -> digest, for every image of every sample."""
    origins = {path: sample.origin for sample in reversed(samples) for path in images_of(sample)}
    images = list(dict.fromkeys(path for sample in samples for path in images_of(sample)))
    stamps: dict[Path, Stamp] = {}
    missing = []
    for path in dict.fromkeys(file_of(ref) for ref in images):
        try:
            stamps[path] = stamp_of(path)
        except (OSError, ValueError):  # ValueError: a name that no file can have
            missing.append(path)
    if missing:
        first = next(ref for ref in images if file_of(ref) == missing[0])
        raise KdkitError(
            "KD-DATA-004",
            f"{_count(len(missing), 'image file')} missing: {name_some(map(str, missing))}",
            where=origins[first],
            fix=near_miss(missing[0])
            or "put the files there, or correct the manifest or the entry's option image_root",
            code=ExitCode.MISSING,
        )
    values = cache.get([(ref, stamps[file_of(ref)]) for ref in images], reporter)
    digests = {}
    for ref, value in zip(images, values, strict=True):
        if isinstance(value, str):
            raise KdkitError(
                "KD-DATA-005",
                f"cannot read {ref}: {value}",
                where=origins[ref],
                fix="check the file and its permissions",
                code=ExitCode.MISSING,
            )
        digests[ref] = value
    return digests


def _content_digest(sample: Sample, images: Mapping[ImageRef, int]) -> int:
    first, *others = (images[path] for path in images_of(sample))
    return content_digest(sample, first, others)


def read_sources(project: Project, reporter: Reporter | None = None) -> tuple[LoadedEntry, ...]:
    """Read the samples of each data entry; each sample is checked on its own.

    Args:
        project: the project.
        reporter: receives what is fetched.

    Raises:
        KdkitError: the registry has no data; errors of a source.
    """
    entries = project.registry.data
    if not entries:
        raise KdkitError(
            "KD-DATA-007",
            "the registry has no data",
            where=str(project.registry_path),
            fix="add an entry such as 'data: [{source: folder, path: images}]'; see docs/howto/data.md",
        )
    limit = _max_aspect(project)
    return tuple(_read_entry(project, number, limit, reporter or Silent()) for number in range(len(entries)))


def _read_entry(project: Project, number: int, max_aspect: float | None, reporter: Reporter) -> LoadedEntry:
    entry, place = project.registry.data[number], project.registry_path
    options = dict(entry.options)
    own = {name: options.pop(name) for name in EntryOptions.__dataclass_fields__ if name in options}
    for name, value in own.items():
        with placed(place, "data", number, "options", name):
            check_types("data entry", EntryOptions, {name: value})
            if isinstance(value, int) and value < (name in ("max_pixels", "jpeg_min_side", "max_download_gib")):
                fix = "write the number of a frame (the first is 0), or of pixels"
                raise KdkitError("KD-DATA-008", f"data entry: option '{name}' is {value}", fix=fix)
    general = EntryOptions(**own)
    location = location_of(project, entry, general.max_download_gib, reporter)
    samples, skipped = list[Sample](), list[Skipped]()
    with placed(place, "data", number), plugin_errors(f"source '{entry.source}' failed"):
        given = _given(project, entry.source, options)
        readers = set[str]()
        for item in project.catalogue.make("source", entry.source, location=location, **options, **given):
            if isinstance(item, Skipped):
                skipped.append(replace(item, what=printable(item.what), where=printable(item.where)))
            else:
                samples.append(_with_options(_checked(item, entry.source), general, max_aspect))
                readers |= {ref.reader for ref in images_of(item) if isinstance(ref, ImageLocation)}
        if rules := read_rules(general.domain_by, general.label_by, general.text_by, project.root):
            ruled = list(apply_rules(samples, rules, location if location.is_dir() else location.parent))
            samples = [item for item in ruled if isinstance(item, Sample)]
            skipped += [item for item in ruled if isinstance(item, Skipped)]
        for reader in sorted(readers):
            image_reader(reader)
        if not samples:
            raise KdkitError(
                "KD-DATA-150",
                f"source '{entry.source}' found no sample",
                where=str(location),
                why=", ".join(f"{count} {what} skipped" for what, count in Counter(s.what for s in skipped).items()),
                fix="correct the path or the options of the data entry, or remove it",
            )
    kinds = _kinds(skipped, line_of(place, "data", number)) if skipped else ()
    return LoadedEntry(tuple(samples), general.skip_unreadable, kinds)


def _given(project: Project, source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What kdkit gives to a source beside the checked options of its data entry."""
    factory = resolve(project.catalogue.spec(SourceSpec, source).factory)
    check_types(f"source '{source}'", factory, options)
    try:
        takes = CACHE_FOLDER in inspect.signature(factory).parameters
    except ValueError:  # written in C, without a signature
        return {}
    if takes and CACHE_FOLDER in options:
        raise KdkitError("KD-DATA-021", f"source '{source}': kdkit chooses the {CACHE_FOLDER}", fix="remove the option")
    return {CACHE_FOLDER: project.state / "index"} if takes else {}


def _with_options(sample: Sample, entry: EntryOptions, max_aspect: float | None) -> Sample:
    """Add the options of the data entry, which take precedence, and the limit of the student's family."""
    own = sample.image_options
    images = ImageOptions(
        frame=own.frame if entry.frame is None else entry.frame,
        max_pixels=own.max_pixels if entry.max_pixels is None else entry.max_pixels,
        max_aspect=min((limit for limit in (own.max_aspect, max_aspect) if limit is not None), default=None),
        jpeg_min_side=own.jpeg_min_side if entry.jpeg_min_side is None else entry.jpeg_min_side,
    )
    return sample if images == own else replace(sample, image_options=images)


def _max_aspect(project: Project) -> float | None:
    try:
        return project.catalogue.spec(StudentSpec, project.registry.student.family).max_aspect
    except KdkitError:  # an unknown family; commands that make a student refuse it
        return None


def _kinds(skipped: Sequence[Skipped], entry: str) -> tuple[SkippedKind, ...]:
    counts = Counter(item.what for item in skipped)
    first = {item.what: item for item in reversed(skipped)}
    return tuple(
        SkippedKind(entry, what, count, first[what].where, first[what].fix, first[what].level)
        for what, count in counts.items()
    )


def read_domains(project: Project) -> tuple[str, ...]:
    """The domains of the samples, sorted; none if the data cannot be read."""
    try:
        entries = read_sources(project)
    except KdkitError:
        return ()
    return tuple(sorted({sample.domain for entry in entries for sample in entry.samples}))


def warn_unknown_domains(domains: Iterable[str], known: tuple[str, ...], place: str, reporter: Reporter) -> None:
    """Warn of misspelled domains, which would have no effect.

    Args:
        domains: those named at ``place``.
        known: those of the samples.
        place: for the message.
        reporter: receives the warnings.
    """
    for domain in domains:
        if domain not in known:
            reporter.warn(f"{place}: no sample has the domain '{domain}'; {did_you_mean(domain, known)}")


def name_some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def find_duplicates(samples: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """(first, later) for every sample whose id occurred before."""
    first: dict[str, Sample] = {}
    pairs = [(first.setdefault(sample.id, sample), sample) for sample in samples]
    return [(a, b) for a, b in pairs if a is not b]


def _refuse_duplicates(samples: Sequence[Sample]) -> None:
    pairs = find_duplicates(samples)
    if pairs:
        earlier, later = pairs[0]
        raise KdkitError(
            "KD-DATA-009",
            f"{_count(len(pairs), 'id')} used twice: {name_some(s.id for _, s in pairs)}",
            where=later.origin,
            why=f"'{earlier.id}' is already at {earlier.origin}; ids are the keys of cached features",
            fix="make ids unique, for example with the option id_prefix",
        )


def _checked(sample: object, source: str) -> Sample:
    """Check what a source returned."""
    if not isinstance(sample, Sample):
        raise KdkitError(
            "KD-DATA-010",
            f"source '{source}' returned a {type(sample).__name__}, not a Sample",
            fix="report this to the authors of the plugin",
            code=ExitCode.PLUGIN,
        )
    problem, image = "", cast(object, sample.image)
    if not sample.id or not sample.domain:
        problem = "a sample without an id or a domain"
    elif sample.split not in SPLITS:
        problem = f"sample '{sample.id}' has split '{sample.split}', not one of {', '.join(SPLITS)}"
    elif not isinstance(image, Path | ImageLocation):
        problem = f"sample '{sample.id}' has a {type(image).__name__} as its image"
    elif not all(os.path.isabs(file_of(ref)) for ref in images_of(sample)):
        problem = f"sample '{sample.id}' has a relative image path"
    if problem:
        raise KdkitError(
            "KD-DATA-011",
            problem,
            where=sample.origin,
            why=f"returned by source '{source}'",
            fix="report this to the authors of the plugin",
            code=ExitCode.PLUGIN,
        )
    _check_unicode(sample)
    return sample


def _check_unicode(sample: Sample) -> None:
    """Every text and path must be UTF-8: they go into files, tokenizers and JSON."""
    fields = {"id": sample.id, "image": str(sample.image), "text": sample.text, "domain": sample.domain}
    fields |= {"label": sample.label or "", "extra": json.dumps(sample.extra, ensure_ascii=False, default=str)}
    try:
        "".join(fields.values()).encode()
    except UnicodeEncodeError:
        name, text = next((name, text) for name, text in fields.items() if text != printable(text))
        raise KdkitError(
            "KD-DATA-006",
            f"the {name} of a sample is not valid Unicode: {printable(text)}",
            where=printable(sample.origin),
            why="a file name in another encoding, or half of a surrogate pair",
            fix="rename the file, or write the text again as UTF-8",
        ) from None


def printable(text: str) -> str:
    """``text`` with escapes for what is not valid Unicode, such as a file name in another encoding."""
    return text.encode(errors="backslashreplace").decode()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s are' if number > 1 else ' is'}"
