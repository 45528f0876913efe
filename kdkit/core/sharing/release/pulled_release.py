"""A downloaded release: its checks, its required plugins, and its copy in a project with an incomplete pull."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.plugin_system.installed import BUILT_IN, normal
from kdkit.core.project.lineage import Lineage, Origin
from kdkit.core.project.registry.load import load_registry
from kdkit.core.project.registry.lock import Lock
from kdkit.core.project.registry.pinned import NO_PROVIDER, pinned
from kdkit.core.project.registry.schema import Registry
from kdkit.core.project.versions import is_version_name
from kdkit.core.sharing.kinds import KINDS, is_known_kind
from kdkit.core.sharing.release.gates import gates_among
from kdkit.core.sharing.release.layout import LOCK, RECIPE, RECORD, REGISTRY, RESULTS, SAMPLES, TASK, Record
from kdkit.core.sharing.release.registry_text import registry_text, unpublished

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.project import Project
    from kdkit.core.sharing.hub import Downloaded


_NEEDED = (REGISTRY, LOCK, TASK, SAMPLES)


def record_alone(paths: Iterable[str]) -> list[str]:
    """Of the paths of a repository, the record's."""
    return [path for path in paths if path == RECORD]


def wanted_files(record: Record, paths: Iterable[str]) -> list[str]:
    """Of the paths of a repository, those that a project is made of; no form for other libraries, nothing unlisted."""
    wanted = {*record.student, *_NEEDED, RECIPE, RESULTS, *gates_among(record.files)} & record.files.keys() | {RECORD}
    return [path for path in paths if path in wanted]


def read_record(path: Path, repo: str) -> Record:
    """The record of a release.

    Raises:
        KdkitError: no release of kdkit, one of another format, or one with an invalid name of a version or file.
    """
    if not path.is_file():
        raise KdkitError(
            "KD-REL-016",
            "this is no release of kdkit",
            where=repo,
            why=f"it has no {RECORD}",
            fix="to teach from it: kdkit add-teacher NAME --from hf:" + repo,
            code=ExitCode.MISSING,
        )
    try:
        record = Record.load(path)
    except ValueError as error:
        raise _bad(repo, f"{type(error).__name__}: {error}") from None
    if not is_version_name(record.version) or record.lineage.version != record.version:
        raise _bad(repo, f"'{record.version}' cannot be its version's name")
    for name in record.student:
        if "/" in name or name == RECORD or name not in record.files:
            raise _bad(repo, f"'{name}' is no file at its top")
        if not is_known_kind(name):
            raise _bad(repo, f"'{name}' is no file of a student: {KINDS}")
    lacking = [name for name in _NEEDED if name not in record.files]
    if lacking or not record.student:
        raise _bad(repo, f"it has no {lacking[0] if lacking else 'student'}")
    return record


def check_release(got: Downloaded, record: Record, repo: str) -> None:
    """Compare the fetched files with the record. Raises: KdkitError for a file that is missing or was changed."""
    check_files(got, record, repo, wanted_files(record, record.files))


def check_files(got: Downloaded, record: Record, repo: str, names: Iterable[str]) -> None:
    """See :func:`check_release`; the files ``names`` alone."""
    for name in names:
        expected = record.files[name].sha256
        if got.files.get(name) != expected:
            raise KdkitError(
                "KD-REL-017",
                f"'{name}' is not what was pushed; nothing was pulled",
                where=repo,
                why=f"{RECORD} has sha256 {expected}; "
                + (f"the file has {got.files[name]}" if name in got.files else "there is no file"),
                fix="pull what kdkit pushed, by its tag or commit: --revision R",
                code=ExitCode.FOUND,
            )


def _bad(repo: str, why: str) -> KdkitError:
    return KdkitError(
        "KD-REL-018",
        "this release cannot be pulled",
        where=repo,
        why=f"{RECORD}: {why}",
        fix="is it of a newer kdkit? pip install -U kdkit",
        code=ExitCode.FOUND,
    )


