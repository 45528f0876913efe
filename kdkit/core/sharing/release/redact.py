"""Remove paths from lineages, registry and lock, and search published files for remaining ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.project.lineage import HUB, Lineage, Origin
from kdkit.core.project.registry.lock import NOT_PUBLISHED, Lock
from kdkit.core.project.registry.schema import Registry

_PATH = re.compile(r"(\.{1,2}|~\w*|[A-Za-z]:)?[/\\].*\w.*", re.DOTALL)
_BLOCK = 1 << 20
_PUBLIC_SOURCES = ("hf:", "package:", "https://")


def without_paths(value: Any) -> Any:
    """A copy of plain data with ``(not published)`` in place of paths.

    A path starts with ``/``, ``./``, ``../``, ``~/`` or a drive letter, as in a student's config.
    """
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and _PATH.fullmatch(value):
        return NOT_PUBLISHED
    return value


def public_source(source: str) -> str:
    """``hf:``, ``package:`` and ``https://`` sources unchanged; ``local:`` without its path."""
    return source if source.startswith(_PUBLIC_SOURCES) else f"{source.partition(':')[0]}:{NOT_PUBLISHED}"


def public_lineage(lineage: Lineage) -> Lineage:
    public = Lineage.from_json(without_paths(lineage.to_json()))
    student = replace(public.student, config=_public_config(public.student.config))
    teachers = tuple(replace(teacher, source=public_source(teacher.source)) for teacher in public.teachers)
    return replace(public, student=student, teachers=teachers)


def public_origin(origin: Origin | None, endpoint: str = HUB) -> Origin | None:
    """The origin without the address of a Hub that is neither the default one nor ``endpoint``: it may be private."""
    if origin is None or origin.endpoint in (HUB, endpoint):
        return origin
    return replace(origin, endpoint=NOT_PUBLISHED)


def public_registry(registry: Registry, *, recipe: str) -> dict[str, Any]:
    """The registry as data: no samples, no paths, nothing of a machine; ``recipe`` is a name or a path inside the
    release."""
    plain = registry.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    entry = registry.student
    teachers = {name: _public_entry(fields) for name, fields in plain.get("teachers", {}).items()}
    kept = {
        key: value for key, value in plain.items() if key not in ("data", "student", "teachers", "recipe", "inputs")
    }
    return {
        "version": registry.version,
        "use": registry.use,
        "student": {"family": entry.family, "config": _public_config(entry.config)},
        "teachers": teachers,
        **{key: without_paths(value) for key, value in kept.items() if key not in ("version", "use")},
        "recipe": recipe,
    }


def _public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A student's config; ``folder`` and ``init`` are always paths."""
    public: dict[str, Any] = without_paths(config)
    if "init" in public:
        public["init"] = NOT_PUBLISHED
    tokenizer = public.get("tokenizer")
    if isinstance(tokenizer, Mapping) and "folder" in tokenizer:
        public["tokenizer"] = {"folder": NOT_PUBLISHED}
    return public


def _public_entry(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A teacher's entry; live signals and their device belong to a machine and change no result."""
    own = ("signals", "device", "offload")
    public: dict[str, Any] = without_paths({key: value for key, value in fields.items() if key not in own})
    if "from" in public:
        public["from"] = public_source(public["from"])
    return public


def public_lock(lock: Lock, teachers: Sequence[str]) -> Lock:
    """The lock of those teachers, without paths."""
    facts = {}
    for name in teachers:
        if name in lock.teachers:
            known = lock.teachers[name]
            facts[name] = known.model_copy(
                update={
                    "source": public_source(known.source),
                    "options": without_paths(known.options),
                    "also": {key: public_source(source) for key, source in known.also.items()},
                }
            )
    # Sources of data stay private; the other names are what a pulled project needs.
    providers = {family: names for family, names in lock.providers.items() if family != "source"}
    return Lock(teachers=facts, providers=providers)


def check_nothing_leaks(folder: Path, secrets: Sequence[str], *, without: tuple[str, ...] = ()) -> None:
    """Search ``folder`` for ``secrets`` (paths of the machine), plain and JSON-escaped.

    Skips files with a suffix in ``without``.

    Raises:
        KdkitError: a file contains one.
    """
    needles = {form.encode() for secret in secrets if len(secret) > 3 for form in (secret, json.dumps(secret)[1:-1])}
    overlap = max(map(len, needles), default=0)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(without)):
        found = next((needle for block in _blocks(path, overlap) for needle in needles if needle in block), None)
        if found is not None:
            raise KdkitError(
                "KD-REL-024",
                f"'{path.relative_to(folder).as_posix()}' contains a path of this machine",
                where=found.decode(),
                why="published files must contain no paths of this machine",
                fix="take the path out of the registry, the recipe or the student's files",
                code=ExitCode.FOUND,
            )


def _blocks(path: Path, overlap: int) -> Iterator[bytes]:
    """Overlapping pieces of a file."""
    with path.open("rb") as handle:
        tail = b""
        while block := handle.read(_BLOCK):
            yield tail + block
            tail = (tail + block)[-overlap:] if overlap else b""
