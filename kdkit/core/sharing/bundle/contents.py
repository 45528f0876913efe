"""The files of a project that go into a bundle: only those that kdkit wrote or that its registry names, no image."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.evaluation.answering.gate_file import GATES, read_gates
from kdkit.core.project.lineage import EarlierHistory
from kdkit.core.project.manifest import MANIFEST, Manifest
from kdkit.core.project.recipe_file import is_path, recipe_file, stage_recipes
from kdkit.core.project.registry.lock import FileFact
from kdkit.core.project.versions import CORRECTIONS, HISTORY, Version, Versions
from kdkit.core.sharing.bundle.manifest import REQUIREMENTS, require_known_kinds
from kdkit.core.sharing.bundle.needs import plugin_pins, without_wheel
from kdkit.core.sharing.kinds import KINDS, is_known_kind
from kdkit.core.teachers.files import list_folder

if TYPE_CHECKING:
    from kdkit.core.features import Column, FeatureStore
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.lock import Lock, LockedFiles, LockedTeacher

PARTS = ("teachers", "features", "versions")
"""What ``--with`` can name. ``registry.yaml``, the lock, the recipe and the requirements are always inside."""


@dataclass(frozen=True)
class Item:
    """One file of a bundle.

    Attributes:
        path: in the bundle and in the project.
        content: source file, or the bytes.
        size: bytes.
        sha256: expected digest (of a teacher's file: the locked one); empty if unknown.
    """

    path: str
    content: Path | bytes
    size: int
    sha256: str = ""


def collect(
    project: Project,
    parts: Collection[str] = PARTS,
    *,
    all_versions: bool = False,
    wheels: Path | None = None,
    reporter: Reporter | None = None,
) -> tuple[Item, ...]:
    """The files of a bundle, always in the same order; reads no file's content and writes nothing.

    Args:
        parts: of :data:`PARTS`.
        all_versions: every promoted version instead of the current one alone.
        wheels: a folder of wheels, as ``pip download`` makes it.
        reporter: takes warnings.

    Raises:
        KdkitError: an unknown part, a teacher that is not locked or was changed since, a recipe or a file of the
            student's config that lies outside the project, a folder without wheels.
    """
    for part in parts:
        if part not in PARTS:
            raise KdkitError("KD-BUNDLE-001", f"'{part}' is no part of a project", fix=did_you_mean(part, PARTS))
    reporter = reporter or Silent()
    required = plugin_pins()
    lines = "".join(f"{line}\n" for line in required).encode()
    items = [*_project(project, reporter), Item(REQUIREMENTS, lines, len(lines))]
    if "teachers" in parts:
        items += _teachers(project, reporter)
    if "features" in parts:
        items += _features(project, reporter)
    if "versions" in parts:
        items += _versions(project, all_versions)
    if wheels is not None:
        items += _wheels(wheels)
        if lacking := without_wheel(required, (path.name for path in wheels.glob("*.whl"))):
            reporter.warn(f"no wheel of {', '.join(lacking)} in {wheels}")
    fix = "leave its part out: --with PARTS; the plugin of a student must save files of these kinds"
    require_known_kinds((item.path for item in items), str(project.root), fix)
    return tuple(items)


def _file(project: Project, path: Path) -> Item:
    return Item(path.relative_to(project.root).as_posix(), path, path.stat().st_size)


def _folder(project: Project, folder: Path, reporter: Reporter) -> list[Item]:
    """All files of known kinds below ``folder`` except hidden ones: drafts of a killed process."""
    names = [name for name in list_folder(folder, str(folder)) if not name.rpartition("/")[2].startswith(".")]
    if left := [name for name in names if not is_known_kind(name)]:
        where = folder.relative_to(project.root).as_posix()
        reporter.warn(f"not bundled from {where}: {', '.join(left[:5])}{' ...' * (len(left) > 5)}; {KINDS}")
    return [_file(project, folder / name) for name in names if is_known_kind(name)]


def _project(project: Project, reporter: Reporter) -> list[Item]:
    registry = project.registry
    named = [name for name in _recipes(project) if is_path(name)]
    paths = [project.registry_path, project.lock_path]
    for name in dict.fromkeys([*named, *_paths_in(registry.student.config)]):
        paths.append(_inside(project, name))
    items: dict[str, Item] = {}
    for path in paths:
        found = _folder(project, path, reporter) if path.is_dir() else [_file(project, path)] if path.exists() else []
        items |= {item.path: item for item in found}
    return list(items.values())


def _recipes(project: Project) -> Iterator[str]:
    """The registry's recipe and those that its stages name; an unreadable file is bundled as it is."""
    own = project.registry.recipe
    if is_path(own):
        _inside(project, own)  # before it is read
    yield own
    with suppress(KdkitError):
        yield from stage_recipes(recipe_file(own, project.catalogue, project.root))


def _paths_in(value: Any) -> Iterator[str]:
    """Project files that a student's config names (docs/reference/registry.md)."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _paths_in(item)
    elif isinstance(value, str) and value.startswith(("./", "../")):
        yield value


def _inside(project: Project, name: str) -> Path:
    root = project.root.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root) or path == root:
        raise KdkitError(
            "KD-BUNDLE-002",
            f"'{name}' lies outside the project",
            where=str(project.registry_path),
            why="a bundle holds the project's own files alone",
            fix="copy it into the project and name it there",
        )
    if not path.exists():
        raise KdkitError(
            "KD-BUNDLE-003",
            "no such file",
            where=str(path),
            why="registry.yaml names it",
            code=ExitCode.MISSING,
            fix="correct the name in registry.yaml, or put the file back",
        )
    return project.root / path.relative_to(root)


def _teachers(project: Project, reporter: Reporter) -> Iterator[Item]:
    """The locked files, also of models that the student starts from."""
    from kdkit.core.project.registry.chosen import chosen_teacher
    from kdkit.core.teachers.open import require_same_choice

    lock = project.lock
    for name in sorted(project.registry.teachers):
        chosen = chosen_teacher(project, name)
        if chosen.unavailable and name not in lock.teachers:
            reporter.warn(f"teacher '{name}' is left out: {chosen.unavailable}")
            continue
        locked = lock.teacher(name)
        require_same_choice(chosen, locked)
        if held_by_author(project, name, locked):
            reporter.warn(f"teacher '{name}' has no files here: it teaches what its features hold")
            continue
        if locked.gated:
            reporter.warn(f"teacher '{name}' is gated: its terms also bind the recipients of this bundle")
        yield from _locked_files(project, project.artifacts / name, locked)
    for name, files in sorted(lock.initial_weights.items()):
        if files.gated:
            reporter.warn(f"model '{name}' is gated: its terms also bind the recipients of this bundle")
        yield from _locked_files(project, project.initial_weights(name), files)


def _locked_files(project: Project, folder: Path, locked: LockedFiles) -> Iterator[Item]:
    for file, fact in sorted(locked.files.items()):
        path = folder / file
        yield Item(path.relative_to(project.root).as_posix(), path, fact.size, fact.sha256)


def held_by_author(project: Project, name: str, locked: LockedTeacher) -> bool:
    """Whether only the author of a pulled student has the teacher's files."""
    return locked.held_by_author and not (project.artifacts / name).is_dir()


def _features(project: Project, reporter: Reporter) -> Iterator[Item]:
    """The current column of each teacher, removed teachers included.

    Columns of an outdated fingerprint, and columns that reveal texts, are skipped.
    """
    from kdkit.core.features import FeatureStore
    from kdkit.core.features.extract.answers import answers_texts

    store, lock = FeatureStore(project.features), project.lock
    for teacher in store.teachers:
        column = _column_in_use(store, lock, teacher)
        if column is None:
            continue
        if answers_texts(column.signals):
            reporter.warn(f"features of '{teacher}' are left out: the texts of your data can be read from them")
            continue
        name = column.folder.name.encode()
        pointer = (project.features / teacher / "current").relative_to(project.root).as_posix()
        yield Item(pointer, name, len(name))
        yield from _folder(project, column.folder, reporter)


def _column_in_use(store: FeatureStore, lock: Lock, teacher: str) -> Column | None:
    locked = lock.teachers.get(teacher)
    fingerprints = [header.fingerprint for header in store.headers(teacher)]
    if locked is None:
        return store.column(teacher)
    return store.column(teacher, locked.fingerprint) if locked.fingerprint in fingerprints else None


def _versions(project: Project, everything: bool) -> Iterator[Item]:
    """Versions without their corrections, which contain texts of samples."""
    versions = Versions(project)
    current = versions.current()
    if current is None:
        return
    yield _file(project, versions.root / "current")
    for name in versions.names() if everything else (current.name,):
        yield from _version(project, versions, versions.get(name), alone=not everything)


def _version(project: Project, versions: Versions, version: Version, *, alone: bool) -> Iterator[Item]:
    """Files of the manifest without corrections; ``alone`` adds the lineages of its ancestors."""
    files = {name: fact for name, fact in version.manifest.files.items() if name != CORRECTIONS}
    prefix = version.folder.relative_to(project.root).as_posix()
    for name, fact in files.items():
        yield Item(f"{prefix}/{name}", version.folder / name, fact.size, fact.sha256)
    if alone and not version.earlier and (lineages := versions.history(version)[:-1]):
        history = EarlierHistory(versions.origin(version), lineages).to_bytes()
        files[HISTORY] = FileFact(size=len(history), sha256=hashlib.sha256(history).hexdigest())
        yield Item(f"{prefix}/{HISTORY}", history, len(history))
    for name in read_gates(version.folder):
        yield _file(project, version.folder / GATES / name)
    manifest = Manifest(files).to_bytes()
    yield Item(f"{prefix}/{MANIFEST}", manifest, len(manifest))


def _wheels(folder: Path) -> list[Item]:
    found = sorted(folder.glob("*.whl"))
    if not found:
        raise KdkitError(
            "KD-BUNDLE-004",
            "no wheels here",
            where=str(folder),
            fix="pip download --only-binary=:all: --dest DIR -r requirements.txt; see docs/howto/offline.md",
            code=ExitCode.MISSING,
        )
    return [Item(f"wheels/{path.name}", path, path.stat().st_size) for path in found]
