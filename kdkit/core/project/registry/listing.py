"""The rows of ``kdkit teachers``: facts, license and state, without loading a teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Kind, TeacherSpec
from kdkit.core.plugin_system.catalogue import Catalogue, Entry
from kdkit.core.plugin_system.installed import BUILT_IN
from kdkit.core.project.licenses import LicenseClass, Use, allowed
from kdkit.core.project.project import Project
from kdkit.core.project.registry.chosen import ChosenTeacher, choose
from kdkit.core.project.registry.lock import LockedTeacher
from kdkit.core.project.registry.schema import TeacherEntry

State = Literal["locked", "not locked", "available", "unavailable"]


@dataclass(frozen=True)
class TeacherRow:
    """One teacher.

    Attributes:
        chosen: it is in the registry.
        state: ``locked`` (fetched and probed), ``not locked`` (in the registry only), ``available`` (can be
            added), ``unavailable`` (no plugin provides its architecture).
        dims: signal -> width, measured or from the catalogue; None if unknown.
        domains: the domains that it teaches; for others, those that its authors name.
        license_class: of the strictest of its licenses.
        kind: what it reads into features; None if the catalogue does not know it.
        parameters: number of its weights; None if unknown.
        distillation: verdict for the project's use, with ``reason``.
        note: remarks.
    """

    name: str
    chosen: bool
    state: State
    dims: dict[str, int | None]
    domains: tuple[str, ...]
    license: str
    distillation: Literal["allowed", "unclear", "denied"]
    reason: str
    source: str
    loader: str
    provider: str
    summary: str
    note: str
    license_class: LicenseClass = "unknown"
    kind: Kind | None = None
    parameters: int | None = None


def chosen_rows(project: Project) -> list[TeacherRow]:
    """The registry's teachers, in its order."""
    lock, registry = project.lock, project.registry
    rows = []
    for name, entry in registry.teachers.items():
        try:
            teacher = choose(project.catalogue, name, entry)
        except KdkitError as error:  # for example, its plugin was uninstalled
            rows.append(_lost(name, entry, error))
            continue
        rows.append(_row(teacher, registry.use, lock.teachers.get(name), chosen=True))
    return rows


def available_rows(catalogue: Catalogue, use: Use, without: frozenset[str] = frozenset()) -> list[TeacherRow]:
    """The teachers of the catalogue except ``without``, under the names that ``add-teacher`` takes."""
    rows = []
    for entry in catalogue.entries("teacher"):
        if entry.spec.name in without:
            continue
        try:
            teacher = choose(catalogue, entry.spec.name, TeacherEntry.model_validate({"provider": entry.provider}))
        except KdkitError:  # several plugins provide the name: an error only on use
            continue
        row = _row(teacher, use, None, chosen=False)
        rows.append(replace(row, name=_name_to_use(catalogue, entry)))
    return rows


def _name_to_use(catalogue: Catalogue, entry: Entry) -> str:
    """The short name if unambiguous, else ``distribution:name``."""
    others = [e for e in catalogue.entries("teacher") if e.spec.name == entry.spec.name and e is not entry]
    return entry.qualified if others and entry.provider != BUILT_IN else str(entry.spec.name)


def _lost(name: str, entry: TeacherEntry, error: KdkitError) -> TeacherRow:
    """A teacher without a catalogue entry."""
    return TeacherRow(
        name=name,
        chosen=True,
        state="unavailable",
        dims={},
        domains=tuple(entry.domains or ()),
        license=entry.license or "unknown",
        distillation="unclear",
        reason=error.what,
        source=entry.source or "",
        loader=entry.loader or "",
        provider=entry.provider or "",
        summary="",
        note=". ".join(part for part in (error.what, error.why, error.fix) if part),
    )


def _row(teacher: ChosenTeacher, use: Use, locked: LockedTeacher | None, *, chosen: bool) -> TeacherRow:
    spec = teacher.spec
    facts = teacher.license_facts(locked.license if locked else None, gated=bool(locked and locked.gated))
    verdict = allowed(facts, use)
    can_be: State = "not locked" if chosen else "available"
    return TeacherRow(
        name=teacher.name,
        chosen=chosen,
        state="locked" if locked else "unavailable" if teacher.unavailable else can_be,
        dims=dict(locked.dims) if locked else _declared_dims(spec),
        domains=(spec.domains if spec else ()) if teacher.domains is None else teacher.domains,
        license=facts.shown,
        distillation="denied" if not verdict.allowed else "unclear" if verdict.warning else "allowed",
        reason=verdict.reason,
        source=teacher.source,
        loader=locked.loader if locked else teacher.loader,
        provider=teacher.provider,
        summary=spec.summary if spec else "",
        note=teacher.unavailable or (spec.notes if spec else ""),
        license_class=facts.strictest,
        kind=spec.kind if spec else None,
        parameters=spec.parameters if spec else None,
    )


def _declared_dims(spec: TeacherSpec | None) -> dict[str, int | None]:
    if spec is None or spec.kind == "answers":
        return {}
    dims = {"image": spec.image_dim, "text": spec.text_dim}
    return {name: dims[name] for name in spec.kind.split("-")}
