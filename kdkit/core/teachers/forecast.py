"""What adding a teacher will fetch, and what is known about it, before anything is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.result import format_size
from kdkit.core.contracts import LoaderSpec, Reporter
from kdkit.core.project.licenses import allowed
from kdkit.core.project.registry.chosen import ChosenTeacher
from kdkit.core.teachers.archive import find_archive
from kdkit.core.teachers.fetch import companions_of, selector
from kdkit.core.teachers.files import list_folder
from kdkit.core.teachers.hub import bytes_in_cache, cache_folder, list_remote, offline_mode
from kdkit.core.teachers.license import read_license, require_permission
from kdkit.core.teachers.source import parse_source, source_folder

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class Forecast:
    """The plan of an addition.

    Attributes:
        source: where the files come from.
        sizes: file -> bytes; None if unknown. Empty for an offline addition from the Hub's cache.
        cached: bytes of them that are in the Hub's cache already, also of interrupted downloads.
        free: bytes that are free where the files go.
        license: its names, and what follows from them for the project's use.
        also: other sources of files, whose sizes are not counted.
        domains: that it will teach, or that its authors name; empty if unknown or none.
        may_teach: False if the registry allows it no domain.
    """

    source: str
    sizes: Mapping[str, int | None]
    cached: int
    free: int
    license: str
    domains: tuple[str, ...]
    also: tuple[str, ...] = ()
    may_teach: bool = True

    @property
    def bytes(self) -> int:
        """Sum of the known sizes."""
        return sum(size or 0 for size in self.sizes.values())

    def lines(self) -> list[str]:
        """For people."""
        unknown = "not known; trust will be measured" if self.may_teach else "none: it teaches nothing"
        named = ", ".join(self.domains) or unknown
        return [*self.lines_of_files(), f"domains: {named}"]

    def lines_of_files(self) -> list[str]:
        """The first of :meth:`lines`: what is fetched, and under which license."""
        count = f"{len(self.sizes)} file{'s' * (len(self.sizes) != 1)}, {format_size(self.bytes)}"
        files = f"{count} from {self.source}" if self.sizes else f"{self.source}, from the Hub's cache"
        cached = f", {format_size(self.cached)} of it in the Hub's cache" if self.cached else ""
        others = f"and the files of {', '.join(self.also)}; their sizes are not counted" if self.also else ""
        lines = (f"{files}{cached}; {format_size(self.free)} free", others, f"license: {self.license}")
        return [line for line in lines if line]


def forecast(project: Project, chosen: ChosenTeacher, reporter: Reporter, *, offline: bool) -> Forecast:
    """List what would be fetched; judge the license as far as it is known before.

    Raises:
        KdkitError: the license forbids the use, the source is missing, or the disk is too small.
    """
    source, use = parse_source(chosen.source, f"teacher '{chosen.name}'"), project.registry.use
    select, place = selector(chosen.options), project.root
    seen, gated, cached = None, False, 0
    sizes: dict[str, int | None] = {}
    also = list(chosen.spec.extra_sources.values()) if chosen.spec and chosen.source == chosen.spec.source else []
    if source.kind == "https":
        require_permission(chosen, use, reporter)
        found = find_archive(source, project.state, offline=offline or offline_mode())
        sizes, cached, place = {source.place.rpartition("/")[2]: found.size}, found.kept, project.state
        if _names_others(chosen, project.catalogue.specs(LoaderSpec), ()):
            also.append("other repositories that its files may name")
    elif source.kind != "hf":
        folder = source_folder(source, project.root)
        names = select(list_folder(folder, str(source)), str(source))
        sizes = {file: (folder / file).stat().st_size for file in names}
        also += [found.source for found in companions_of(chosen, project.catalogue.specs(LoaderSpec), folder)]
        seen, gated = read_license(folder)
        require_permission(chosen, use, reporter, seen, gated=gated)
    else:
        if chosen.spec is not None or chosen.license is not None:
            require_permission(chosen, use, reporter)
        else:
            reporter.say("the license will be read from the fetched files")
        place = cache_folder()
        if not (offline or offline_mode()):
            listing = list_remote(source, select)
            sizes = dict(listing.sizes)
            if not also and _names_others(chosen, project.catalogue.specs(LoaderSpec), sizes):
                also.append("other repositories that its files may name")
            cached = bytes_in_cache(source, listing)
    facts = chosen.license_facts(seen, gated=gated)
    domains = (chosen.spec.domains if chosen.spec else ()) if chosen.domains is None else chosen.domains
    reason = allowed(facts, use).reason
    others = tuple(dict.fromkeys(also))
    made = Forecast(chosen.source, sizes, cached, _free(place), reason, domains, others, chosen.domains != ())
    _require_space(made, chosen, place)
    return made


def _names_others(chosen: ChosenTeacher, loaders: Sequence[LoaderSpec], names: Collection[str]) -> bool:
    """Whether a loader that may read these files looks for companions."""
    return any(
        spec.name == chosen.loader if chosen.loader else spec.marks and set(names).issuperset(spec.marks)
        for spec in loaders
        if spec.companions
    )


def _free(place: Path) -> int:
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _require_space(made: Forecast, chosen: ChosenTeacher, place: Path) -> None:
    needed = made.bytes - made.cached
    if needed > made.free:
        raise KdkitError(
            "KD-TEACH-029",
            f"the disk is too small for teacher '{chosen.name}'",
            where=str(place),
            why=f"its files have {format_size(needed)}, and {format_size(made.free)} are free",
            fix="free space, or move the Hub's cache to another disk: HF_HUB_CACHE",
            code=ExitCode.MISSING,
        )
