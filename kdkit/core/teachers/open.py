"""Loads teachers whose files are exactly those that were locked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import new_folder
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import SETTINGS, Answering, LoaderSpec, Reporter, SignalSource, Silent, Teacher
from kdkit.core.project.registry.chosen import ChosenTeacher, chosen_teacher
from kdkit.core.project.registry.lock import FileFact, LockedFiles, LockedTeacher
from kdkit.core.teachers.fetch import Materialized, fetch
from kdkit.core.teachers.files import is_license_or_card, require_same_files
from kdkit.core.teachers.license import require_permission
from kdkit.core.teachers.probe import freeze, identity_of
from kdkit.core.teachers.source import parse_source, source_folder

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class OpenTeacher:
    """A loaded teacher.

    Attributes:
        name: in the registry.
        model: from its loader, in eval mode, without gradients.
        signals: the same as a signal source, for extraction.
        fingerprint: sha256 (hex) over its files, loader, options and identity; the key of cached features.
        parts: what the fingerprint covers, by name (weights, loader, options, preprocessing, tokenizer), so that a
            mismatch can show what differs.
    """

    name: str
    model: Teacher
    signals: SignalSource
    fingerprint: str
    parts: Mapping[str, str]


def open_teacher(project: Project, name: str, *, reporter: Reporter | None = None) -> OpenTeacher:
    """Load a teacher of the registry.

    Raises:
        KdkitError: not in the registry (did you mean), not locked, changed since the lock (with both values), forbidden
            by its license, imported; errors of its loader.
    """
    chosen = chosen_teacher(project, name)
    locked = project.lock.teacher(name)
    chosen.require_available()
    use, reporter = project.registry.use, reporter or Silent()
    require_permission(chosen, use, reporter, locked.license, gated=locked.gated)
    if locked.imported:
        raise KdkitError(
            "KD-TEACH-026",
            f"teacher '{name}' computes no features: they were imported",
            where=chosen.where,
            fix=f"import files with all features, old and new: kdkit features import {name} --from PATH --replace",
            code=ExitCode.MISSING,
        )
    materialized = materialize(project, name, reporter=reporter)
    model, signals = load_model(project.catalogue, chosen, locked.loader, materialized.folder, materialized.files)
    identity = identity_of(model)
    fingerprint = fingerprint_of(materialized.files, locked.loader, chosen.options, identity)
    if fingerprint != locked.fingerprint:
        raise KdkitError(
            "KD-TEACH-004",
            f"the outputs of teacher '{name}' may have changed since it was locked",
            where="registry.lock",
            why=f"fingerprint {locked.fingerprint} then, {fingerprint} now ({_changed_keys(locked, identity)})",
            fix=f"{how_to_accept(name)}; its features are then extracted again",
        )
    parts = fingerprint_parts(materialized.files, locked.loader, chosen.options, identity)
    return OpenTeacher(name, model, signals, fingerprint, parts)


def open_answering(project: Project, name: str, device: str, *, reporter: Reporter | None = None) -> Answering:
    """Load a teacher that answers questions, on ``device``.

    Raises:
        KdkitError: the teacher does not answer; as :func:`open_teacher`.
    """
    from torch import nn

    model = open_teacher(project, name, reporter=reporter).model
    if not isinstance(model, Answering):
        raise KdkitError(
            "KD-TEACH-005",
            f"teacher '{name}' does not answer questions",
            fix="choose a generating teacher: docs/reference/models.md",
        )
    return model.to(device) if isinstance(model, nn.Module) else model


def materialize(project: Project, name: str, *, reporter: Reporter | None = None) -> Materialized:
    """The verified folder ``.kdkit/artifacts/<name>`` of a locked teacher, fetched again if it is gone.

    Raises:
        KdkitError: not locked; a file changed since (with both hashes); as :func:`fetch`.
    """
    chosen, locked = verify(project, name)
    folder = project.artifacts / name
    if not folder.is_dir():
        loaders, reporter = project.catalogue.specs(LoaderSpec), reporter or Silent()
        with system_errors(str(project.artifacts)), new_folder(folder, replace=True) as stage:
            fetch(chosen, loaders, project.root, stage, reporter, locked=locked)
            require_same_files(stage, locked.files, chosen.where, how_to_accept(name))
    return Materialized(folder, locked.files, locked.commit, locked.license, locked.gated, locked.also)


def verify(project: Project, name: str) -> tuple[ChosenTeacher, LockedTeacher]:
    """Check that the registry entry, the lock and the fetched files of a teacher agree.

    Raises:
        KdkitError: not locked; a difference, with both values.
    """
    chosen = chosen_teacher(project, name)
    locked = project.lock.teacher(name)
    require_same_choice(chosen, locked)
    folder = project.artifacts / name
    if folder.is_dir():
        fix = f"delete {folder.relative_to(project.root)} to fetch it again, or: {how_to_accept(name)}"
        require_same_files(folder, locked.files, chosen.where, fix)
        _require_same_origin(chosen, locked, project.root, folder)
    return chosen, locked


def how_to_accept(name: str) -> str:
    return f"'kdkit lock {name}' accepts the change"


def load_model(
    catalogue: Catalogue, chosen: ChosenTeacher, loader: str, folder: Path, files: Mapping[str, FileFact]
) -> tuple[Teacher, SignalSource]:
    """Load the model from a materialized folder; returns it, and the same as a signal source.

    An option that names a file may name it as its source does, also if that was converted (``weights: epoch_3.pt``).

    Raises:
        KdkitError: the loader connects to an address from a folder that is not the user's own; errors of the loader.
    """
    from kdkit.core.teachers.signals import as_signal_source

    if catalogue.spec(LoaderSpec, loader).asks_network and parse_source(chosen.source).kind != "local":
        raise KdkitError(
            "KD-TEACH-006",
            f"teacher '{chosen.name}' would send samples to an address from a foreign file",
            where=chosen.where,
            why=f"the loader '{loader}' reads the address, and the name of the variable with its key, from a file",
            fix="write that file into a folder of yours and add it with local:DIR",
            code=ExitCode.DENIED,
        )
    made = {fact.made_from.file: name for name, fact in files.items() if fact.made_from}
    options = {key: made.get(str(value), value) for key, value in chosen.options.items()}
    model: Teacher = freeze(catalogue.make("loader", loader, folder=folder, **options))
    return model, as_signal_source(model)


def fingerprint_of(
    files: Mapping[str, FileFact], loader: str, options: Mapping[str, Any], identity: Mapping[str, str]
) -> str:
    """sha256 (hex) over everything that changes a teacher's signals and answers.

    Cards and license texts do not. The file named by the identity's ``SETTINGS`` counts only through the identity.
    """
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
    """The parts of :func:`fingerprint_of`, each short enough for a message."""
    hashes = json.dumps(_hashes(files, identity), sort_keys=True)
    return {
        "weights": hashlib.sha256(hashes.encode()).hexdigest(),
        "loader": loader,
        "options": json.dumps(dict(options), sort_keys=True),
        **identity,
    }


def _hashes(files: Mapping[str, FileFact], identity: Mapping[str, str]) -> dict[str, str]:
    settings = identity.get(SETTINGS)
    return {name: fact.sha256 for name, fact in files.items() if not is_license_or_card(name) and name != settings}


def _changed_keys(locked: LockedTeacher, identity: Mapping[str, str]) -> str:
    names = sorted({*locked.identity, *identity})
    changed = [name for name in names if locked.identity.get(name) != identity.get(name)]
    return "changed: " + ", ".join(changed or ["options"])


def require_same_choice(chosen: ChosenTeacher, locked: LockedFiles) -> None:
    """Raises: KdkitError when the entry of registry or catalogue changed since the model was locked."""
    pairs: dict[str, tuple[object, object]] = {
        "provider": (locked.provider.partition("@")[0], chosen.provider.partition("@")[0]),
        "from": (locked.source, chosen.source),
        "options": (dict(locked.options), dict(chosen.options)),
    }
    if isinstance(locked, LockedTeacher):
        pairs["loader"] = (locked.loader, chosen.loader or locked.loader)
    for key, (then, now) in pairs.items():
        if then != now:
            raise KdkitError(
                "KD-TEACH-007",
                f"'{chosen.name}' is not the model that was locked",
                where="registry.yaml",
                why=f"'{key}' was {then!r} when it was locked and is {now!r} now",
                fix=how_to_accept(chosen.name),
            )


def _require_same_origin(chosen: ChosenTeacher, locked: LockedTeacher, root: Path, copies: Path) -> None:
    """Refuse a local folder that was trained further since it was copied.

    Files with the size and time of the copy count as unchanged; a missing origin does not matter.
    """
    source = parse_source(chosen.source)
    if source.kind in ("hf", "https"):
        return
    try:
        folder = source_folder(source, root)
    except KdkitError:
        return
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
                why=f"registry.lock has sha256 {wanted}; the file has {found}",
                fix=f"restore it, or: {how_to_accept(chosen.name)}",
            )


def _same_stat(one: Path, other: Path) -> bool:
    a, b = one.stat(), other.stat()
    return (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)
