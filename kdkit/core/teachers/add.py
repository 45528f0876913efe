"""Adding, locking and removing teachers: whole operations, of which nothing is left when they fail."""

from __future__ import annotations

import datetime
import difflib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import disk_errors, new_folder, write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.project.registry.chosen import ChosenTeacher, choose, chosen_teacher
from kdkit.core.project.registry.edit import add_entry, remove_entry
from kdkit.core.project.registry.load import check_registry, read_text
from kdkit.core.project.registry.lock import LockedTeacher
from kdkit.core.project.registry.pins import moved_names, pin_names, unpinned
from kdkit.core.project.registry.schema import valid_name
from kdkit.core.teachers.card import license_seen
from kdkit.core.teachers.fetch import Materialized, fetch
from kdkit.core.teachers.files import list_folder
from kdkit.core.teachers.hub import look
from kdkit.core.teachers.open import fingerprint_of, load_model, verify
from kdkit.core.teachers.permission import require_permission
from kdkit.core.teachers.probe import identity_of, probe
from kdkit.core.teachers.recognize import recognize
from kdkit.core.teachers.select import select_files
from kdkit.core.teachers.source import parse_source, source_folder

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class Addition:
    """What adding a teacher would do, without having fetched anything.

    Attributes:
        chosen: the teacher.
        before, after: the texts of ``registry.yaml``.
        sizes: file -> bytes that would be fetched; None where unknown.
    """

    chosen: ChosenTeacher
    before: str
    after: str
    sizes: Mapping[str, int | None]

    @property
    def diff(self) -> str:
        """The change to ``registry.yaml`` as a unified diff."""
        texts = (self.before.splitlines(keepends=True), self.after.splitlines(keepends=True))
        return "".join(difflib.unified_diff(*texts, "registry.yaml", "registry.yaml, after", n=1))


def add_teacher(
    project: Project,
    name: str,
    fields: Mapping[str, Any],
    *,
    offline: bool = False,
    reporter: Reporter | None = None,
) -> LockedTeacher:
    """Fetch, check and probe a teacher, lock it, and write it into ``registry.yaml``, in this order.

    Args:
        name: of the catalogue, or a new one.
        fields: the registry entry (``from``, ``loader``, ``options``, ``domains``, ``license``); may be empty.
        offline: use the Hub's cache alone.

    Raises:
        KdkitError: unknown, denied, missing or not a working teacher; the project is then as it was before.
    """
    reporter = reporter or Silent()
    with project.exclusive(f"kdkit add-teacher {name}"):
        project = project.reloaded()
        chosen, _, after = _planned(project, name, fields)
        _check_domains(project, chosen, reporter)
        facts = _admit(project, chosen, offline, reporter)
        with disk_errors(str(project.root)):
            lock = project.lock.with_teacher(name, facts)
            lock.save(project.lock_path)
            write_atomically(project.registry_path, after.encode())
        pin_names(project.with_registry(check_registry(after)).with_lock(lock))
    return facts


def plan_addition(
    project: Project,
    name: str,
    fields: Mapping[str, Any],
    *,
    offline: bool = False,
    reporter: Reporter | None = None,
) -> Addition:
    """What :func:`add_teacher` would do; writes nothing. Raises: as :func:`add_teacher`, but for the probe."""
    reporter = reporter or Silent()
    chosen, before, after = _planned(project, name, fields)
    _check_domains(project, chosen, reporter)
    return Addition(chosen, before, after, _looked_at(project, chosen, offline, reporter))


def _looked_at(project: Project, chosen: ChosenTeacher, offline: bool, reporter: Reporter) -> dict[str, int | None]:
    """What would be fetched; says of the license what can be known before."""
    source, use = parse_source(chosen.source, f"teacher '{chosen.name}'"), project.registry.use
    if source.kind != "hf":
        folder = source_folder(source, project.root)
        names = select_files(list_folder(folder, str(source)), str(source))
        seen, gated = license_seen(folder)
        require_permission(chosen, use, reporter, seen, gated=gated)
        return {file: (folder / file).stat().st_size for file in names}
    if _known_before(chosen):
        require_permission(chosen, use, reporter)
    else:
        reporter.say("its license is read from its files, once they are fetched")
    return {} if offline else dict(look(source, select_files).sizes)  # offline: nothing would be fetched


def remove_teacher(project: Project, name: str) -> None:
    """Take a teacher out of ``registry.yaml``, the lock and ``.kdkit/artifacts``; its cached features stay.

    Raises:
        KdkitError: no such teacher (did you mean).
    """
    with project.exclusive(f"kdkit remove-teacher {name}"):
        after = remove_entry(read_text(project.registry_path), name)
        write_atomically(project.registry_path, after.encode())
        lock = project.reloaded().lock
        if name in lock.teachers:
            lock.without_teacher(name).save(project.lock_path)
        shutil.rmtree(project.artifacts / name, ignore_errors=True)


