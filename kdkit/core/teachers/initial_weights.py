"""Models that the student's config names as its initial weights: fetched as teachers are, and pinned by hash.

A student family declares the keys of its config that name such models (``StudentSpec.weights``). A name is a teacher of
the project, or else an entry of the catalogue. Its files lie beside those of teachers; it does not become one.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import new_folder
from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import LoaderSpec, Reporter, Silent, StudentSpec
from kdkit.core.project.registry.chosen import ChosenTeacher, choose
from kdkit.core.project.registry.load import line_of
from kdkit.core.project.registry.lock import LockedFiles
from kdkit.core.project.registry.schema import TeacherEntry, valid_name
from kdkit.core.teachers.fetch import fetch
from kdkit.core.teachers.files import is_license_or_card, require_same_files
from kdkit.core.teachers.forecast import forecast
from kdkit.core.teachers.license import require_permission
from kdkit.core.teachers.open import how_to_accept, materialize, require_same_choice

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

TEACHER = "teacher:"
"""Prefix of a teacher's name where a student's config names a folder."""
ACTION = "starting"


def named_models(project: Project) -> tuple[str, ...]:
    """Names of models in the student's config, without those written ``teacher:NAME``; paths are no names."""
    return tuple(dict.fromkeys(part for part in initial_parts(project).values() if _is_name(part)))


def initial_parts(project: Project) -> dict[str, str]:
    """``init``, or ``init.image`` and ``init.text`` -> the name or path there; empty for random weights."""
    config, found = project.registry.student.config, dict[str, str]()
    for key in _keys(project):
        value = config.get(key)
        named = {f"{key}.{part}": x for part, x in value.items()} if isinstance(value, Mapping) else {key: value}
        found |= {place: part for place, part in named.items() if isinstance(part, str)}
    return found


def lock_initial_weights(
    project: Project, names: Sequence[str] = (), *, offline: bool = False, reporter: Reporter | None = None
) -> dict[str, LockedFiles]:
    """Fetch and lock the models that the student starts from; entries of ``registry.lock`` for others are dropped.

    Args:
        project: the project.
        names: lock these again, and no others; by default all that are neither locked nor teachers of the project.
        offline: use only the Hub's cache.
        reporter: shows sizes, licenses and progress.

    Returns:
        The models that were locked; each is in the lock file as soon as it is done.

    Raises:
        KdkitError: an unknown name; as :func:`kdkit.core.teachers.add_teacher`, except for the probe.
    """
    reporter, done = reporter or Silent(), dict[str, LockedFiles]()
    with project.exclusive("kdkit lock"):
        project = project.reloaded()
        named, lock = named_models(project), project.lock
        kept = {name: facts for name, facts in lock.initial_weights.items() if name in named}
        for name in [name for name in kept if name in names] if names else _missing(project):
            chosen = _chosen(project, name)
            _announce(project, chosen, reporter, offline=offline)
            kept[name] = done[name] = _fetch(project, chosen, reporter, offline=offline)
            lock.with_initial_weights(kept).save(project.lock_path)
        if kept.keys() != lock.initial_weights.keys():
            lock.with_initial_weights(kept).save(project.lock_path)
    return done


def with_initial_weights(project: Project, reporter: Reporter) -> Project:
    """The project, after :func:`lock_initial_weights` if something is missing."""
    if not _missing(project):
        return project
    lock_initial_weights(project, reporter=reporter)
    return project.with_lock(project.reloaded().lock)


def require_initial_weights(project: Project, reporter: Reporter) -> None:
    """Say what :func:`lock_initial_weights` would fetch, if anything.

    Raises:
        KdkitError: something is missing here; a model is unknown or may not be used.
    """
    if missing := _missing(project):
        for name in missing:
            _announce(project, _chosen(project, name), reporter, offline=False)
        raise _not_here(project, missing)


