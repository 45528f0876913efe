"""The registry of a pulled project: the author's choices as an editable file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.features.extract.answers import TOKENS
from kdkit.core.project.lineage import Origin
from kdkit.core.project.recipe_file import is_path
from kdkit.core.project.registry.load import check_registry
from kdkit.core.project.registry.lock import Lock, LockedTeacher
from kdkit.core.project.registry.render import render_entry
from kdkit.core.project.registry.schema import Registry
from kdkit.core.sharing.release.layout import RECIPE, below_kdkit
from kdkit.core.sharing.release.redact import public_registry


def unpublished(registry: Registry, lock: Lock) -> tuple[str, ...]:
    """Teachers from a local folder, whose files only the author has."""
    return tuple(
        name
        for name, entry in registry.teachers.items()
        if (lock.teachers[name].source if name in lock.teachers else entry.source or "").startswith("local:")
    )


def registry_text(
    registry: Registry, lock: Lock, origin: Origin, *, recipe_file: bool, with_features: Collection[str] = ()
) -> str:
    """``registry.yaml`` of a project pulled from ``origin``, commented, without data.

    An unpublished teacher is a comment, unless it is in ``with_features``: then it teaches from its column.

    Args:
        registry: of the release; paths in it are removed again.
        recipe_file: the release contains its recipe.

    Raises:
        KdkitError: the text does not parse to ``registry``; a recipe file that the release lacks.
    """
    recipe = f"./{below_kdkit(RECIPE)}" if recipe_file else registry.recipe
    if not recipe_file and is_path(recipe):
        raise KdkitError(
            "KD-REL-019",
            "this release lacks its recipe file",
            where=origin.repository,
            why=recipe,
            fix="report it to the author, who must push it again",
        )
    data = public_registry(registry, recipe=recipe)
    held_by_author = unpublished(registry, lock)
    hidden = [name for name in held_by_author if name not in with_features]
    text = "\n".join(
        [
            *_HEAD.format(**vars(origin)).splitlines(),
            "version: 1",
            "",
            *_WITH_USE,
            *_part("use", data["use"]),
            "",
            *_WITH_STUDENT,
            *_part("student", data["student"]),
            "",
            *_WITH_TEACHERS,
            *_teachers(data["teachers"], lock, hidden, held_by_author),
            "",
            *_DATA,
            "",
            *_optional("prompts", data, _WITH_PROMPTS),
            *_WITH_RECIPE,
            *_part("recipe", data["recipe"]),
            "",
            *_optional("optimizer", data, ()),
            *_optional("trust", data, ()),
            *_WITH_GUARD,
            *_part("guard", data.get("guard") or {"tolerance": registry.guard.tolerance}),
            "",
        ]
    )
    shown = {name: entry for name, entry in data["teachers"].items() if name not in hidden}
    if check_registry(text) != Registry.model_validate({**data, "teachers": shown}):
        raise KdkitError(
            "KD-REL-020",
            "the registry of this release cannot be written as a file",
            where=origin.repository,
            fix="report it to the author with the repository's name",
        )
    return text


def _part(key: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return render_entry(key, value, 0)
    return [render_entry("part", {key: value}, 0)[1].strip()]


def _optional(key: str, data: Mapping[str, Any], comment: Collection[str]) -> list[str]:
    return [*comment, *_part(key, data[key]), ""] if data.get(key) else []


def _teachers(
    entries: Mapping[str, Mapping[str, Any]], lock: Lock, hidden: Collection[str], held_by_author: Collection[str]
) -> list[str]:
    lines = ["teachers:"]
    for name, fields in entries.items():
        about, entry = _known(lock.teachers.get(name)), render_entry(name, fields, 2)
        if name in hidden:
            facts = lock.teachers.get(name)
            generates = facts is not None and (not facts.dims or TOKENS in facts.dims)
            comment = _HIDDEN_ANSWERING if generates else _HIDDEN
            about, entry = [*comment, *about], [f"  # {line[2:]}" for line in entry]
        elif name in held_by_author:
            about = [*_HELD_BY_FEATURES, *about]
        lines += [*(f"  # {line}" for line in about), *entry]
    return lines if lines[1:] else ["teachers: {}"]


def _known(facts: LockedTeacher | None) -> list[str]:
    if facts is None:
        return []
    license = facts.license.name if facts.license else "unknown"
    widths = ", ".join(f"{signal} {width}" for signal, width in facts.dims.items())
    at = f" at {facts.commit[:12]}" if facts.commit else ""
    line = f"{facts.source}{at}; license by its files: {license}; {widths}; fingerprint {facts.fingerprint[:12]}"
    return ["".join(char if char.isprintable() else " " for char in line)]


_HEAD = """\
# Pulled from {repository} at {commit}: version {version} of its student.
# You own this file: kdkit only adds and removes teachers below, other bytes stay. Add your data and teachers
# ("kdkit add-teacher NAME"), then: kdkit distill --incremental. Every key is explained in docs/reference/registry.md.
"""
_WITH_USE = ("# Use of the student: research or commercial. kdkit checks the licenses of its teachers against it.",)
_WITH_STUDENT = ("# The student. Keep this entry unchanged for increments.",)
_WITH_TEACHERS = (
    "# Its teachers. kdkit fetches them when your data need them; remove those that should not teach any more.",
)
_HIDDEN = (
    "Its files are not published. If you have its features ('kdkit features pull ORG/DATASET'),",
    "remove '# ' before its lines: it then teaches from them.",
)
_HIDDEN_ANSWERING = (
    "Its files are not published; features of generated answers are never shared.",
    "If you have its folder, remove '# ' before its lines and set 'from'.",
)
_HELD_BY_FEATURES = ("Its files are not published: it teaches from its features.",)
_DATA = (
    "# Your images and texts (docs/howto/data.md); 'kdkit data check' checks them. The author's are not published.",
    "data:",
    "#  - source: folder",
    "#    path: images",
    "#    options: {domain: ct, split_fractions: {train: 0.8, calibration: 0.1, test: 0.1}}",
)
_WITH_PROMPTS = ("# Prompt templates of classes, by default or per domain.",)
_WITH_RECIPE = ("# How to distill: a name of 'kdkit recipes', or a YAML file.",)
_WITH_GUARD = (
    "# The guard refuses a new version if a domain loses more points of accuracy than this.",
    "# It cannot check a domain without labeled samples.",
)
