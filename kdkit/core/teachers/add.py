"""Adding, locking and removing teachers; an operation that fails leaves the project as it was."""

from __future__ import annotations

import datetime
import difflib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import new_folder, write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import IMPORTED, LoaderSpec, Reporter, SignalSource, Silent, Teacher
from kdkit.core.data.load import read_domains, warn_unknown_domains
from kdkit.core.project.registry.chosen import ChosenTeacher, choose, chosen_teacher
from kdkit.core.project.registry.edit import add_entry, has_entry, remove_entry
from kdkit.core.project.registry.load import check_registry, read_text
from kdkit.core.project.registry.lock import LockedTeacher, SignalFact
from kdkit.core.project.registry.pins import moved_names, pin_names, unpinned
from kdkit.core.project.registry.schema import valid_name
from kdkit.core.teachers.fetch import fetch
from kdkit.core.teachers.forecast import Forecast, forecast
from kdkit.core.teachers.initial_weights import initial_problems, named_models
from kdkit.core.teachers.license import require_permission
from kdkit.core.teachers.measure import Measured, differences, measure
from kdkit.core.teachers.open import fingerprint_of, load_model, verify
from kdkit.core.teachers.probe import declared_signals, identity_of, probe
from kdkit.core.teachers.recognize import recognize_loader

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class Addition:
    """What adding a teacher would change; nothing was fetched.

    Attributes:
        chosen: the teacher.
        before, after: the texts of ``registry.yaml``.
        forecast: what would be fetched, and what is known about it.
    """

    chosen: ChosenTeacher
    before: str
    after: str
    forecast: Forecast

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
    """:func:`add_and_measure` without the measurements."""
    return add_and_measure(project, name, fields, offline=offline, reporter=reporter)[0]


def add_and_measure(
    project: Project,
    name: str,
    fields: Mapping[str, Any],
    *,
    offline: bool = False,
    reporter: Reporter | None = None,
) -> tuple[LockedTeacher, Measured | None]:
    """Fetch, check and probe a teacher, lock it, and add it to ``registry.yaml``, in this order.

    A locked teacher that is in the registry with the same fields is added already, and not measured again.

    Args:
        project: the project.
        name: of the catalogue, or a new one.
        fields: the registry entry (``from``, ``loader``, ``options``, ``domains``, ``license``); may be empty.
        offline: use only the Hub's cache.
        reporter: shows the plan, progress and warnings.

    Raises:
        KdkitError: the teacher is unknown, forbidden, missing or does not work; the project is unchanged.
    """
    reporter = reporter or Silent()
    with project.exclusive(f"kdkit add-teacher {name}"):
        project = project.reloaded()
        if name in project.lock.teachers and has_entry(read_text(project.registry_path), name, fields):
            pin_names(project)
            return project.lock.teacher(name), None
        chosen, _, after = _edit_registry(project, name, fields)
        _check_domains(project, chosen, reporter)
        for line in forecast(project, chosen, Silent(), offline=offline).lines():
            reporter.say(line)
        facts, measured = _fetch_and_probe(project, chosen, offline, reporter)
        with system_errors(str(project.root)):
            lock = project.lock.with_teacher(name, facts)
            lock.save(project.lock_path)
            write_atomically(project.registry_path, after.encode())
        pin_names(project.with_registry(check_registry(after)).with_lock(lock))
    return facts, measured


def plan_addition(
    project: Project,
    name: str,
    fields: Mapping[str, Any],
    *,
    offline: bool = False,
    reporter: Reporter | None = None,
) -> Addition:
    """Dry run of :func:`add_teacher`: writes nothing. Raises: as :func:`add_teacher`, except for the probe."""
    reporter = reporter or Silent()
    chosen, before, after = _edit_registry(project, name, fields)
    _check_domains(project, chosen, reporter)
    return Addition(chosen, before, after, forecast(project, chosen, reporter, offline=offline))