def lock_teachers(
    project: Project,
    names: Sequence[str] = (),
    *,
    offline: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, LockedTeacher]:
    """Fetch, probe and lock teachers that stand in ``registry.yaml``, and pin the providers of all its names.

    Args:
        names: lock these afresh; by default all that are not locked yet. A name that is pinned and no teacher's
            is taken from whoever provides it now.

    Returns:
        what was locked now; each teacher is in the lock file as soon as it is done.

    Raises:
        KdkitError: as :func:`add_teacher`, at the first teacher that fails.
    """
    reporter = reporter or Silent()
    done = {}
    with project.exclusive("kdkit lock"):
        project = unpinned(project.reloaded(), names)
        lock = project.lock
        pins = {name for family in lock.providers.values() for name in family} - set(project.registry.teachers)
        wanted = [name for name in names if name not in pins]
        if not names:
            wanted = [name for name in project.registry.teachers if name not in lock.teachers]
        for name in wanted:
            chosen = chosen_teacher(project, name)
            if chosen.unavailable and not names:
                reporter.warn(f"teacher '{name}' is left out: {chosen.unavailable}")
                continue
            chosen.require_available()
            if _known_before(chosen):
                require_permission(chosen, project.registry.use, Silent())
            done[name] = _admit(project, chosen, offline, reporter)
            lock = lock.with_teacher(name, done[name])
            lock.save(project.lock_path)
        pin_names(project.with_lock(lock))
    return done


def check_lock(project: Project) -> list[str]:
    """What is wrong between ``registry.yaml``, ``registry.lock`` and the files here; empty when all is well."""
    lock, problems = project.lock, []
    for name in project.registry.teachers:
        try:
            if not chosen_teacher(project, name).unavailable:
                verify(project, name)
        except KdkitError as error:
            problems.append(f"{error.headline}. {error.why}".rstrip(". "))
    problems += [f"{error.headline}. {error.why}".rstrip(". ") for error in moved_names(project, lock)]
    # A pulled project keeps the facts of teachers whose files only their author has: nothing is wrong with that.
    here = [name for name, facts in lock.teachers.items() if not facts.held_by_author]
    extra = [name for name in here if name not in project.registry.teachers]
    return problems + [f"registry.lock: teacher '{name}' is not in registry.yaml" for name in extra]


def _planned(project: Project, name: str, fields: Mapping[str, Any]) -> tuple[ChosenTeacher, str, str]:
    """(the teacher, ``registry.yaml`` before, and after)."""
    try:
        valid_name(name)
    except ValueError as error:
        raise KdkitError("KD-TEACH-001", str(error), where="the new teacher's name") from None
    before = read_text(project.registry_path)
    after = add_entry(before, name, fields)
    registry = check_registry(after)
    chosen = choose(project.catalogue, name, registry.teachers[name])
    if _known_before(chosen):
        require_permission(chosen, registry.use, Silent())  # first: what is denied need not be made possible
    chosen.require_available()
    return chosen, before, after


def _known_before(chosen: ChosenTeacher) -> bool:
    """Whether anything is known of the license before the files are here."""
    return chosen.spec is not None or chosen.license is not None


def _check_domains(project: Project, chosen: ChosenTeacher, reporter: Reporter) -> None:
    from kdkit.core.data.domains import domains_of, warn_of_unknown

    if chosen.domains and project.registry.data and (known := domains_of(project)):
        warn_of_unknown(chosen.domains, known, f"teacher '{chosen.name}'", reporter)


def _admit(project: Project, chosen: ChosenTeacher, offline: bool, reporter: Reporter) -> LockedTeacher:
    """Fetch into a folder aside, check license and model, and only then put the folder in its place."""
    final = project.artifacts / chosen.name
    with disk_errors(str(project.artifacts)), new_folder(final, replace=True) as stage:
        found = fetch(chosen, project.root, stage, reporter, offline=offline)
        loader = chosen.loader or recognize(project.catalogue, found.folder, chosen.source)
        require_permission(chosen, project.registry.use, reporter, found.license, gated=found.gated)
        reporter.say(f"probing {chosen.name} with the loader '{loader}'")
        return _facts(project.catalogue, chosen, loader, found)


def _facts(catalogue: Catalogue, chosen: ChosenTeacher, loader: str, found: Materialized) -> LockedTeacher:
    """Load and probe the model; everything that the lock keeps."""
    model, signals = load_model(catalogue, chosen, loader, found.folder)
    measured = probe(signals, f"teacher '{chosen.name}'")
    identity = dict(identity_of(model))
    return LockedTeacher(
        provider=chosen.provider,
        source=chosen.source,
        commit=found.commit,
        loader=loader,
        options=dict(chosen.options),
        files=dict(found.files),
        also=dict(found.also),
        license=found.license,
        gated=found.gated,
        signals=measured,
        identity=identity,
        fingerprint=fingerprint_of(found.files, loader, chosen.options, identity),
        locked_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
