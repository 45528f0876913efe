"""``kdkit pull``: make a project from a release; its student becomes the current version."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import new_folder, write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import Hub, connect, hub_errors, with_retries
from kdkit.core.base.locks import file_lock
from kdkit.core.base.result import Result, Section
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.lineage import EarlierHistory, Origin
from kdkit.core.project.project import REGISTRY as PROJECT_REGISTRY
from kdkit.core.project.project import Project
from kdkit.core.project.versions import HISTORY, LINEAGE, Versions
from kdkit.core.project.versions import RESULTS as PUBLISHED
from kdkit.core.sharing.hub import download
from kdkit.core.sharing.hub.client import quiet_client
from kdkit.core.sharing.release.finished_pull import finished_pull, pulled_origin, uncommented
from kdkit.core.sharing.release.gates import gates_among, keep_gates
from kdkit.core.sharing.release.layout import LOCK, RECIPE, RECORD, RESULTS, SAMPLES, TASK, AdapterBase, below_kdkit
from kdkit.core.sharing.release.pulled_release import (
    Lacking,
    PulledRelease,
    check_release,
    forget_pending,
    pending_release,
    read_record,
    record_alone,
    wanted_files,
)

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.sharing.features import PulledColumn


@dataclass(frozen=True)
class Pulled(Result):
    """A pulled project.

    Attributes:
        root: its folder.
        version: its current version, named as in the release.
        origin: Hub, repository, commit and version of the release.
        teachers: in its registry; ``unpublished``: comments there, because only the author has their files.
        columns: pulled features.
        lacking: names that no installed plugin provides.
    """

    root: Path
    version: str
    origin: Origin
    teachers: tuple[str, ...]
    unpublished: tuple[str, ...]
    columns: tuple[PulledColumn, ...]
    lacking: tuple[Lacking, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "project": self.root,
            "version": self.version,
            "origin": asdict(self.origin),
            "teachers": list(self.teachers),
            "unpublished_teachers": list(self.unpublished),
            "features": [asdict(column) for column in self.columns],
            "lacking": [{"what": lacking.what, "plugins": list(lacking.plugins)} for lacking in self.lacking],
        }

    def sections(self) -> list[Section]:
        """Version, teachers, features, and what to do next."""
        source = f"{self.version} of {self.origin.repository} at {self.origin.commit[:12]}"
        parts = [f"{self.root}: {source} is its current version", f"teachers: {', '.join(self.teachers) or 'none'}"]
        if self.unpublished:
            parts.append(f"not published, so comments in registry.yaml: {', '.join(self.unpublished)}")
        parts += [f"features of {c.teacher}: {c.rows} samples, {c.texts} prompts" for c in self.columns]
        return [*parts, "next: add data and teachers to registry.yaml, then kdkit distill --incremental"]


def pull_student(
    repo: str,
    into: Path,
    *,
    revision: str = "main",
    features: str | None = None,
    hub: Hub | None = None,
    catalogue: Catalogue | None = None,
    reporter: Reporter | None = None,
) -> Pulled:
    """Make the project ``into`` from the release in ``repo``; it appears whole, or not at all.

    The base of adapters and the features are fetched afterwards; if that is interrupted, the same call resumes with
    the same release. A finished call that is repeated changes nothing.

    Args:
        repo: ``ORG/NAME`` of a model repository that ``kdkit push`` made.
        into: a folder that does not exist, is empty, or is the unchanged project of this release.
        revision: branch, tag or commit; the commit is recorded.
        features: a data set repository with columns, see :func:`kdkit.core.sharing.features.pull_features`.
        hub: by default :func:`kdkit.core.sharing.hub.connect`.
        catalogue: of the available plugins; by default all installed ones.

    Raises:
        KdkitError: ``into`` is in use; no release; a file that is missing, not listed or changed; as
            :func:`kdkit.core.sharing.hub.download`. If the base or the features cannot be fetched, the project stays.
    """
    hub, reporter, into = hub or connect(), reporter or Silent(), into.absolute()
    release = _pulled_before(hub, repo, revision, into, reporter)
    if release is None:
        _require_empty(into)
        release = _fetch_project(hub, repo, revision, into, reporter, keep=bool(features))
    columns: tuple[PulledColumn, ...] = ()
    if release.record.base is not None or features:
        columns = _fetch_rest(hub, release, into, features, reporter)
    else:  # an interrupted pull wanted features, this one does not
        forget_pending(Project(into))
    shown = {*(column.teacher for column in columns), *uncommented(Project(into), release)}
    hidden = tuple(name for name in release.unpublished if name not in shown)
    return Pulled(
        root=into,
        version=release.record.version,
        origin=release.origin,
        teachers=tuple(name for name in release.registry.teachers if name not in hidden),
        unpublished=hidden,
        columns=columns,
        lacking=release.lacking(catalogue or load_catalogue()),
    )


def _pulled_before(hub: Hub, repo: str, revision: str, into: Path, reporter: Reporter) -> PulledRelease | None:
    """The release of the project ``into``, if an earlier call made it.

    Raises:
        KdkitError: the project is of another commit, or was changed since.
    """
    project = Project(into)
    release = pending_release(project)
    if release is not None and release.origin.repository == repo:
        reporter.say(f"resuming {repo} at {release.origin.commit[:12]}: the project exists already")
        return release
    origin = pulled_origin(project, repo)
    if origin is None:
        return None
    release, difference = finished_pull(hub, origin, revision, project, reporter)
    if release is None:
        raise _in_use(into, difference)
    reporter.say(f"{repo} at {origin.commit[:12]} is pulled already, unchanged")
    return release


def _fetch_project(hub: Hub, repo: str, revision: str, into: Path, reporter: Reporter, *, keep: bool) -> PulledRelease:
    """Make the project; ``keep``: remember the release until its features are fetched."""
    with system_errors(str(into)), staging(into) as (first_folder, folder):
        _require_empty(into)  # another pull may just have finished
        first = download(hub, repo, "model", revision, first_folder, select=record_alone, reporter=reporter)
        record = read_record(first.folder / RECORD, repo)
        got = download(
            hub, repo, "model", first.commit, folder, select=partial(wanted_files, record), reporter=reporter
        )
        check_release(got, record, repo)
        origin = Origin(repo, got.commit, record.version, hub.endpoint)
        release = PulledRelease.read(got.folder, record, origin)
        with new_folder(into) as draft:
            _write_project(draft, release)
            if keep or record.base is not None:
                release.keep(Project(draft))
    return release


def _fetch_rest(
    hub: Hub, release: PulledRelease, into: Path, features: str | None, reporter: Reporter
) -> tuple[PulledColumn, ...]:
    with Project(into).exclusive("kdkit pull"):
        if release.record.base is not None:
            fetch_base(hub, release.record.base, into, reporter)
        columns = _columns(into, features, hub, reporter) if features else ()
        if columns:
            _uncomment_teachers(into, release, [column.teacher for column in columns], reporter)
        forget_pending(Project(into))
    return columns


def _uncomment_teachers(root: Path, release: PulledRelease, teachers: Collection[str], reporter: Reporter) -> None:
    """Unpublished teachers are comments in ``registry.yaml`` until their features are pulled."""
    path, before = root / PROJECT_REGISTRY, uncommented(Project(root), release)
    if path.read_text(encoding="utf-8") == release.registry_text(before):
        write_atomically(path, release.registry_text({*before, *teachers}).encode())
    else:  # edited since an interrupted pull
        reporter.warn(f"registry.yaml was edited: remove '# ' before the lines of {', '.join(teachers)}")


def _columns(root: Path, features: str, hub: Hub, reporter: Reporter) -> tuple[PulledColumn, ...]:
    """Pull columns into the new project; errors mention that the project exists."""
    from kdkit.core.sharing.features import pull_features

    reporter.say(f"{root} is complete except for features; if interrupted, run the same command again")
    try:
        return pull_features(Project(root), features, hub=hub, reporter=reporter)
    except KdkitError as error:
        error.why = "; ".join(filter(None, (error.why, f"the project exists: {root}")))
        error.fix = "; ".join(filter(None, (error.fix, "run the same command again to fetch the features")))
        raise


def _require_empty(into: Path) -> None:
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise _in_use(into, "a pulled project needs a folder of its own")


def _in_use(into: Path, why: str) -> KdkitError:
    is_project = (into / PROJECT_REGISTRY).is_file()
    return KdkitError(
        "KD-REL-015",
        "this is in use",
        where=str(into),
        why=why,
        fix="choose another: --to DIR"
        + ("; for shared features in this project: kdkit features pull ORG/NAME" if is_project else ""),
        code=ExitCode.FOUND,
    )


def _write_project(root: Path, release: PulledRelease) -> None:
    record = release.record
    (root / PROJECT_REGISTRY).write_text(release.registry_text(), encoding="utf-8")
    shutil.copyfile(release.folder / LOCK, root / below_kdkit(LOCK))
    if RECIPE in record.files:
        shutil.copyfile(release.folder / RECIPE, root / below_kdkit(RECIPE))
    versions = Versions(Project(root))
    with versions.writing(record.version, refused=False) as folder:
        (folder / "student").mkdir()
        for name in record.student:
            shutil.copyfile(release.folder / name, folder / "student" / name)
        for name in (TASK, SAMPLES):
            shutil.copyfile(release.folder / name, folder / below_kdkit(name))
        if RESULTS in record.files:
            shutil.copyfile(release.folder / RESULTS, folder / PUBLISHED)
        earlier = EarlierHistory(record.origin, record.history[:-1], release.origin)
        (folder / HISTORY).write_bytes(earlier.to_bytes())
        (folder / LINEAGE).write_bytes(record.lineage.to_bytes())
    # beside the manifest: new calibration samples may decide otherwise
    keep_gates(release.folder, gates_among(record.files), versions.get(record.version).folder)
    versions.make_current(record.version)


_WANTED = (".json", ".safetensors")
"""Suffixes of the fetched base files; tokenizer and template come with the student."""


def fetch_base(hub: Hub, base: AdapterBase, root: Path, reporter: Reporter) -> Path:
    """Fetch ``base`` into the Hub's cache, unless it is there already. The student's loader verifies its hash.

    Args:
        root: the pulled project, for messages.

    Raises:
        KdkitError: neither this Hub nor the cache has it.
    """

    repo, commit = base.repository, base.commit
    try:
        with quiet_client(reporter), hub_errors(repo, hub, page=hub.url(repo)):
            reporter.say(f"fetching {repo} at {commit[:12]}, the base of the adapters")
            listed = with_retries(lambda: hub.api.list_repo_files(repo, revision=commit))
            wanted = [name for name in listed if "/" not in name and name.endswith(_WANTED)]
            return Path(hub.api.snapshot_download(repo, revision=commit, allow_patterns=wanted))
    except KdkitError as error:
        if (cached := _cached(repo, commit)) is not None:
            return cached
        error.why = "; ".join(filter(None, (error.why, f"the project exists: {root}, without the base of its student")))
        error.fix = "; ".join(filter(None, (error.fix, f"then: hf download {repo} --revision {commit}")))
        raise


def _cached(repo: str, commit: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json", revision=commit)
    return Path(found).parent if isinstance(found, str) else None


@contextmanager
def staging(into: Path) -> Iterator[tuple[Path, Path]]:
    """Two new folders, for the record and the files of a release, locked against other pulls into ``into``.

    They lie in ``.NAME.pulled`` beside ``into``, where an interrupted pull finds its finished downloads.

    Raises:
        KdkitError: another process is pulling into the same folder.
    """
    room = into.with_name(f".{into.name}.pulled")
    busy, folders = room.with_name(f"{room.name}.busy"), (room / "record", room / "release")
    with file_lock(busy) as free:
        if free is False:
            raise KdkitError(
                "KD-REL-021",
                "another 'kdkit pull' is making this project",
                where=str(into),
                fix="wait for it to end, or choose another folder: --to DIR",
                code=ExitCode.FOUND,
            )
        try:
            _remove(folders)
            room.mkdir(exist_ok=True)
            yield folders
        finally:
            _remove(folders)
            with suppress(OSError):  # not empty
                room.rmdir()
            busy.unlink(missing_ok=True)


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