def with_folders(project: Project, config: Mapping[str, Any]) -> dict[str, Any]:
    """A student's config with the folder of verified files in the place of each model's name.

    Raises:
        KdkitError: a model that is unknown, not locked, or was changed since it was locked (with both hashes).
    """

    def placed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: placed(part) for key, part in value.items()}
        if isinstance(value, str) and value.startswith(TEACHER):
            return str(materialize(project, value.removeprefix(TEACHER)).folder)
        return str(_folder(project, value)) if _is_name(value) else value

    keys = _keys(project)
    return {key: placed(value) if key in keys else value for key, value in config.items()}


def source_of(project: Project, name: str) -> tuple[ChosenTeacher, LockedFiles] | None:
    """The model behind a name in a student's config, and its locked facts; None if it is not locked."""
    facts = _facts(project, name)
    if facts is None:
        return None
    with suppress(KdkitError):  # a teacher that was removed, or an entry that left the catalogue
        return _chosen(project, name), facts
    return None


def initial_lines(project: Project) -> Iterator[str]:
    """For people: which models the student starts from, where they are from, and their license."""
    for name in named_models(project):
        if (facts := _facts(project, name)) is not None:
            commit = f" at {facts.commit[:12]}" if facts.commit else ""
            license = facts.license.name if facts.license else "no license in its files"
            yield f"the student starts from {name}: {facts.source}{commit}, {license}"


def initial_digests(project: Project) -> dict[str, str]:
    """``NAME/FILE`` -> sha256 of the files, without cards and license texts, that the student starts from: as they are
    locked, and as they are at the paths in its config."""
    locked = {name: facts.files for name in named_models(project) if (facts := _facts(project, name)) is not None}
    for part in initial_parts(project).values():
        if part.startswith(TEACHER) and (teacher := project.lock.teachers.get(part.removeprefix(TEACHER))) is not None:
            locked[part] = teacher.files
    found = {f"{name}/{file}": fact.sha256 for name, files in locked.items() for file, fact in files.items()}
    for part in initial_parts(project).values():
        if not _is_name(part) and not part.startswith(TEACHER):
            found |= _hashes(part, project.root / part)
    return {file: sha256 for file, sha256 in found.items() if not is_license_or_card(file)}


def _hashes(name: str, place: Path) -> dict[str, str]:
    """``NAME/FILE`` -> sha256 of the file, or of those in the folder, at ``place``; empty if nothing is there."""
    with system_errors(str(place)):
        files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
        stats = [(path, path.stat()) for path in files]
        return {
            f"{name}/{path.relative_to(place).as_posix()}": _hash(path, stat.st_size, stat.st_mtime_ns)
            for path, stat in stats
        }


@lru_cache(maxsize=1024)
def _hash(path: Path, _size: int, _mtime: int) -> str:
    """Hashed once, while the file stays as it is: a sweep plans many runs from it."""
    return sha256_of(path)


def initial_problems(project: Project) -> Iterator[KdkitError]:
    """What differs between the student's config, ``registry.lock`` and the fetched files."""
    for name in named_models(project):
        try:
            if name in project.lock.initial_weights:
                _verified(project, name)
            elif name not in project.registry.teachers:
                raise _not_here(project, [_chosen(project, name).name])
        except KdkitError as error:
            yield error


def _keys(project: Project) -> tuple[str, ...]:
    """Keys of the student's config that name initial weights; none for a family that is not installed."""
    with suppress(KdkitError):
        return project.catalogue.spec(StudentSpec, project.registry.student.family).weights
    return ()


def _is_name(value: Any) -> bool:
    """Whether it is a name: paths begin with a dot or hold a slash."""
    with suppress(ValueError):
        return isinstance(value, str) and bool(valid_name(value))
    return False


def _missing(project: Project) -> list[str]:
    present = {*project.lock.initial_weights, *project.registry.teachers}
    return [name for name in named_models(project) if name not in present]


def _facts(project: Project, name: str) -> LockedFiles | None:
    return project.lock.initial_weights.get(name) or project.lock.teachers.get(name)


