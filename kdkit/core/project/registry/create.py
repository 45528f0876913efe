"""``kdkit init``: a new project."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.system_errors import system_errors
from kdkit.core.project.project import REGISTRY, Project


def create_project(folder: Path) -> Project:
    """Write a commented ``registry.yaml`` into ``folder``, which is created if necessary.

    Raises:
        KdkitError: the folder has another registry, or cannot be written.
    """
    path = folder.resolve() / REGISTRY
    template = (files("kdkit.core.project.registry") / "template.yaml").read_bytes()
    with system_errors(str(folder)):
        if path.is_file() and path.read_bytes() == template:
            return Project(path.parent)
    if path.exists():
        raise KdkitError("KD-REG-005", "a project exists here", where=str(path), fix="use it, or choose another folder")
    with system_errors(str(folder)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, template)
    return Project(path.parent)
