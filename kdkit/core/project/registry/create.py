"""A new project."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from kdkit.core.base.atomic import disk_errors, write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.project.project import REGISTRY, Project


def create_project(folder: Path) -> Project:
    """Write a commented ``registry.yaml`` into ``folder``, which is made if it is not there.

    Raises:
        KdkitError: there is a registry already, or the folder cannot be written.
    """
    path = folder.resolve() / REGISTRY
    if path.exists():
        raise KdkitError("KD-REG-005", "there is a project here already", where=str(path), fix="nothing was changed")
    with disk_errors(str(folder)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (files("kdkit.core.project.registry") / "template.yaml").read_bytes())
    return Project(path.parent)
