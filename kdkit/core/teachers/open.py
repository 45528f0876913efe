"""A loaded teacher whose files are exactly those that were locked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import disk_errors, new_folder
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import SETTINGS, Answering, LoaderSpec, Reporter, SignalSource, Silent, Teacher
from kdkit.core.project.registry.chosen import ChosenTeacher, chosen_teacher
from kdkit.core.project.registry.lock import FileFact, LockedTeacher
from kdkit.core.teachers.fetch import Materialized, fetch, same_files
from kdkit.core.teachers.files import sha256_of
from kdkit.core.teachers.permission import require_permission
from kdkit.core.teachers.probe import frozen, identity_of
from kdkit.core.teachers.select import is_license_or_card
from kdkit.core.teachers.source import parse_source, source_folder

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class OpenTeacher:
    """A teacher, ready to be asked.

    Attributes:
        name: in the registry.
        model: what its loader made: eval mode, no gradients.
        signals: the same as a signal source; what extraction uses.
        fingerprint: sha256 (hex) over its files, loader, options and identity; keys cached features.
        parts: what went into the fingerprint, by name (weights, loader, options, preprocessing, tokenizer),
            so that a mismatch can say what differs.
    """

    name: str
    model: Teacher
    signals: SignalSource
    fingerprint: str
    parts: Mapping[str, str]


def open_teacher(project: Project, name: str, *, reporter: Reporter | None = None) -> OpenTeacher:
    """Load a chosen teacher.

    Raises:
        KdkitError: not in the registry (did you mean), not locked, a file or the registry entry changed since
            the lock (with both values), a license that forbids it, or whatever its loader finds wrong.
    """
    chosen = chosen_teacher(project, name)
    locked = project.lock.teacher(name)
    chosen.require_available()
    use, reporter = project.registry.use, reporter or Silent()
    require_permission(chosen, use, reporter, locked.license, gated=locked.gated)
    materialized = materialize(project, name, reporter=reporter)
    model, signals = load_model(project.catalogue, chosen, locked.loader, materialized.folder)
    fingerprint = fingerprint_of(materialized.files, locked.loader, chosen.options, identity_of(model))
    if fingerprint != locked.fingerprint:
        raise KdkitError(
            "KD-TEACH-004",
            f"teacher '{name}' computes something else than when it was locked",
            where="registry.lock",
            why=f"fingerprint {locked.fingerprint} then, {fingerprint} now ({_changes(locked, identity_of(model))})",
            fix=f"{_accept(name)}; its features are then extracted again",
        )
    parts = fingerprint_parts(materialized.files, locked.loader, chosen.options, identity_of(model))
    return OpenTeacher(name, model, signals, fingerprint, parts)


def open_answering(project: Project, name: str, device: str, *, reporter: Reporter | None = None) -> Answering:
    """Load a chosen teacher to be asked questions, on ``device``.

    Raises:
        KdkitError: one that does not answer; as :func:`open_teacher`.
    """
    from torch import nn

    model = open_teacher(project, name, reporter=reporter).model
    if not isinstance(model, Answering):
        raise KdkitError(
            "KD-TEACH-005", f"teacher '{name}' does not answer questions", fix="take one that does: docs/models.md"
        )
    return model.to(device) if isinstance(model, nn.Module) else model


def materialize(
    project: Project, name: str, *, offline: bool = False, reporter: Reporter | None = None
) -> Materialized:
    """The verified folder ``.kdkit/artifacts/<name>`` of a locked teacher, fetched again where it is gone.

    Raises:
        KdkitError: not locked; a file that changed since (naming it and both hashes); as :func:`fetch`.
    """
    chosen, locked = verify(project, name)
    folder = project.artifacts / name
    if not folder.is_dir():
        with disk_errors(str(project.artifacts)), new_folder(folder, replace=True) as stage:
            fetch(chosen, project.root, stage, reporter or Silent(), locked=locked, offline=offline)
            same_files(stage, locked.files, chosen.where, _accept(name))
    return Materialized(folder, locked.files, locked.commit, locked.license, locked.gated, locked.also)


def verify(project: Project, name: str) -> tuple[ChosenTeacher, LockedTeacher]:
    """Check that registry, lock and the files that are here agree; writes nothing.

    Raises:
        KdkitError: not locked, or what differs, with both values.
    """
    chosen = chosen_teacher(project, name)
    locked = project.lock.teacher(name)
    require_same_choice(chosen, locked)
    folder = project.artifacts / name
    if folder.is_dir():
        fix = f"delete {folder.relative_to(project.root)} to fetch it again, or: {_accept(name)}"
        same_files(folder, locked.files, chosen.where, fix)
        _same_origin(chosen, locked, project)
    return chosen, locked


def _accept(name: str) -> str:
    return f"kdkit lock {name} takes it as it is now"


def load_model(catalogue: Catalogue, chosen: ChosenTeacher, loader: str, folder: Path) -> tuple[Teacher, SignalSource]:
    """(the model, the same as a signal source) from a materialized folder.

    Raises:
        KdkitError: a loader that asks the network, on a folder that is not the user's own; what the loader raises.
    """
    from kdkit.core.teachers.signals import as_signal_source

    if catalogue.spec(LoaderSpec, loader).asks_network and parse_source(chosen.source).kind != "local":
        raise KdkitError(
            "KD-TEACH-006",
            f"teacher '{chosen.name}' would send samples to an address that comes from elsewhere",
            where=chosen.where,
            why=f"the loader '{loader}' takes the address, and the name of the variable with its key, from a file",
            fix="write that file into a folder of yours and add it with local:DIR",
            code=ExitCode.DENIED,
        )
    model: Teacher = frozen(catalogue.make("loader", loader, folder=folder, **chosen.options))
    return model, as_signal_source(model)


def fingerprint_of(
    files: Mapping[str, FileFact], loader: str, options: Mapping[str, Any], identity: Mapping[str, str]
) -> str:
    """sha256 (hex) over everything that changes a teacher's signals and answers: cards and license texts do not, and of
    the file that its identity has as ``SETTINGS`` only what the identity says."""
    parts = {
        "files": _hashes(files, identity),
        "loader": loader,
        "options": dict(options),
        "identity": dict(identity),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def fingerprint_parts(
    files: Mapping[str, FileFact], loader: str, options: Mapping[str, Any], identity: Mapping[str, str]
) -> dict[str, str]:
    """The parts of :func:`fingerprint_of`, each short enough to be shown."""
    hashes = json.dumps(_hashes(files, identity), sort_keys=True)
    return {
        "weights": hashlib.sha256(hashes.encode()).hexdigest(),
        "loader": loader,
        "options": json.dumps(dict(options), sort_keys=True),
        **identity,
    }


def _hashes(files: Mapping[str, FileFact], identity: Mapping[str, str]) -> dict[str, str]:
    """File -> sha256, of those whose every byte counts."""
    told = identity.get(SETTINGS)
    return {name: fact.sha256 for name, fact in files.items() if not is_license_or_card(name) and name != told}


def _changes(locked: LockedTeacher, identity: Mapping[str, str]) -> str:
    names = sorted({*locked.identity, *identity})
    changed = [name for name in names if locked.identity.get(name) != identity.get(name)]
    return "changed: " + ", ".join(changed or ["options"])


def require_same_choice(chosen: ChosenTeacher, locked: LockedTeacher) -> None:
    """registry.yaml may have been edited since the lock was written."""
    pairs: list[tuple[str, object, object]] = [
        ("provider", locked.provider.partition("@")[0], chosen.provider.partition("@")[0])
    ]
    pairs += [("from", locked.source, chosen.source), ("options", dict(locked.options), dict(chosen.options))]
    if chosen.loader:
        pairs.append(("loader", locked.loader, chosen.loader))
    for key, then, now in pairs:
        if then != now:
            raise KdkitError(
                "KD-TEACH-007",
                f"teacher '{chosen.name}' is not what was locked",
                where="registry.yaml",
                why=f"'{key}' was {then!r} when it was locked and is {now!r} now",
                fix=_accept(chosen.name),
            )


def _same_origin(chosen: ChosenTeacher, locked: LockedTeacher, project: Project) -> None:
    """A folder that a person has trained further since: the project still has the old files, so say it.

    Files with the size and time of the copy are taken as unchanged; an origin that is gone does not matter.
    """
    source = parse_source(chosen.source)
    if source.kind == "hf":
        return
    try:
        folder = source_folder(source, project.root)
    except KdkitError:
        return
    copies = project.artifacts / chosen.name
    for name, fact in locked.files.items():
        wanted = fact.made_from.sha256 if fact.made_from else fact.sha256
        origin = folder / (fact.made_from.file if fact.made_from else name)
        if not origin.is_file() or (not fact.made_from and _same_stat(origin, copies / name)):
            continue
        found = sha256_of(origin)
        if found != wanted:
            raise KdkitError(
                "KD-TEACH-008",
                f"the file '{origin.relative_to(folder)}' of {source} changed since it was locked",
                where=chosen.where,
                why=f"registry.lock has sha256 {wanted}; the file there has {found}",
                fix=f"restore it, or: {_accept(chosen.name)}",
            )


def _same_stat(one: Path, other: Path) -> bool:
    a, b = one.stat(), other.stat()
    return (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)
