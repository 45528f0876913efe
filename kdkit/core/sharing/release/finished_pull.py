"""A repeated pull: whether the folder holds the finished pull of the same release, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.hub import Hub
from kdkit.core.contracts import Reporter
from kdkit.core.project.lineage import Origin
from kdkit.core.project.manifest import STUDENT
from kdkit.core.project.project import Project
from kdkit.core.project.registry.load import load_registry
from kdkit.core.project.versions import Versions
from kdkit.core.sharing.hub import download
from kdkit.core.sharing.release.layout import LOCK, RECIPE, RECORD, REGISTRY, SAMPLES, TASK, below_kdkit
from kdkit.core.sharing.release.pulled_release import PulledRelease, check_files, read_record


def pulled_origin(project: Project, repo: str) -> Origin | None:
    """The release that the project's current version was pulled from, if it is one of ``repo``."""
    with suppress(KdkitError, OSError):
        version = Versions(project).current()
        earlier = version.earlier if version is not None else None
        if earlier is not None and earlier.release is not None and earlier.release.repository == repo:
            return earlier.release
    return None


def finished_pull(
    hub: Hub, origin: Origin, revision: str, project: Project, reporter: Reporter
) -> tuple[PulledRelease | None, str]:
    """The release that ``project`` was pulled from, or None and what differs.

    Fetches the record, the registry and the lock of the release, and compares them with the project.

    Args:
        origin: see :func:`pulled_origin`.
        revision: branch, tag or commit that is asked for now.

    Raises:
        KdkitError: as :func:`kdkit.core.sharing.hub.download`; a file that is not what was pushed.
    """
    repo, small = origin.repository, (RECORD, REGISTRY, LOCK)
    with TemporaryDirectory() as scratch:
        got = download(
            hub,
            repo,
            "model",
            revision,
            Path(scratch) / "release",
            select=lambda paths: [path for path in paths if path in small],
            reporter=reporter,
        )
        if got.commit != origin.commit:
            return None, f"it was pulled at {origin.commit[:12]}; {revision} is {got.commit[:12]}"
        record = read_record(got.folder / RECORD, repo)
        check_files(got, record, repo, (REGISTRY, LOCK))
        release = PulledRelease.read(got.folder, record, replace(origin, version=record.version))
    changed = next(_changes(project, release), None)
    return (release, "") if changed is None else (None, f"{changed} has changed since it was pulled")


def uncommented(project: Project, release: PulledRelease) -> tuple[str, ...]:
    """Unpublished teachers of the release that ``registry.yaml`` has as entries, not as comments."""
    try:
        entries = load_registry(project.registry_path).teachers
    except (KdkitError, OSError):
        return ()
    return tuple(name for name in release.unpublished if name in entries)


def _changes(project: Project, release: PulledRelease) -> Iterator[str]:
    """Paths of pulled files that are not as the pull wrote them."""
    record = release.record
    try:
        text = project.registry_path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    if text != release.registry_text(uncommented(project, release)):
        yield project.registry_path.name
    for name in (LOCK, RECIPE):
        if name in record.files and _hash(project.root / below_kdkit(name)) != record.files[name].sha256:
            yield below_kdkit(name)
    versions = Versions(project)
    if (*versions.names(), *versions.candidates()) != (record.version,):
        yield "versions"
        return
    version = versions.get(record.version)
    try:
        version.check()
    except KdkitError as error:
        yield error.where.removeprefix(f"{project.root}/")
        return
    places = {f"{STUDENT}/{name}": name for name in record.student}
    places |= {below_kdkit(name): name for name in (TASK, SAMPLES)}
    for name, published in places.items():
        if name not in version.manifest.files or version.manifest.files[name].sha256 != record.files[published].sha256:
            yield f"versions/{version.name}/{name}"


def _hash(path: Path) -> str:
    return sha256_of(path) if path.is_file() else ""
