"""``kdkit init``: a new project."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.system_errors import system_errors
from kdkit.core.project.project import REGISTRY, Project
from kdkit.core.project.registry.render import flow

EXAMPLE = "#  - source: folder\n#    path: images\n#    options: "
"""The beginning of the example below ``data:`` in the template."""


def create_project(folder: Path, entry: Mapping[str, Any] | None = None) -> Project:
    """Write a commented ``registry.yaml`` into ``folder``, which is created if necessary.

    Args:
        folder: of the project.
        entry: its data entry; ``source``, ``path`` and ``options``. None leaves the example in a comment.

    Raises:
        KdkitError: the folder has another registry, or cannot be written.
    """
    path = folder.resolve() / REGISTRY
    template = (files("kdkit.core.project.registry") / "template.yaml").read_text(encoding="utf-8")
    content = _with_entry(template, entry).encode()
    with system_errors(str(folder)):
        if path.is_file() and path.read_bytes() == content:
            return Project(path.parent)
    if path.exists():
        fix = "use it, or choose another folder"
        if entry is not None:
            fix += f"; or add to its data: - {flow(dict(entry))}"
        raise KdkitError("KD-REG-005", "a project exists here", where=str(path), fix=fix)
    with system_errors(str(folder)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return Project(path.parent)


def _with_entry(template: str, entry: Mapping[str, Any] | None) -> str:
    """The template with ``entry`` in the place of its example."""
    if entry is None:
        return template
    start = template.index(EXAMPLE)
    end = template.index("\n", start + len(EXAMPLE)) + 1
    lines = [f"  - source: {flow(entry['source'])}", f"    path: {flow(entry['path'])}"]
    if entry.get("options"):
        lines += ["    options:", *(f"      {flow(name)}: {flow(value)}" for name, value in entry["options"].items())]
    return template[:start] + "\n".join(lines) + "\n" + template[end:]
