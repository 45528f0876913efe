"""Toy projects for the tests of distillation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.core.distill.toy_runs import ALL, add_xray, run
from tests.toy_project import make_project


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one version, trained on a teacher of two of its three domains."""
    root = tmp_path_factory.mktemp("toy") / "project"
    project = make_project(root, teachers={"radio": ("ct", "mri")}, domains=ALL)
    run(project)
    return root


@pytest.fixture
def folder(first_version: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(first_version, tmp_path / "project"))


@pytest.fixture
def with_xray(folder: Path) -> Path:
    """The copy, with a teacher of the third domain added."""
    return add_xray(folder)
