"""A teacher of the project: its registry entry merged with its catalogue entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import TeacherSpec
from kdkit.core.project.licenses import LicenseFacts
from kdkit.core.project.registry.load import line_of
from kdkit.core.project.registry.lock import LicenseSeen
from kdkit.core.project.registry.schema import TeacherEntry

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue, Entry
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class ChosenTeacher:
    """What to load, from where, and how.

    Attributes:
        name: in this project.
        source: ``hf:...``, ``local:...`` or ``package:...``.
        loader: name of a loader; empty if it must be recognized from the files.
        options: options of the loader; the registry's override the spec's.
        domains: the domains that it teaches; None for all.
        license: asserted by the user.
        provider: ``distribution@version`` of the catalogue entry, or ``registry``.
        spec: the catalogue entry, if any.
        where: location for messages.
    """

    name: str
    source: str
    loader: str
    options: Mapping[str, Any]
    domains: tuple[str, ...] | None
    license: str | None
    provider: str
    spec: TeacherSpec | None
    where: str

    @property
    def unavailable(self) -> str:
        """Why no installed plugin can load it; empty if one can."""
        return self.spec.unavailable if self.spec and not (self.loader and self.source) else ""

    def require_available(self) -> None:
        """Raises: KdkitError: it cannot be loaded, with what would change that."""
        if self.unavailable:
            raise KdkitError(
                "KD-REG-001",
                f"teacher '{self.name}' cannot be added by its name",
                where=self.where,
                why=self.unavailable,
                fix=(self.spec.remedy if self.spec else "")
                or "install or write a plugin with a loader for it (docs/reference/registry.md), then --loader LOADER",
                code=ExitCode.MISSING,
            )

    def license_facts(self, seen: LicenseSeen | None = None, *, gated: bool = False) -> LicenseFacts:
        """The claims about its license.

        Args:
            seen: the license in its files.
            gated: whether it requires accepting terms.
        """
        facts = LicenseFacts(asserted=self.license, seen=seen.name if seen else None, gated=gated)
        if self.spec is None:
            return facts
        explained = self.spec.distillation in ("forbidden", "non-commercial")
        return replace(
            facts,
            catalogue=self.spec.license,
            distillation=self.spec.distillation,
            note=self.spec.notes if explained else "",
            gated=gated or bool(self.spec.gated),
        )


def choose(catalogue: Catalogue, name: str, entry: TeacherEntry, where: str = "") -> ChosenTeacher:
    """Merge ``entry`` with the catalogue.

    Args:
        catalogue: the installed plugins.
        name: of the teacher.
        entry: in the registry.
        where: ``registry.yaml:LINE`` for messages.

    Raises:
        KdkitError: an unknown name without a source, an unknown loader, or a name of several plugins.
    """
    found = None
    moved = name in catalogue.pins.get("teacher", {})  # the catalogue's own error has the remedy
    if name in catalogue.names("teacher") or (moved and entry.source is None):
        choose_one = "" if moved else f"write 'provider:' into the entry, or kdkit add-teacher PROVIDER:{name}"
        full_name = f"{entry.provider}:{name}" if entry.provider else name
        found = _get(catalogue, "teacher", full_name, where, choose_one)
    if found is None and entry.source is None:
        near = did_you_mean(name, catalogue.names("teacher"))
        absent = catalogue.not_loaded()
        raise KdkitError(
            "KD-REG-002",
            f"unknown teacher '{name}'",
            where=where,
            why=absent or "no installed plugin provides it, and the entry has no source",
            fix=near + (" Or" if near.endswith("?") else "; or") + " give its source: --from local:DIR or hf:ORG/REPO",
        )
    spec: TeacherSpec | None = found.spec if found else None
    source = entry.source or (spec.source if spec else "")
    loader = entry.loader or (spec.loader if spec else "")
    if entry.loader:
        _get(catalogue, "loader", entry.loader, where)
    return ChosenTeacher(
        name=name,
        source=source,
        loader=loader,
        options={**(spec.options if spec and spec.loader == loader else {}), **entry.options},
        domains=tuple(entry.domains) if entry.domains is not None else None,
        license=entry.license,
        provider=f"{found.provider}@{found.version}" if found else "registry",
        spec=spec,
        where=where,
    )


def _get(catalogue: Catalogue, family: str, name: str, where: str, fix: str = "") -> Entry:
    """``catalogue.get``, with ``where`` in its errors."""
    try:
        return catalogue.get(family, name)
    except KdkitError as error:
        raise error.at(where, fix=fix) from None


def chosen_teacher(project: Project, name: str) -> ChosenTeacher:
    """The teacher ``name`` of the project's registry.

    Raises:
        KdkitError: not in the registry; as :func:`choose`.
    """
    teachers = project.registry.teachers
    if name not in teachers:
        raise KdkitError(
            "KD-REG-004",
            f"no teacher '{name}' in the registry",
            where="registry.yaml",
            why=did_you_mean(name, tuple(teachers)),
            fix=f"kdkit add-teacher {name}",
        )
    where = line_of(project.registry_path, "teachers", name)
    return choose(project.catalogue, name, teachers[name], where)
