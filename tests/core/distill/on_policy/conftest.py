"""One project for all tests of this folder, copied by those that change it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kdkit.core.contracts import Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.project.project import Project
from tests.core.distill.on_policy.project import add, make_project

OWN = {"share": 0.5, "max_new": 10}


@pytest.fixture(scope="session")
def own_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose live teacher names every token; its calibration split is extracted."""
    root = tmp_path_factory.mktemp("own") / "p"
    make_project(root, OWN)
    prepare(Project(root), Options(cpu=True), Silent())  # extracts
    return root


@pytest.fixture
def root(own_project: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(own_project, tmp_path / "p"))


@pytest.fixture(scope="session")
def _two_teachers(own_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(own_project, tmp_path_factory.mktemp("two") / "p"))
    add(root, "old", seed=2, live=False)
    prepare(Project(root), Options(cpu=True), Silent())  # extracts
    return root


@pytest.fixture
def two_teachers(_two_teachers: Path, tmp_path: Path) -> Path:
    """The project with one more teacher, whose signals are stored."""
    return Path(shutil.copytree(_two_teachers, tmp_path / "two"))