@dataclass(frozen=True)
class Lacking:
    """A name that no installed plugin provides.

    Attributes:
        what: such as ``student 'toy'``.
        plugins: ``distribution==version`` that provides it; if unknown, all plugins of the author that are not
            installed.
    """

    what: str
    plugins: tuple[str, ...]

    def __str__(self) -> str:
        fix = f"kdkit install {' '.join(self.plugins)}" if self.plugins else "the release names no plugin for it"
        return f"{self.what} is provided by no installed plugin: {fix}"


def lacking_plugins(catalogue: Catalogue, lineage: Lineage, registry: Registry, lock: Lock) -> tuple[Lacking, ...]:
    """Names of a release that no installed plugin provides."""
    here = {normal(record.distribution) for record in catalogue.records if record.status == "ok"} | {BUILT_IN}
    had = {normal(name): version for name, version in lineage.environment.plugins.items()}
    absent = tuple(f"{name}=={version}" for name, version in sorted(had.items()) if name not in here)
    found = {}
    for family, name, provider in dict.fromkeys(_needs(lineage, registry, lock)):
        try:
            catalogue.get(family, name)
        except KdkitError:
            owner, _, version = (provider or lock.providers.get(family, {}).get(name, "")).partition("@")
            version = version or had.get(normal(owner), "")
            known = owner and normal(owner) not in here
            exact = (f"{owner}=={version}" if version else owner,)
            found[family, name] = Lacking(f"{family} '{name}'", exact if known else absent)
    return tuple(found.values())


def _needs(lineage: Lineage, registry: Registry, lock: Lock) -> Iterator[tuple[str, str, str]]:
    """(family, name, ``distribution@version`` or empty)."""
    yield "student", lineage.student.family, ""
    for recipe in lineage.recipe.in_order:
        for part in recipe.losses:
            yield "loss", part.name, ""
        if recipe.aligner:
            yield "aligner", recipe.aligner.name, ""
        yield "policy", (registry.trust.applied(recipe.trust) if registry.trust else recipe.trust).policy, ""
    for name, facts in lock.teachers.items():
        if name in registry.teachers:
            yield "loader", facts.loader, ""
            if facts.provider != NO_PROVIDER:
                yield "teacher", name, facts.provider


PENDING = "pulled"
"""Folder below ``.kdkit`` while base or features are not fetched yet."""
_ORIGIN = "origin.json"


@dataclass(frozen=True)
class PulledRelease:
    """A release in ``folder``: complete, or the files that :meth:`keep` copies."""

    folder: Path
    record: Record
    origin: Origin
    registry: Registry
    lock: Lock

    @classmethod
    def read(cls, folder: Path, record: Record, origin: Origin) -> PulledRelease:
        """Read registry and lock beside a checked ``record``."""
        return cls(folder, record, origin, load_registry(folder / REGISTRY), Lock.load(folder / LOCK))

    @property
    def unpublished(self) -> tuple[str, ...]:
        """See :func:`unpublished`."""
        return unpublished(self.registry, self.lock)

    def lacking(self, catalogue: Catalogue) -> tuple[Lacking, ...]:
        """See :func:`lacking_plugins`; each name must come from where the release pins it to."""
        return lacking_plugins(pinned(catalogue, self.lock), self.record.lineage, self.registry, self.lock)

    def registry_text(self, with_features: Collection[str] = ()) -> str:
        """See :func:`registry_text`."""
        recipe_file = RECIPE in self.record.files
        return registry_text(
            self.registry, self.lock, self.origin, recipe_file=recipe_file, with_features=with_features
        )

    def keep(self, project: Project) -> None:
        """Copy it into a new project, so that an interrupted pull can resume."""
        kept = project.state / PENDING
        for name in (RECORD, REGISTRY, LOCK):
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, kept / name)
        (kept / _ORIGIN).write_bytes(self.origin.to_bytes())


def pending_release(project: Project) -> PulledRelease | None:
    """The release of a project with an incomplete pull, or None."""
    kept = project.state / PENDING
    try:
        record = Record.load(kept / RECORD)
        origin = Origin.from_bytes((kept / _ORIGIN).read_bytes())
        return PulledRelease.read(kept, record, origin)
    except (OSError, ValueError, KdkitError):
        return None


def forget_pending(project: Project) -> None:
    """Mark the pull as complete."""
    shutil.rmtree(project.state / PENDING, ignore_errors=True)
