"""From the registry's data entries to the table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import SPLITS, Reporter, Sample, Silent, SourceSpec
from kdkit.core.data.digests import DigestCache, Stamp, content_digest, file_digest
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.option_types import check_types
from kdkit.core.plugin_system.catalogue import resolve
from kdkit.core.project.project import Project
from kdkit.core.project.registry.load import line_of, placed

SHOWN = 3
"""How many of many equal problems a message names."""


@dataclass(frozen=True)
class Sourced:
    """The samples of one data entry."""

    samples: tuple[Sample, ...]
    skip_unreadable: bool


def load_index(project: Project, reporter: Reporter | None = None) -> SampleIndex:
    """Every sample of the project, in a fixed order.

    Raises:
        KdkitError: naming ``file:line`` of what is wrong: a row without a needed column, an unknown split,
            an id that occurs twice, a path that leaves its folder, an image file that is missing.
    """
    return build_index(read_sources(project), file_cache(project), reporter)


def build_index(sourced: Sequence[Sourced], cache: DigestCache, reporter: Reporter | None = None) -> SampleIndex:
    """The samples of all sources as one table; errors as :func:`load_index`.

    Args:
        sourced: per data entry.
        cache: digests of the image files.
        reporter: where the progress of hashing is shown.
    """
    samples = tuple(sample for part in sourced for sample in part.samples)
    _refuse_duplicates(samples)
    stamps, missing = stat_images(samples)
    absent = [(sample, sample.image) for sample in missing]
    absent += [(sample, path) for sample in samples for path in further_images(sample) if not path.is_file()]
    if absent:
        raise KdkitError(
            "KD-DATA-004",
            f"{_count(len(absent), 'image file')} missing: {name_some(str(path) for _, path in absent)}",
            where=absent[0][0].origin,
            fix="put the files there, or correct the manifest or the entry's option image_root",
            code=ExitCode.MISSING,
        )
    files = [(str(sample.image), stamp) for sample, stamp in zip(samples, stamps, strict=True)]
    further = [(str(path), stamp_of(path)) for sample in samples for path in further_images(sample)]
    hashed = dict(zip([*files, *further], cache.get([*files, *further], reporter or Silent()), strict=True))
    origins = {str(path): s.origin for s in samples for path in images_of(s)}
    for (path, _), value in hashed.items():
        if isinstance(value, str):
            raise KdkitError("KD-DATA-005", f"cannot read {path}: {value}", where=origins[path], code=ExitCode.MISSING)
    image_digests = np.array([hashed[file] for file in files], dtype=np.uint64)
    others = iter([int(hashed[file]) for file in further])
    contents = (
        _content(sample, file, [next(others) for _ in further_images(sample)])
        for file, sample in zip(image_digests.tolist(), samples, strict=True)
    )
    return SampleIndex(
        samples=samples,
        digests=np.fromiter(contents, dtype=np.uint64, count=len(samples)),
        image_digests=image_digests,
        may_skip=np.repeat(
            np.array([part.skip_unreadable for part in sourced], dtype=bool),
            [len(part.samples) for part in sourced],
        ),
    )


def _content(sample: Sample, file: int, others: Sequence[int]) -> int:
    try:
        return content_digest(file, sample.text, sample.extra, others)
    except UnicodeEncodeError as error:
        raise KdkitError(
            "KD-DATA-006",
            f"sample '{sample.id}' has a character that no text can have",
            where=sample.origin,
            why=f"{error.object[error.start : error.end]!r} is half a character",
        ) from error


def read_sources(project: Project) -> tuple[Sourced, ...]:
    """The samples of each data entry, checked one by one but not against each other.

    Raises:
        KdkitError: for a registry without data, or what a source complains about.
    """
    entries = project.registry.data
    if not entries:
        raise KdkitError(
            "KD-DATA-007",
            "the registry has no data",
            where=str(project.registry_path),
            fix="add an entry such as 'data: [{source: folder, path: images}]'; see docs/data.md",
        )
    parts = []
    for number, entry in enumerate(entries):
        options = dict(entry.options)
        skip = options.pop("skip_unreadable", False)
        if not isinstance(skip, bool):
            where = line_of(project.registry_path, "data", number, "options", "skip_unreadable")
            raise KdkitError("KD-DATA-008", "skip_unreadable must be true or false", where=where)
        location = Path(os.path.abspath(project.root / entry.path))
        with placed(project.registry_path, "data", number):
            spec = project.catalogue.spec(SourceSpec, entry.source)
            check_types(f"source '{entry.source}'", resolve(spec.factory), options)
            found = project.catalogue.make("source", entry.source, location=location, **options)
        parts.append(Sourced(tuple(_checked(sample, entry.source) for sample in found), skip))
    return tuple(parts)


def images_of(sample: Sample) -> tuple[Path, ...]:
    """All images of a sample, the first one first."""
    return (sample.image, *further_images(sample))


def further_images(sample: Sample) -> tuple[Path, ...]:
    """Images of a sample beside its first."""
    return tuple(Path(path) for path in sample.extra.get("images") or ())


def stat_images(samples: Sequence[Sample]) -> tuple[list[Stamp], list[Sample]]:
    """Size and time of each sample's image, and the samples without such a file (stamp (-1, -1))."""
    stamps: list[Stamp] = []
    missing = []
    for sample in samples:
        try:
            stamps.append(stamp_of(sample.image))
        except (OSError, ValueError):  # a name that no file can have
            missing.append(sample)
            stamps.append((-1, -1))
    return stamps, missing


def stamp_of(path: Path) -> Stamp:
    """Size in bytes and modification time in ns; raises OSError where there is no file."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def file_cache(project: Project) -> DigestCache:
    """Digests of the bytes of the project's images."""
    return DigestCache(project.state / "digests.json", file_digest)


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
            why=f"'{earlier.id}' is already at {earlier.origin}; what is cached is found by its id",
            fix="make ids unique; the option id_prefix tells two sources apart",
        )


def _checked(sample: object, source: str) -> Sample:
    """What the core relies on, whoever wrote the source."""
    if not isinstance(sample, Sample):
        raise KdkitError(
            "KD-DATA-010", f"source '{source}' gave a {type(sample).__name__}, not a Sample", code=ExitCode.PLUGIN
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
            "KD-DATA-011", problem, where=sample.origin, why=f"given by source '{source}'", code=ExitCode.PLUGIN
        )
    return sample


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s are' if number > 1 else ' is'}"
