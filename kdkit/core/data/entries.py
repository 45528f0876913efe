"""From a data entry of the registry to its samples."""

from __future__ import annotations

import inspect
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import pyarrow as pa

import kdkit
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import (
    SPLITS,
    ImageLocation,
    ImageOptions,
    Reporter,
    Sample,
    Silent,
    Skipped,
    SourceSpec,
    StudentSpec,
)
from kdkit.core.data.batches import from_batch, in_samples, odd_row
from kdkit.core.data.collect import to_table
from kdkit.core.data.contents import ContentsCache
from kdkit.core.data.listing_cache import Listing, ListingCache, SkippedCounts
from kdkit.core.data.locations import file_of, image_reader, images_of
from kdkit.core.data.names import printable
from kdkit.core.data.option_types import check_types
from kdkit.core.data.remote import location_of
from kdkit.core.data.rules import Rules, apply_rules, read_rules
from kdkit.core.data.table import SampleTable
from kdkit.core.data.teacher_labels import TeacherLabels, read_use
from kdkit.core.plugin_system.catalogue import resolve
from kdkit.core.plugin_system.failures import plugin_errors
from kdkit.core.project.project import Project
from kdkit.core.project.registry.load import line_of, placed
from kdkit.core.project.registry.schema import DataEntry

INDEX = "index"
"""Folder of the project's state for indexes of samples, and of the files of sources."""
CACHE_FOLDER = "cache_folder"
"""Argument of a source that keeps an index of its files."""


Locate = Callable[[Project, DataEntry, int | None, Reporter], Path]
"""Project, data entry, GiB to download at most, reporter -> where the files of the entry are."""


@dataclass(frozen=True)
class EntryOptions:
    """Options that every data entry takes, beside those of its source; see :class:`ImageOptions` and
    :mod:`~kdkit.core.data.rules`.

    Attributes:
        verify: how a command that trains or extracts finds images that were replaced: by size and time of the files
            (``stat``), by reading all of them (``hash``), or not at all (``none``).
    """

    skip_unreadable: bool = False
    frame: int | None = None
    max_pixels: int | None = None
    jpeg_min_side: int | None = None
    domain_by: Mapping[str, Any] | None = None
    label_by: Mapping[str, Any] | None = None
    text_by: str | None = None
    teacher_labels: Mapping[str, Any] | None = None
    max_download_gib: int | None = None
    verify: Literal["stat", "hash", "none"] = "stat"


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
    """The samples of one data entry, and what its source skipped.

    Attributes:
        verify: of :class:`EntryOptions`.
        kept: where the digests of its contents are kept; None if each command reads the source.
    """

    samples: SampleTable
    skip_unreadable: bool
    skipped: tuple[SkippedKind, ...] = ()
    verify: Literal["stat", "hash", "none"] = "stat"
    kept: ContentsCache | None = None


