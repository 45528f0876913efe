"""From the registry's data entries to the index of samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import SPLITS, Reporter, Sample, SourceSpec
from kdkit.core.data.digests import DigestCache, Stamp, content_digest, file_digests, stamp_of
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.option_types import check_types
from kdkit.core.plugin_system.catalogue import resolve
from kdkit.core.project.project import Project
from kdkit.core.project.registry.load import line_of, placed

SHOWN = 3
"""How many of many equal problems a message names."""


@dataclass(frozen=True)
class LoadedEntry:
    """The samples of one data entry."""

    samples: tuple[Sample, ...]
    skip_unreadable: bool


def load_index(project: Project, reporter: Reporter | None = None) -> SampleIndex:
    """Every sample of the project, in a fixed order.

    Raises:
        KdkitError: with ``file:line``: a row without a required column, an unknown split, a repeated id, a path that
            leaves its folder, a missing image file.
    """
    return build_index(read_sources(project), file_digests(project.state), reporter)


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


def _hash_images(samples: Sequence[Sample], cache: DigestCache, reporter: Reporter | None) -> dict[Path, int]:
    """Image file -> digest, for every image of every sample."""
    origins = {path: sample.origin for sample in reversed(samples) for path in images_of(sample)}
    stamps: dict[Path, Stamp] = {}
    missing = []
    for path in dict.fromkeys(path for sample in samples for path in images_of(sample)):
        try:
            stamps[path] = stamp_of(path)
        except (OSError, ValueError):  # ValueError: a name that no file can have
            missing.append(path)
    if missing:
        raise KdkitError(
            "KD-DATA-004",
            f"{_count(len(missing), 'image file')} missing: {name_some(map(str, missing))}",
            where=origins[missing[0]],
            fix="put the files there, or correct the manifest or the entry's option image_root",
            code=ExitCode.MISSING,
        )
    values = cache.get([(str(path), stamp) for path, stamp in stamps.items()], reporter)
    digests = {}
    for path, value in zip(stamps, values, strict=True):
        if isinstance(value, str):
            raise KdkitError(
                "KD-DATA-005",
                f"cannot read {path}: {value}",
                where=origins[path],
                fix="check the file and its permissions",
                code=ExitCode.MISSING,
            )
        digests[path] = value
    return digests


def _content_digest(sample: Sample, images: Mapping[Path, int]) -> int:
    first, *others = (images[path] for path in images_of(sample))
    try:
        return content_digest(first, sample.text, sample.extra, others)
    except UnicodeEncodeError as error:
        raise KdkitError(
            "KD-DATA-006",
            f"sample '{sample.id}' contains a character that is not valid Unicode",
            where=sample.origin,
            why=f"{error.object[error.start : error.end]!r} is half of a surrogate pair",
            fix="remove the character from the sample's text",
        ) from error


def read_sources(project: Project) -> tuple[LoadedEntry, ...]:
    """Read the samples of each data entry; each sample is checked on its own.

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
    parts = []
    for number, entry in enumerate(entries):
        options = dict(entry.options)
        skip = options.pop("skip_unreadable", False)
        if not isinstance(skip, bool):
            where = line_of(project.registry_path, "data", number, "options", "skip_unreadable")
            raise KdkitError(
                "KD-DATA-008", "skip_unreadable must be true or false", where=where, fix="write skip_unreadable: true"
            )
        location = Path(os.path.abspath(project.root / entry.path))
        with placed(project.registry_path, "data", number):
            spec = project.catalogue.spec(SourceSpec, entry.source)
            check_types(f"source '{entry.source}'", resolve(spec.factory), options)
            found = project.catalogue.make("source", entry.source, location=location, **options)
        parts.append(LoadedEntry(tuple(_checked(sample, entry.source) for sample in found), skip))
    return tuple(parts)


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


def images_of(sample: Sample) -> tuple[Path, ...]:
    """All images of a sample, the first one first."""
    return (sample.image, *(Path(path) for path in sample.extra.get("images") or ()))


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
    problem = ""
    if not sample.id or not sample.domain:
        problem = "a sample without an id or a domain"
    elif sample.split not in SPLITS:
        problem = f"sample '{sample.id}' has split '{sample.split}', not one of {', '.join(SPLITS)}"
    elif not os.path.isabs(sample.image):
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
    return sample


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s are' if number > 1 else ' is'}"
