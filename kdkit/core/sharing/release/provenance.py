"""Provenance of a version: teachers of its whole history, initial weights, releases; and their licenses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.distill.model.initial_origin import initial_weights_of, repository_of
from kdkit.core.project.licenses import LicenseFacts, allowed
from kdkit.core.project.lineage import InitialWeights, Lineage, TeacherRecord
from kdkit.core.project.registry.chosen import chosen_teacher
from kdkit.core.project.versions import Version, Versions
from kdkit.core.sharing.release.license import UNDETERMINED, StudentLicense, derive_license
from kdkit.core.sharing.release.redact import public_source

if TYPE_CHECKING:
    from kdkit.core.contracts import TeacherSpec
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class Taught:
    """A teacher of the history.

    Attributes:
        name: as in the lineage; a second teacher of the same name gets its first version as suffix.
        entry: its latest record; ``domains`` and ``trust`` are merged over all lineages.
        facts: about its license.
        paper: from the catalogue, or empty.
    """

    name: str
    entry: TeacherRecord
    facts: LicenseFacts
    paper: str = ""


def teachers_of(project: Project, history: Sequence[Lineage]) -> tuple[Taught, ...]:
    """All teachers of a history, in order of appearance."""
    found: dict[tuple[str, str], TeacherRecord] = {}
    for lineage in history:
        for entry in lineage.teachers:
            before = found.get(_key(entry), entry)  # other projects have data of other domains
            domains, trust = {**before.domains, **entry.domains}, {**before.trust, **entry.trust}
            found[_key(entry)] = replace(entry, domains=domains, trust=trust)
    names: set[str] = set()
    result = []
    for entry in found.values():
        shown = f"{entry.name} ({entry.since})" if entry.name in names else entry.name
        names.add(entry.name)
        spec = _spec(project, entry)
        result.append(Taught(shown, entry, _facts(project, entry, spec), spec.paper if spec else ""))
    return tuple(result)


def _key(entry: TeacherRecord) -> tuple[str, str]:
    return entry.name, public_source(entry.source)


def start_of(project: Project, history: Sequence[Lineage]) -> InitialWeights | None:
    """Initial weights of the first version; None if random or unknown."""
    student = history[0].student
    if student.start is not None:
        return student.start
    return initial_weights_of(project, student.config)


def require_permissions(project: Project, teachers: Sequence[Taught]) -> list[str]:
    """Check the teachers' licenses against the project's use; returns warnings.

    Raises:
        KdkitError: exit code 4 if one forbids it.
    """
    warnings = []
    for teacher in teachers:
        verdict = allowed(teacher.facts, project.registry.use)
        if not verdict.allowed:
            raise KdkitError(
                "KD-REL-013",
                f"a student of '{teacher.name}' may not be published",
                where=f"teacher '{teacher.name}'",
                why=verdict.reason,
                fix=verdict.fix,
                code=ExitCode.DENIED,
            )
        if verdict.warning:
            warnings.append(f"teacher '{teacher.name}': {verdict.reason}")
    return warnings


def releases_of(history: Sequence[Lineage]) -> dict[str, LicenseFacts]:
    """Licenses of the releases in a history."""
    published = {lineage.version: lineage.published_under for lineage in history}
    return {f"release {version}": LicenseFacts(seen=name) for version, name in published.items() if name}


def correctors_of(history: Sequence[Lineage]) -> dict[str, LicenseFacts]:
    """Licenses of the models that rewrote answers of the training data."""
    return {
        f"corrector '{correction.corrector}'": correction.license_facts
        for correction in (lineage.correction for lineage in history)
        if correction and correction.license_facts and any(part.rewritten for part in correction.rounds)
    }


def with_facts(lineage: Lineage, teachers: Sequence[Taught]) -> Lineage:
    """The lineage with the license facts of its teachers."""
    known = {_key(teacher.entry): teacher.facts for teacher in teachers}
    entries = tuple(replace(entry, license_facts=known[_key(entry)]) for entry in lineage.teachers)
    return replace(lineage, teachers=entries)


def _facts(project: Project, entry: TeacherRecord, spec: TeacherSpec | None) -> LicenseFacts:
    """From the registry if it has the same teacher; else from the lineage and the catalogue."""
    name, source = _key(entry)
    locked = project.lock.teachers.get(name)
    if name in project.registry.teachers and locked and public_source(locked.source) == source:
        return chosen_teacher(project, name).license_facts(locked.license, gated=locked.gated)
    facts = entry.license_facts
    if spec is None or facts.catalogue != "unknown":
        return facts
    note = spec.notes if spec.distillation in ("forbidden", "non-commercial") else ""
    return replace(facts, catalogue=spec.license, distillation=spec.distillation, note=note, gated=bool(spec.gated))


def _spec(project: Project, entry: TeacherRecord) -> TeacherSpec | None:
    """The catalogue entry of the same model."""
    repository = repository_of(entry.source)
    specs: list[Any] = [known.spec for known in project.catalogue.contents["teacher"]]
    same = [s for s in specs if s.name == entry.name and repository and repository_of(s.source) == repository]
    return same[0] if same else None


@dataclass(frozen=True)
class Provenance:
    """Origins of a version and the license that follows from them.

    Attributes:
        history: lineages, oldest first, its own last.
        teachers: of the whole history.
        start: initial weights of the first version.
        license: the strictest.
        warnings: to show before publishing.
    """

    history: tuple[Lineage, ...]
    teachers: tuple[Taught, ...]
    start: InitialWeights | None
    license: StudentLicense
    warnings: tuple[str, ...]


def provenance_of(project: Project, version: Version, *, stated: str | None, public: bool) -> Provenance:
    """Trace ``version``. Raises: as :func:`require_permissions` and :func:`derive_license`."""
    history = Versions(project).history(version)
    teachers, start = teachers_of(project, history), start_of(project, history)
    warnings = require_permissions(project, teachers)
    others = releases_of(history) | correctors_of(history)
    parts = start.parts if start is not None else ()
    unknown_start = any(part.license_facts.strictest == "unknown" for part in parts)
    if unknown_start:
        warnings.append("the license of the student's initial weights is unknown")
        if public and stated is None:
            raise KdkitError(
                "KD-REL-014",
                "the student may not be published: the license of its initial weights is unknown",
                where="license of the student",
                why="no license file or model card of the initial weights states one",
                fix="find out and state the student's: --license NAME; or push to a private repository",
                code=ExitCode.DENIED,
            )
    for number, part in enumerate(parts, start=1):
        if part.license_facts.strictest != "unknown":
            others["its initial weights" + (f" ({number})" if len(parts) > 1 else "")] = part.license_facts
    data = [name for lineage in history for name in lineage.data.licenses]
    license = derive_license(
        {teacher.name: teacher.facts for teacher in teachers},
        project.registry.use,
        others=others,
        data=[*data, *(entry.license for entry in project.registry.data if entry.license)],
        stated=stated,
        public=public,
    )
    if unknown_start and stated is None:
        others_unknown = license.because if license.name == UNDETERMINED else ()
        because = (*others_unknown, "its initial weights")
        license = replace(license, name=UNDETERMINED, kind="unknown", because=because)
    return Provenance(history, teachers, start, license, tuple(dict.fromkeys((*warnings, *license.warnings))))