def read_sources(project: Project, reporter: Reporter | None = None) -> tuple[LoadedEntry, ...]:
    """Read the samples of each data entry; each sample is checked on its own.

    Args:
        project: the project.
        reporter: receives what is fetched, and which samples are new, changed or gone.

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
    return tuple(read_entry(project, number, reporter or Silent()) for number in range(len(entries)))


def read_entry(project: Project, number: int, reporter: Reporter, locate: Locate = location_of) -> LoadedEntry:
    """The samples of the data entry ``number``, from 0.

    Args:
        project: the project.
        number: of the entry.
        reporter: as of :func:`read_sources`.
        locate: where its files are.

    Raises:
        KdkitError: an option is wrong; errors of the source and of ``locate``.
    """
    max_aspect = _max_aspect(project)
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
    where = line_of(place, "data", number)
    try:
        location = locate(project, entry, general.max_download_gib, reporter)
    except KdkitError as error:
        raise error.at(f"{where}: {error.where}" if error.where else where) from error
    with placed(place, "data", number), plugin_errors(f"source '{entry.source}' failed"):
        say = partial(_say, reporter, where)
        rules = read_rules(general.domain_by, general.label_by, general.text_by, project.root)
        labels = read_use(general.teacher_labels, project.root)
        listing, digests = _list(project, entry.source, location, options, rules, labels, say)
        samples = _with_options(listing.samples, general, max_aspect)
        for reader in sorted(samples.codes("reader")[1]):
            image_reader(reader)
    kinds = tuple(SkippedKind(where, *kind) for kind in listing.skipped)
    key = f"{listing.id} {general.frame} {general.jpeg_min_side}"
    kept = ContentsCache(digests, key) if listing.id and digests else None
    return LoadedEntry(samples, general.skip_unreadable, kinds, general.verify, kept)


def _list(
    project: Project, source: str, location: Path, options: Mapping[str, Any], rules: Rules | None,
    labels: TeacherLabels | None, say: Callable[[str], None],
) -> tuple[Listing, Path | None]:  # fmt: skip
    """What a source gives, and where the digests of its contents may be kept."""
    found = project.catalogue.get("source", source)
    given, folder = _given(project, source, options), location if location.is_dir() else location.parent

    def read() -> Listing:
        skipped = list[Skipped]()
        items = _without(project.catalogue.make("source", source, location=location, **options, **given), skipped)
        if rules is not None:
            samples = (_checked(item, source) for item in in_samples(items))
            items = _without(apply_rules(samples, rules, folder), skipped)
        if labels is not None:
            samples = (_checked(item, source) for item in in_samples(items))
            items = _without(labels.apply(samples), skipped)
        table = to_table(_checked(item, source) for item in items)
        if not len(table):
            raise _no_sample(source, location, skipped)
        return Listing(table, _kinds(skipped))

    if not found.spec.inputs:
        return read(), None
    merged = {**found.spec.options, **options}
    inputs = partial(_inputs, resolve(found.spec.inputs), location, merged, labels)
    facts = {
        "kdkit": kdkit.__version__,
        "source": found.qualified,
        "version": found.version,
        "code": _code_stamp(resolve(found.spec.factory)),
        "location": str(location),
        "options": json.loads(json.dumps([merged, *(one and one.as_json() for one in (rules, labels))], default=str)),
    }
    kept = ListingCache(project.state / INDEX, facts, inputs, read, say)
    return kept.get(), kept.path.with_suffix(".digests")


def _inputs(
    of_source: Callable[..., Iterable[Path]], location: Path, options: Mapping[str, Any], labels: TeacherLabels | None
) -> Iterator[Path]:
    """All files that the samples depend on."""
    yield from of_source(location, **options)
    if labels is not None:
        yield labels.path


def _say(reporter: Reporter, where: str, text: str) -> None:
    reporter.say(f"{where}: {text}")


def _no_sample(source: str, location: Path, skipped: Sequence[Skipped]) -> KdkitError:
    counts = Counter(item.what for item in skipped)
    return KdkitError(
        "KD-DATA-150",
        f"source '{source}' found no sample",
        where=str(location),
        why=", ".join(f"{count} {what} skipped" for what, count in counts.items()),
        fix="correct the path or the options of the data entry, or remove it",
    )


def _code_stamp(factory: Any) -> list[int]:
    """Of the module of a source, for those who write one."""
    try:
        found = os.stat(inspect.getfile(factory))
    except (TypeError, OSError):
        return []
    return [found.st_size, found.st_mtime_ns]


def _without(items: Iterable[object], skipped: list[Skipped]) -> Iterator[object]:
    """The items of a source, without what it skips, which goes into ``skipped``."""
    for item in items:
        if isinstance(item, Skipped):
            skipped.append(replace(item, what=printable(item.what), where=printable(item.where)))
        else:
            yield item


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


def _with_options(samples: SampleTable, entry: EntryOptions, max_aspect: float | None) -> SampleTable:
    """Add the options of the data entry, which take precedence, and the limit of the student's family."""

    def whole(own: ImageOptions) -> ImageOptions:
        return ImageOptions(
            frame=own.frame if entry.frame is None else entry.frame,
            max_pixels=own.max_pixels if entry.max_pixels is None else entry.max_pixels,
            max_aspect=min((limit for limit in (own.max_aspect, max_aspect) if limit is not None), default=None),
            jpeg_min_side=own.jpeg_min_side if entry.jpeg_min_side is None else entry.jpeg_min_side,
        )

    return samples.with_options(whole)


def _max_aspect(project: Project) -> float | None:
    try:
        return project.catalogue.spec(StudentSpec, project.registry.student.family).max_aspect
    except KdkitError:  # an unknown family; commands that make a student refuse it
        return None


def _kinds(skipped: Sequence[Skipped]) -> SkippedCounts:
    counts = Counter(item.what for item in skipped)
    first = {item.what: item for item in reversed(skipped)}
    return [(what, count, first[what].where, first[what].fix, first[what].level) for what, count in counts.items()]


def _checked(sample: object, source: str) -> Sample | pa.RecordBatch:
    """Check what a source returned."""
    if isinstance(sample, pa.RecordBatch):
        batch, odd = from_batch(sample), odd_row(sample)
        return batch if odd is None else _checked(odd, source)
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