def remove_teacher(project: Project, name: str) -> None:
    """Remove a teacher from ``registry.yaml``, the lock and ``.kdkit/artifacts``; its cached features stay.

    A teacher with features that is not in the registry is removed already.

    Raises:
        KdkitError: no such teacher (did you mean).
    """
    with project.exclusive(f"kdkit remove-teacher {name}"):
        project = project.reloaded()
        lock, left = project.lock, (project.artifacts / name, project.features / name)
        if name in project.registry.teachers or not (name in lock.teachers or any(path.is_dir() for path in left)):
            after = remove_entry(read_text(project.registry_path), name)
            write_atomically(project.registry_path, after.encode())
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
    """Fetch, probe and lock teachers of ``registry.yaml``, and pin the providers of all its names.

    Args:
        project: the project.
        names: lock these again; by default all that are not locked yet. A pinned name that is no teacher's is pinned
            again to the plugin that provides it now.
        offline: use only the Hub's cache.
        reporter: shows progress and warnings.

    Returns:
        The teachers that were locked; each is in the lock file as soon as it is done.

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
                reporter.warn(f"teacher '{name}' skipped: {chosen.unavailable}")
                continue
            chosen.require_available()
            if _license_known(chosen):
                require_permission(chosen, project.registry.use, Silent())
            done[name], _ = _fetch_and_probe(project, chosen, offline, reporter)
            lock = lock.with_teacher(name, done[name])
            lock.save(project.lock_path)
        pin_names(project.with_lock(lock))
    return done


def check_lock(project: Project) -> list[str]:
    """Problems between ``registry.yaml``, ``registry.lock`` and the fetched files; empty if there are none."""
    registry, lock = project.registry, project.lock
    errors = []
    for name in registry.teachers:
        try:
            if not chosen_teacher(project, name).unavailable:
                verify(project, name)
        except KdkitError as error:
            errors.append(error)
    errors += [*initial_problems(project), *moved_names(project, lock)]
    problems = [f"{error.headline}. {error.why}".rstrip(". ") for error in errors]
    # A pulled project may lock teachers whose files only their author has.
    here = [name for name, facts in lock.teachers.items() if not facts.held_by_author]
    extra = [name for name in here if name not in registry.teachers]
    problems += [f"registry.lock: teacher '{name}' is not in registry.yaml" for name in extra]
    unused = [name for name in lock.initial_weights if name not in named_models(project)]
    return problems + [f"registry.lock: the student does not start from '{name}'" for name in unused]


def _edit_registry(project: Project, name: str, fields: Mapping[str, Any]) -> tuple[ChosenTeacher, str, str]:
    """The teacher, and ``registry.yaml`` before and after."""
    require_name(name)
    before = read_text(project.registry_path)
    after = add_entry(before, name, fields)
    registry = check_registry(after)
    chosen = choose(project.catalogue, name, registry.teachers[name])
    if _license_known(chosen):
        require_permission(chosen, registry.use, Silent())  # before advice on how to make the teacher available
    chosen.require_available()
    return chosen, before, after


def require_name(name: str) -> None:
    """Raises: KdkitError when ``name`` cannot be a teacher's."""
    try:
        valid_name(name)
    except ValueError as error:
        fix = "choose another name for the teacher"
        raise KdkitError("KD-TEACH-001", str(error), where="the new teacher's name", fix=fix) from None


def _license_known(chosen: ChosenTeacher) -> bool:
    """Whether the license is known before the files are fetched."""
    return chosen.spec is not None or chosen.license is not None


def _check_domains(project: Project, chosen: ChosenTeacher, reporter: Reporter) -> None:
    if chosen.domains and project.registry.data and (known := read_domains(project)):
        warn_unknown_domains(chosen.domains, known, f"teacher '{chosen.name}'", reporter)


def _fetch_and_probe(
    project: Project, chosen: ChosenTeacher, offline: bool, reporter: Reporter
) -> tuple[LockedTeacher, Measured | None]:
    """Fetch into a staging folder and check license and model; only a working teacher replaces the final folder."""
    loaders = project.catalogue.specs(LoaderSpec)
    with system_errors(str(project.artifacts)), new_folder(project.artifacts / chosen.name, replace=True) as stage:
        found = fetch(chosen, loaders, project.root, stage, reporter, offline=offline)
        loader = chosen.loader or recognize_loader(loaders, found.folder, chosen.source)
        require_permission(chosen, project.registry.use, reporter, found.license, gated=found.gated)
        reporter.say(f"probing {chosen.name} with the loader '{loader}'")
        originals = {name: fact.made_from.file for name, fact in found.files.items() if fact.made_from}
        try:
            model, source = load_model(project.catalogue, chosen, loader, found.folder, found.files)
            identity = dict(identity_of(model))
            signals, measured = _probe_and_measure(chosen, model, source, reporter, imported=IMPORTED in identity)
        except KdkitError as error:  # the stage is gone when the message is read
            raise error.renamed({str(stage): chosen.source, **originals}) from error
        facts = LockedTeacher(
            provider=chosen.provider,
            source=chosen.source,
            commit=found.commit,
            loader=loader,
            options=dict(chosen.options),
            files=dict(found.files),
            also=dict(found.also),
            license=found.license,
            gated=found.gated,
            signals=signals,
            identity=identity,
            fingerprint=fingerprint_of(found.files, loader, chosen.options, identity),
            locked_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        return facts, measured


def _probe_and_measure(
    chosen: ChosenTeacher, model: Teacher, source: SignalSource, reporter: Reporter, *, imported: bool
) -> tuple[dict[str, SignalFact], Measured | None]:
    """The signals of a model that works; warns where it is not as the catalogue says."""
    if imported:
        return declared_signals(source), None
    probed = probe(source, f"teacher '{chosen.name}'")
    dims = {name: fact.shape[-1] if fact.shape else 1 for name, fact in probed.signals.items()}
    measured = measure(model, source, dims, probed.seconds if dims else None)
    if chosen.spec is not None:
        for line in differences(chosen.spec, measured, chosen.options):
            reporter.warn(f"teacher '{chosen.name}' has {line}")
    return probed.signals, measured
