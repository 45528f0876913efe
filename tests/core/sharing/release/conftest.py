"""A release on a local Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.sharing.release.layout import Record
from kdkit.core.teachers.add import add_teacher
from tests.core.sharing.release.toy_release import REPO, contents, write_release
from tests.local_hub import LocalHub, local_hub
from tests.toy_project import make_project, open_project, train_teacher


@pytest.fixture(scope="session")
def author(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two versions; its teachers are folders of the author's."""
    root = tmp_path_factory.mktemp("author") / "project"
    make_project(root, teachers={"radio": ("ct", "mri")}, domains=("ct", "mri"))
    distill(open_project(root), Options(cpu=True))
    train_teacher(["ct"], width=20, seed=5).save(root / "models" / "more")
    add_teacher(open_project(root), "more", {"from": "local:models/more", "loader": "toy", "license": "mit"})
    registry = root / "registry.yaml"
    registry.write_text(registry.read_text(encoding="utf-8").replace("tolerance: 10", "tolerance: 100"), "utf-8")
    distill(open_project(root), Options(cpu=True, incremental=True))
    return root


@pytest.fixture(scope="session")
def release(author: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("release") / "files"
    return folder, write_release(open_project(author), REPO, folder)


@pytest.fixture
def local(tmp_path: Path, release: tuple[Path, Record]) -> Iterator[LocalHub]:
    """A Hub that has the release."""
    with local_hub(tmp_path / "hub") as hub:
        hub.add(REPO, contents(release[0]), private=True)
        yield hub
