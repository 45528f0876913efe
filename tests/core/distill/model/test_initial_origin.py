"""Which files the student's weights come from, and whose they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kdkit.core.distill.model.initial_origin import initial_files, initial_weights_of
from kdkit.core.project.project import Project
from kdkit.core.teachers.initial_weights import initial_parts

TOWERS = "version: 1\nstudent: {family: open_clip, config: {init: {image: ./a/w, text: ./b/w}}}\n"


def test_files_of_two_towers_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "registry.yaml").write_text(TOWERS, encoding="utf-8")
    for tower in "ab":
        (tmp_path / tower / "w").mkdir(parents=True)
        (tmp_path / tower / "w" / "model.safetensors").write_bytes(tower.encode())
        (tmp_path / tower / "w" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    project = Project(tmp_path)
    assert initial_parts(project) == {"init.image": "./a/w", "init.text": "./b/w"}
    assert initial_files(project) == {
        "init.image/model.safetensors": hashlib.sha256(b"a").hexdigest(),
        "init.text/model.safetensors": hashlib.sha256(b"b").hexdigest(),
    }
    found = initial_weights_of(project, project.registry.student.config)
    assert found is not None
    assert [part.license_facts.seen for part in found.parts] == ["mit", "mit"]


def test_random_weights_have_no_origin(tmp_path: Path) -> None:
    (tmp_path / "registry.yaml").write_text("version: 1\nstudent: {family: open_clip, config: {arch: ViT-B-32}}\n")
    project = Project(tmp_path)
    assert (initial_parts(project), initial_files(project)) == ({}, {})
    assert initial_weights_of(project, project.registry.student.config) is None
