"""Fetches all files of a teacher into one relocatable folder that holds no pickles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import Companion, LoaderSpec, Reporter
from kdkit.core.plugin_system.catalogue import resolve
from kdkit.core.project.registry.chosen import ChosenTeacher
from kdkit.core.project.registry.lock import FileFact, LicenseSeen, LockedFiles
from kdkit.core.teachers.archive import fetch_archive, unpacking
from kdkit.core.teachers.files import (
    copy_file,
    describe_files,
    list_folder,
    require_whole,
    select_descriptions,
    select_files,
)
from kdkit.core.teachers.hub import Select, offline_mode, snapshot
from kdkit.core.teachers.license import read_licenses
from kdkit.core.teachers.pickles import convert_pickles
from kdkit.core.teachers.recognize import matching_loaders
from kdkit.core.teachers.source import Source, parse_source, source_folder


@dataclass(frozen=True)
class Materialized:
    """A folder that holds a complete teacher.

    Attributes:
        folder: where it is.
        files: relative path -> size and sha256.
        commit: of its repository; of an archive its sha256; None for a folder.
        license: what the files say, and where.
        gated: the Hub asks to accept terms.
        also: subfolder -> other source of files there, at its commit.
    """

    folder: Path
    files: Mapping[str, FileFact]
    commit: str | None
    license: LicenseSeen | None
    gated: bool = False
    also: Mapping[str, str] = field(default_factory=dict)


def fetch(
    chosen: ChosenTeacher,
    loaders: Iterable[LoaderSpec],
    project: Path,
    into: Path,
    reporter: Reporter,
    *,
    locked: LockedFiles | None = None,
    offline: bool = False,
) -> Materialized:
    """Fetch the files of ``chosen``, and what its loader needs from other repositories, into the empty folder ``into``.

    Args:
        chosen: the teacher.
        loaders: all installed ones; the teacher's names the companions that the folder lacks.
        project: the folder to which a ``local:`` source is relative.
        into: receives the files; the caller removes it if this raises.
        reporter: shows progress.
        locked: fetch the locked commits.
        offline: use only the Hub's cache.

    Raises:
        KdkitError: a file is missing, forbidden or unsafe.
    """
    fetcher = _Fetcher(project, into, reporter, offline)
    pins = locked.also if locked else {}
    with system_errors(str(into)):
        main = parse_source(chosen.source, chosen.name).pinned(locked.commit if locked else None)
        commit, gated = fetcher.fetch(main, into, selector(chosen.options))
        if chosen.spec and chosen.source == chosen.spec.source:  # its extra sources belong to its own source
            for subfolder, source in chosen.spec.extra_sources.items():
                fetcher.fetch_also(subfolder, pins.get(subfolder, source), select_descriptions)
        models = [into]
        require_whole(into, str(main))
        made = convert_pickles(into, str(main), reporter)  # first: names of weights tell which companions they need
        for companion in companions_of(chosen, loaders, into):
            fetcher.fetch_companion(companion, pins.get(companion.subfolder or ".", companion.source))
            models += [into / companion.subfolder] if companion.weights else []
        require_whole(into, str(main))
        made |= convert_pickles(into, str(main), reporter)  # of companions with weights
        files = describe_files(into, fetcher.hashed)
    files |= {name: files[name].model_copy(update={"made_from": fact}) for name, fact in made.items()}
    license, says_gated = read_licenses(models)
    return Materialized(into, files, commit, license, gated or fetcher.gated or says_gated, fetcher.also)


def selector(options: Mapping[str, Any]) -> Select:
    """Which files belong to a teacher with these options; ``weights`` names the one file of several."""
    weights = options.get("weights")
    return partial(select_files, weights=str(weights) if weights is not None else None)


def companions_of(chosen: ChosenTeacher, loaders: Iterable[LoaderSpec], folder: Path) -> Iterator[Companion]:
    """What ``folder`` lacks of other repositories, as far as its present files tell."""
    declared = [spec for spec in loaders if spec.companions]
    names = [chosen.loader] if chosen.loader else [spec.name for spec in matching_loaders(declared, folder)]
    for spec in declared:
        if spec.name in names:
            yield from resolve(spec.companions)(folder)


class _Fetcher:
    """Fetches files from any source; records commits of all but the main one, and whether their models are gated."""

    def __init__(self, project: Path, into: Path, reporter: Reporter, offline: bool) -> None:
        self.project, self.into, self.reporter, self.offline = project, into, reporter, offline
        self.also: dict[str, str] = {}
        self.gated = False
        self.hashed: dict[Path, str] = {}

    def fetch(self, source: Source, target: Path, select: Select) -> tuple[str | None, bool]:
        """Copy what ``select`` chooses to ``target``; returns the commit, if there are commits, and if it is gated."""
        if source.kind == "hf":
            self.reporter.say(f"fetching {source}")
            found = snapshot(source, select, offline=self.offline)
            for name in found.names:
                self._copy(name, found.folder, target, link=True)
            return found.commit, found.gated
        if source.kind == "https":
            self.reporter.say(f"fetching {source.place}")
            offline = self.offline or offline_mode()
            path, sha256 = fetch_archive(source, self.project / ".kdkit", self.reporter, offline=offline)
            with unpacking(path, source) as unpacked:
                for name in select(list(unpacked.members), source.place):
                    unpacked.extract(name, target)
            return sha256, False
        folder = source_folder(source, self.project)
        for name in select(list_folder(folder, str(source)), str(source)):
            self._copy(name, folder, target, link=False)
        return None, False

    def _copy(self, name: str, folder: Path, target: Path, *, link: bool) -> None:
        self.hashed.pop(target / name, None)
        if (found := copy_file(name, folder, target, link=link)) is not None:
            self.hashed[target / name] = found

    def fetch_also(self, subfolder: str, source: str, select: Select) -> bool:
        """Returns whether ``source`` is gated."""
        parsed = parse_source(source)
        commit, gated = self.fetch(parsed, self.into / subfolder, select)
        self.also[subfolder or "."] = str(parsed.pinned(commit))
        return gated

    def fetch_companion(self, companion: Companion, source: str) -> None:
        def select(names: Iterable[str], where: str) -> list[str]:
            found = (select_files if companion.weights else select_descriptions)(names, where)
            return [name for name in found if not companion.names or name in companion.names]

        try:
            gated = self.fetch_also(companion.subfolder, source, select)
        except KdkitError as error:
            raise KdkitError(
                "KD-TEACH-023",
                f"the model needs files of another repository, {companion.source}: {error.what}",
                where=error.where,
                why=error.why,
                fix=f"put {companion.purpose} of {companion.source} into the folder; or: {error.fix}",
                code=error.code,
            ) from error
        self.gated |= gated and companion.weights
