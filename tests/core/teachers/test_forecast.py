"""The plan of an addition: files, space, license, domains."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import TeacherSpec
from kdkit.core.teachers import add_teacher, plan_addition
from tests.core.teachers import stub


class Said(stub.Notes):
    """Remembers what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_the_plan_is_told_before_the_files_are_fetched(tmp_path: Path) -> None:
    spec = TeacherSpec(name="a", summary="", source="hf:org/a", loader="stub", license="mit", domains=("ct", "mri"))
    project, reporter = stub.make_project(tmp_path, spec), Said()
    folder = stub.write(tmp_path / "folder")
    planned = plan_addition(project, "a", {"from": "local:folder"}).forecast
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert (planned.bytes, planned.cached, planned.domains) == (total, 0, ("ct", "mri"))
    assert planned.free > 10**6
    assert "mit" in planned.license
    add_teacher(project, "a", {"from": "local:folder", "domains": ["ct"]}, reporter=reporter)
    files, license, domains = reporter.said[:3]
    assert "2 files" in files
    assert "mit" in license
    assert domains.endswith("ct"), "the project's choice, not the authors' domains"
    assert reporter.said[3].startswith("probing")
    barred = plan_addition(project, "b", {"from": "local:folder", "domains": [], "license": "mit"}).forecast
    assert (barred.domains, barred.lines()[-1]) == ((), "domains: none: it teaches nothing")


def test_files_of_other_repositories_are_named(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path).with_catalogue(stub.catalogue(companions="find_companions"))
    stub.write(tmp_path / "folder")
    planned = plan_addition(project, "a", {"from": "local:folder"}).forecast
    assert planned.also == ("hf:org/text", "hf:org/vocabulary")
    assert any("hf:org/text, hf:org/vocabulary" in line for line in planned.lines())


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = stub.make_project(tmp_path)
    stub.write(tmp_path / "a")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    stub.refused(project, "a", {"from": "local:a"}, "KD-TEACH-029", mentions=("10 bytes",), code=ExitCode.MISSING)
