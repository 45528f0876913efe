"""A teacher's files in one relocatable folder: everything that its loader needs, and nothing that is a pickle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kdkit.core.base.atomic import disk_errors
from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter
from kdkit.core.project.registry.chosen import ChosenTeacher
from kdkit.core.project.registry.lock import FileFact, LicenseSeen, LockedTeacher
from kdkit.core.teachers.card import license_seen
from kdkit.core.teachers.files import bring, describe_files, first_difference, list_folder
from kdkit.core.teachers.hub import Select, snapshot
from kdkit.core.teachers.pickles import convert_pickles
from kdkit.core.teachers.select import select_descriptions, select_files
from kdkit.core.teachers.source import Source, parse_source, source_folder
from kdkit.core.teachers.text_tower import bring_text_tower


@dataclass(frozen=True)
class Materialized:
    """A folder that holds a whole teacher.

    Attributes:
        folder: where it is.
        files: relative path -> size and sha256.
        commit: of its repository; None for a folder.
        license: what the files say, and where.
        gated: the Hub asked to accept terms.
        also: subfolder -> other source that files came from, at its commit.
    """

    folder: Path
    files: Mapping[str, FileFact]
    commit: str | None
    license: LicenseSeen | None
    gated: bool = False
    also: Mapping[str, str] = field(default_factory=dict)


def fetch(
    chosen: ChosenTeacher,
    project: Path,
    into: Path,
    reporter: Reporter,
    *,
    locked: LockedTeacher | None = None,
    offline: bool = False,
) -> Materialized:
    """Bring all files of ``chosen`` into the empty folder ``into``.

    Args:
        chosen: the teacher.
        project: what a ``local:`` source is relative to.
        into: gets the files; the caller removes it when this raises.
        reporter: where progress is said.
        locked: fetch the very commits that are locked.
        offline: use the Hub's cache alone.

    Raises:
        KdkitError: what is missing, forbidden or not to be trusted, and where.
    """
    carrier = _Carrier(project, into, reporter, offline)
    also = {**chosen.spec.extra_sources} if chosen.spec and not _overridden(chosen) else {}
    also |= locked.also if locked else {}
    with disk_errors(str(into)):
        main = parse_source(chosen.source, chosen.name).pinned(locked.commit if locked else None)
        commit = carrier.carry("", main, select_files)
        gated = carrier.gated
        for subfolder, source in also.items():
            carrier(subfolder, source, select_descriptions)
        bring_text_tower(into, carrier)
        made = convert_pickles(into, str(main))
        files = describe_files(into)
    files |= {name: files[name].model_copy(update={"made_from": fact}) for name, fact in made.items()}
    license, says_gated = license_seen(into)
    return Materialized(into, files, commit, license, gated or says_gated, carrier.also)


def _overridden(chosen: ChosenTeacher) -> bool:
    """The catalogue's other sources belong to the catalogue's source."""
    return chosen.spec is not None and chosen.source != chosen.spec.source


class _Carrier:
    """Brings files of any source, and remembers the commits."""

    def __init__(self, project: Path, into: Path, reporter: Reporter, offline: bool) -> None:
        self.project, self.into, self.reporter, self.offline = project, into, reporter, offline
        self.gated = False
        self.also: dict[str, str] = {}

    def __call__(self, subfolder: str, source: str, select: Select) -> None:
        """Other sources than the main one; see :data:`kdkit.core.teachers.text_tower.Bring`."""
        parsed = parse_source(source)
        commit = self.carry(subfolder, parsed, select)
        self.also[subfolder or "."] = str(parsed.pinned(commit))

    def carry(self, subfolder: str, source: Source, select: Select) -> str | None:
        """Bring what ``select`` chooses to ``into/subfolder``; the commit, if there are commits."""
        target = self.into / subfolder
        if source.kind == "hf":
            self.reporter.say(f"fetching {source}")
            found = snapshot(source, select, offline=self.offline)
            self.gated |= found.gated
            self._copy(found.names, found.folder, target, link=True)
            return found.commit
        folder = source_folder(source, self.project)
        self._copy(select(list_folder(folder, str(source)), str(source)), folder, target, link=False)
        return None

    def _copy(self, names: Iterable[str], folder: Path, target: Path, *, link: bool) -> None:
        for name in names:
            bring(name, folder, target, link=link)


def same_files(folder: Path, expected: Mapping[str, FileFact], where: str, fix: str) -> None:
    """Check ``folder`` against ``expected``.

    Raises:
        KdkitError: naming the first file that differs, and both hashes.
    """
    difference = first_difference(folder, expected)
    if difference:
        name, wanted, found = difference
        raise KdkitError(
            "KD-TEACH-002",
            f"the file '{name}' changed since it was locked",
            where=where,
            why=f"registry.lock has sha256 {wanted}; the file here has {found}",
            fix=fix,
        )
