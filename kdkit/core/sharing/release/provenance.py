"""Where a version comes from: teachers of its whole history, initial weights, releases; and their licenses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.distill.model.build import anchored
from kdkit.core.project.licenses import FACTS, LicenseFacts, allowed
from kdkit.core.project.registry.chosen import chosen_teacher
from kdkit.core.project.registry.lock import NOT_PUBLISHED
from kdkit.core.project.versions import Version, Versions
from kdkit.core.sharing.release.layout import Origin
from kdkit.core.sharing.release.license import UNDETERMINED, StudentLicense, derive_license
from kdkit.core.sharing.release.redact import public_source
from kdkit.core.teachers.card import license_seen

if TYPE_CHECKING:
    from kdkit.core.contracts import TeacherSpec
    from kdkit.core.project.project import Project

START = "start"
"""Key of a published lineage's student: its initial weights, and what is known about their license."""
_SNAPSHOT = re.compile(r"models--(?P<repo>.+)/snapshots/[0-9a-f]{40}")
"""A folder of the Hub's cache."""
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
"""``ORG/NAME``, and no path."""
PUBLISHED_UNDER = "published_under"
"""Key of a published lineage: the license of that release, which binds what is made of it."""


@dataclass(frozen=True)
class Taught:
    """A teacher of the history.

    Attributes:
        name: as in the lineage; of two teachers of one name the later has its first version behind it.
        entry: what the latest lineage that it occurs in says about it; ``domains`` and ``trust`` of all of them.
        facts: about its license.
        paper: where the catalogue knows one.
    """

    name: str
    entry: Mapping[str, Any]
    facts: LicenseFacts
    paper: str = ""


@dataclass(frozen=True)
class Start:
    """What the first version's weights were, where they were not random.

    Attributes:
        repository: on the Hub; empty where it is not known.
        facts: about its license.
    """

    repository: str
    facts: LicenseFacts


def teachers_of(project: Project, history: Sequence[Mapping[str, Any]]) -> tuple[Taught, ...]:
    """All that a version learnt from, in the order in which they came."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for lineage in history:
        for entry in lineage["teachers"]:
            key = (entry["name"], public_source(entry["source"]))
            # An inherited row repeats an earlier one; it may know less. Other projects have data of other domains.
            before = found.get(key, {})
            taught = {part: {**before.get(part, {}), **entry[part]} for part in ("domains", "trust")}
            found[key] = {**before, **entry, **taught}
    names: set[str] = set()
    result = []
    for (name, _), entry in found.items():
        shown = f"{name} ({entry['since']})" if name in names else name
        names.add(name)
        spec = _spec(project, entry)
        result.append(Taught(shown, entry, _facts(project, entry, spec), spec.paper if spec else ""))
    return tuple(result)


def start_of(project: Project, history: Sequence[Mapping[str, Any]]) -> Start | None:
    """What the student of the first version started from; None for random weights, and where nobody wrote it down."""
    told = history[0]["student"].get(START)
    if told is not None:
        return Start(told["repository"], LicenseFacts(**told[FACTS]))
    registry = history[0]["student"].get("registry") or {}
    config = registry.get("config", {})
    init = config.get("init")
    if not isinstance(init, str) or init == NOT_PUBLISHED:  # of a release, its license counts
        return None
    folder = Path(anchored(init, project.root)).absolute()
    lock = project.lock
    for name, facts in lock.teachers.items():
        if folder == (project.artifacts / name).absolute():
            known = LicenseFacts(seen=facts.license.name if facts.license else None, gated=facts.gated)
            if name in project.registry.teachers:
                known = chosen_teacher(project, name).license_facts(facts.license, gated=facts.gated)
            return Start(_repository(facts.source), known)
    seen, gated = license_seen(folder) if folder.is_dir() else (None, False)
    snapshot = _SNAPSHOT.search(folder.as_posix())
    said = str(config.get("base", ""))  # by a person, of a download
    repository = snapshot["repo"].replace("--", "/", 1) if snapshot else said if _NAME.fullmatch(said) else ""
    return Start(repository, LicenseFacts(seen=seen.name if seen else None, gated=gated))


def require_permissions(project: Project, teachers: Sequence[Taught]) -> list[str]:
    """Warnings about licenses under which the project may distil.

    Raises:
        KdkitError: exit code 4, where one forbids the project's use.
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


def origin_of(project: Project, version: Version) -> Origin | None:
    """The release that the project was pulled from, if the version comes from that."""
    pulled = [item.pulled["origin"] for item in Versions(project).ancestry(version) if item.pulled]
    origins = [origin for origin in pulled if origin is not None]
    return Origin.from_json(origins[-1]) if origins else None


