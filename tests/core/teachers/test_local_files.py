"""Folders and installed packages as sources: what comes along, and what must not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.teachers import add_teacher, open_teacher
from tests.core.teachers import stub


def test_only_files_of_a_model_come_and_no_code(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    folder = stub.write(tmp_path / "a")
    for name in ("evil.py", "pytorch_model.bin", "notes.docx", ".git/config.json", "__pycache__/x.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert set(add_teacher(project, "a", {"from": "local:a"}).files) == {"stub.json", "model.safetensors"}


@pytest.mark.parametrize("kind", ["file", "folder", "dangling"])
def test_links_that_lead_outside_are_refused(tmp_path: Path, kind: str) -> None:
    project = stub.make_project(tmp_path)
    folder = stub.write(tmp_path / "a")
    (tmp_path / "secret.json").write_text("{}", encoding="utf-8")
    (tmp_path / "secrets").mkdir()
    target = {"file": "secret.json", "folder": "secrets", "dangling": "nothing.json"}[kind]
    os.symlink(tmp_path / target, folder / "link.json")
    assert "link" in stub.refused(project, "a", **{"from": "local:a"}).what


def test_links_inside_the_folder_are_files(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    folder = stub.write(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    os.symlink("weights.safetensors", folder / "model.safetensors")
    add_teacher(project, "a", {"from": "local:a"})
    assert not any(path.is_symlink() for path in project.artifacts.rglob("*"))


def test_files_inside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = stub.make_project(tmp_path / "project")
    package = tmp_path / "site" / "kdkit_stub_pack"
    stub.write(package / "teachers" / "a")
    (package / "__init__.py").write_text("raise SystemExit('never imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert add_teacher(project, "a", {"from": "package:kdkit_stub_pack/teachers/a"}).dims["image"] == 4
    assert open_teacher(project.reloaded(), "a").name == "a"
    for bad, word in (
        ("package:kdkit_stub_pack/teachers/b", "no such folder"),
        ("package:kdkit_absent/a", "not installed"),
        ("package:kdkit_stub_pack/../../etc", "does not say"),
    ):
        with pytest.raises(KdkitError, match=word):
            add_teacher(project, "b", {"from": bad})
