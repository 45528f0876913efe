"""Provenance of a version: teachers of its whole history, initial weights, releases; and their licenses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.distill.model.student import anchored
from kdkit.core.project.licenses import LicenseFacts, allowed
from kdkit.core.project.lineage import InitialWeights, Lineage, TeacherRecord
from kdkit.core.project.registry.chosen import chosen_teacher
from kdkit.core.project.registry.lock import NOT_PUBLISHED
from kdkit.core.project.versions import Version, Versions
from kdkit.core.sharing.release.license import UNDETERMINED, StudentLicense, derive_license
from kdkit.core.sharing.release.redact import public_source
from kdkit.core.teachers.initial_weights import source_of
from kdkit.core.teachers.license import read_license

if TYPE_CHECKING:
    from kdkit.core.contracts import TeacherSpec
    from kdkit.core.project.project import Project

_SNAPSHOT = re.compile(r"models--(?P<repo>.+)/snapshots/[0-9a-f]{40}")
"""A folder of the Hub's cache."""
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
"""``ORG/NAME``, and no path."""


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
    config = student.config
    init = config.get("init")
    named = sorted(init.items()) if isinstance(init, Mapping) else [("", init)]
    folders = [folder for _, folder in named if isinstance(folder, str) and folder != NOT_PUBLISHED]
    if not folders:  # the license of the release binds instead
        return None
    stated = str(config.get("base", ""))  # of a download
    first, *others = (_weights_of(project, folder, stated) for folder in folders)
    return replace(first, beside=tuple(others))


def _weights_of(project: Project, init: str, stated: str) -> InitialWeights:
    """Initial weights in the folder ``init`` of a student's config; ``stated``: the repository that it names."""
    if (found := source_of(project, init)) is not None:
        chosen, files = found
        known = chosen.license_facts(files.license, gated=files.gated)
        return InitialWeights(_repository(files.source), known)
    folder = Path(anchored(init, project.root)).absolute()
    lock = project.lock
    for name, facts in lock.teachers.items():
        if folder == (project.artifacts / name).absolute():
            known = LicenseFacts(seen=facts.license.name if facts.license else None, gated=facts.gated)
            if name in project.registry.teachers:
                known = chosen_teacher(project, name).license_facts(facts.license, gated=facts.gated)
            return InitialWeights(_repository(facts.source), known)
    seen, gated = read_license(folder) if folder.is_dir() else (None, False)
    snapshot = _SNAPSHOT.search(folder.as_posix())
    repository = snapshot["repo"].replace("--", "/", 1) if snapshot else stated if _NAME.fullmatch(stated) else ""
    return InitialWeights(repository, LicenseFacts(seen=seen.name if seen else None, gated=gated))


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
    repository = _repository(entry.source)
    specs: list[Any] = [known.spec for known in project.catalogue.contents["teacher"]]
    same = [s for s in specs if s.name == entry.name and repository and _repository(s.source) == repository]
    return same[0] if same else None


def _repository(source: str) -> str:
    """``ORG/NAME`` of ``hf:ORG/NAME[@REV]``; else empty."""
    kind, _, place = source.partition(":")
    return place.partition("@")[0] if kind == "hf" else ""


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