def releases_of(history: Sequence[Mapping[str, Any]]) -> dict[str, LicenseFacts]:
    """The releases that a version comes from, and what they were published under."""
    published = {lineage["version"]: lineage.get(PUBLISHED_UNDER) for lineage in history}
    return {f"release {version}": LicenseFacts(seen=name) for version, name in published.items() if name}


def correctors_of(history: Sequence[Mapping[str, Any]]) -> dict[str, LicenseFacts]:
    """Models whose words a version was taught in the place of its own, and what is known of their licenses."""
    told = [lineage.get("correction") or {} for lineage in history]
    return {
        f"corrector '{correction['corrector']}'": LicenseFacts(**correction[FACTS])
        for correction in told
        if FACTS in correction and any(part["rewritten"] for part in correction["rounds"])
    }


def with_facts(lineage: Mapping[str, Any], teachers: Sequence[Taught]) -> dict[str, Any]:
    """The lineage with what is known about its teachers' licenses, for those who pull it."""
    known = {(t.entry["name"], public_source(t.entry["source"])): asdict(t.facts) for t in teachers}
    entries = [{**entry, FACTS: known[entry["name"], public_source(entry["source"])]} for entry in lineage["teachers"]]
    return {**lineage, "teachers": entries}


def with_start(lineage: Mapping[str, Any], start: Start) -> dict[str, Any]:
    """The first lineage with what is known about the initial weights, for those who pull it."""
    told = {"repository": start.repository, FACTS: asdict(start.facts)}
    return {**lineage, "student": {**lineage["student"], START: told}}


def _facts(project: Project, entry: Mapping[str, Any], spec: TeacherSpec | None) -> LicenseFacts:
    """What the registry says where it is still the same teacher; else what was written down, and the catalogue."""
    name, source = entry["name"], public_source(entry["source"])
    locked = project.lock.teachers.get(name)
    if name in project.registry.teachers and locked and public_source(locked.source) == source:
        return chosen_teacher(project, name).license_facts(locked.license, gated=locked.gated)
    facts = LicenseFacts(**entry[FACTS]) if FACTS in entry else LicenseFacts(seen=entry.get("license"))
    if spec is None or facts.catalogue != "unknown":
        return facts
    note = spec.notes if spec.distillation in ("forbidden", "non-commercial") else ""
    return replace(facts, catalogue=spec.license, distillation=spec.distillation, note=note, gated=spec.gated)


def _spec(project: Project, entry: Mapping[str, Any]) -> TeacherSpec | None:
    """The catalogue's entry about the same model."""
    repository = _repository(entry["source"])
    specs: list[Any] = [known.spec for known in project.catalogue.contents["teacher"]]
    same = [s for s in specs if s.name == entry["name"] and repository and _repository(s.source) == repository]
    return same[0] if same else None


def _repository(source: str) -> str:
    """``ORG/NAME`` of ``hf:ORG/NAME[@REV]``; else empty."""
    kind, _, place = source.partition(":")
    return place.partition("@")[0] if kind == "hf" else ""


@dataclass(frozen=True)
class Ancestry:
    """All that a version comes from, and what it may be published under.

    Attributes:
        history: lineages, oldest first, its own last.
        teachers: of the whole history.
        start: what its first weights were.
        license: the strictest.
        warnings: what must be read before publishing.
    """

    history: tuple[Mapping[str, Any], ...]
    teachers: tuple[Taught, ...]
    start: Start | None
    license: StudentLicense
    warnings: tuple[str, ...]


def _unknown_start() -> KdkitError:
    return KdkitError(
        "KD-REL-014",
        "nobody knows whether what became of the student's initial weights may be published",
        where="license of the student",
        why="their license is unknown",
        fix="find out and state the student's: --license NAME; or push to a private repository",
        code=ExitCode.DENIED,
    )


def ancestry_of(project: Project, version: Version, *, stated: str | None, public: bool) -> Ancestry:
    """Find it out; see :func:`require_permissions` and :func:`derive_license` for what they raise."""
    history = Versions(project).history(version)
    teachers, start = teachers_of(project, history), start_of(project, history)
    warnings = require_permissions(project, teachers)
    others = releases_of(history) | correctors_of(history)
    unknown_start = start is not None and start.facts.strictest == "unknown"
    if unknown_start:
        warnings.append("nobody knows what the student's initial weights allow")
        if public and stated is None:
            raise _unknown_start()
    elif start is not None:
        others["its initial weights"] = start.facts
    data = [name for lineage in history for name in lineage["data"].get("licenses", ())]
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
    return Ancestry(history, teachers, start, license, tuple(dict.fromkeys((*warnings, *license.warnings))))