def _chosen(project: Project, name: str) -> ChosenTeacher:
    """The model ``name``: as locked for the student, or as the project's teacher."""
    where = line_of(project.registry_path, "student")
    teachers = project.registry.teachers
    if name in teachers and name not in project.lock.initial_weights:
        return choose(project.catalogue, name, teachers[name], where)
    names = project.catalogue.names("teacher")
    if name not in names and name not in project.lock.initial_weights:
        near = did_you_mean(name, (*names, *teachers))
        raise KdkitError(
            "KD-TEACH-300",
            f"the student starts from '{name}', which is no teacher of this project and not in the catalogue",
            where=where,
            why=project.catalogue.not_loaded(),
            fix=f"{near}{' Or' if near.endswith('?') else '; or'} write ./{name} for a folder beside registry.yaml",
        )
    return choose(project.catalogue, name, TeacherEntry.model_validate({}), where)


def _announce(project: Project, chosen: ChosenTeacher, reporter: Reporter, *, offline: bool) -> None:
    """Say what a model brings, after checks of its license and of the disk."""
    if chosen.spec is not None:
        require_permission(chosen, project.registry.use, Silent(), action=ACTION)
    chosen.require_available()
    for line in forecast(project, chosen, Silent(), offline=offline).lines_of_files():
        reporter.say(f"{chosen.name}: {line}")


def _fetch(project: Project, chosen: ChosenTeacher, reporter: Reporter, *, offline: bool) -> LockedFiles:
    loaders, folder = project.catalogue.specs(LoaderSpec), project.initial_weights(chosen.name)
    with system_errors(str(project.artifacts)), new_folder(folder, replace=True) as stage:
        found = fetch(chosen, loaders, project.root, stage, reporter, offline=offline)
        use = project.registry.use
        require_permission(chosen, use, reporter, found.license, gated=found.gated, action=ACTION)
        return LockedFiles(
            provider=chosen.provider,
            source=chosen.source,
            commit=found.commit,
            options=dict(chosen.options),
            files=dict(found.files),
            also=dict(found.also),
            license=found.license,
            gated=found.gated,
            locked_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )


def _folder(project: Project, name: str) -> Path:
    """The folder of a model, with the files that were locked; fetched again if it is gone."""
    if name not in project.lock.initial_weights:
        if name in project.registry.teachers:
            return materialize(project, name).folder
        raise _not_here(project, [_chosen(project, name).name])
    chosen, locked = _verified(project, name)
    folder = project.initial_weights(name)
    if not folder.is_dir():
        loaders = project.catalogue.specs(LoaderSpec)
        with system_errors(str(project.artifacts)), new_folder(folder, replace=True) as stage:
            fetch(chosen, loaders, project.root, stage, Silent(), locked=locked)
            require_same_files(stage, locked.files, chosen.where, how_to_accept(name))
    return folder


def _verified(project: Project, name: str) -> tuple[ChosenTeacher, LockedFiles]:
    """Check that catalogue, lock and fetched files of a model agree."""
    chosen, locked = _chosen(project, name), project.lock.initial_weights[name]
    require_same_choice(chosen, locked)
    require_permission(chosen, project.registry.use, Silent(), locked.license, gated=locked.gated, action=ACTION)
    folder = project.initial_weights(name)
    if folder.is_dir():
        fix = f"delete {folder.relative_to(project.root)} to fetch it again, or: {how_to_accept(name)}"
        require_same_files(folder, locked.files, chosen.where, fix)
    return chosen, locked


def _not_here(project: Project, names: Sequence[str]) -> KdkitError:
    return KdkitError(
        "KD-TEACH-301",
        f"the student's initial weights are not here yet: {', '.join(names)}",
        where=line_of(project.registry_path, "student"),
        why="only 'kdkit lock' and 'kdkit distill' download them",
        fix="kdkit lock",
        code=ExitCode.MISSING,
    )
