"""The history on disk: names, the pointer, promotion and rollback; no version is ever half there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.project.manifest import MANIFEST, Manifest, write_manifest
from kdkit.core.project.project import Project
from kdkit.core.project.versions import LINEAGE, SAMPLES, TASK, Versions, load_student
from tests.errors import raises_error
from tests.lineages import lineage


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(Project(tmp_path))


def make(versions: Versions, name: str, parent: str | None = None, *, refused: bool = False) -> None:
    with versions.writing(name, refused=refused) as folder:
        (folder / LINEAGE).write_bytes(lineage(name, parent).to_bytes())
    if not refused:
        versions.make_current(name)


def test_versions_count_upwards_and_candidates_count_along(versions: Versions) -> None:
    assert versions.next_name() == "v1"
    for number in range(1, 11):
        make(versions, versions.next_name(), refused=number == 3)
    assert versions.names() == ("v1", "v2", "v4", "v5", "v6", "v7", "v8", "v9", "v10")
    assert versions.candidates() == ("v3",)
    assert versions.get().name == "v10"


def test_what_is_left_of_a_deleted_version_is_in_nobodys_way(versions: Versions) -> None:
    make(versions, "v1")
    (versions.root / "v2" / "student").mkdir(parents=True)
    assert versions.names() == ("v1",)
    make(versions, versions.next_name())
    assert versions.get().name == "v3"


def test_a_version_that_could_not_be_written_leaves_nothing(versions: Versions) -> None:
    with pytest.raises(IsADirectoryError), versions.writing("v1", refused=False) as folder:
        folder.write_text("a folder cannot be written like a file", encoding="utf-8")
    assert list(versions.root.iterdir()) == []
    assert versions.current() is None


def test_rollback_goes_to_the_parent_or_to_the_version_that_is_named(versions: Versions) -> None:
    make(versions, "v1")
    make(versions, "v2", "v1")
    assert versions.rollback().name == "v1"
    assert versions.rollback("v2").name == "v2"
    assert versions.names() == ("v1", "v2")


def test_a_version_from_scratch_has_no_parent_to_roll_back_to(versions: Versions) -> None:
    make(versions, "v1")
    with raises_error("KD-PROJ-013") as caught:
        versions.rollback()
    assert caught.value.fix == ""
    make(versions, "v2")
    with raises_error("KD-PROJ-013") as caught:
        versions.rollback()
    assert caught.value.fix.endswith("kdkit rollback v1")


def test_a_damaged_version_becomes_current_neither_by_rollback_nor_by_promotion(versions: Versions) -> None:
    make(versions, "v1")
    make(versions, "v2", "v1", refused=True)
    for folder, make_current in (("v1", versions.rollback), ("candidates/v2", versions.promote)):
        (versions.root / folder / LINEAGE).write_bytes(b"{}")
        with raises_error("KD-PROJ-014", mentions=(LINEAGE,)):
            make_current(folder[-2:])
    assert versions.candidates() == ("v2",)


def test_a_candidate_becomes_current_when_it_is_promoted(versions: Versions) -> None:
    make(versions, "v1")
    make(versions, "v2", "v1", refused=True)
    assert versions.get("v2").refused
    with raises_error("KD-PROJ-011", mentions=("'v2'",)):
        versions.make_current("v2")
    versions.promote("v2")
    assert (versions.get().name, versions.get().refused) == ("v2", False)
    with raises_error("KD-PROJ-012", mentions=("'v2'",)) as error:
        versions.promote("v2")
    assert "kdkit rollback v2" in error.value.fix


def test_a_pointer_to_a_missing_version_can_be_repaired(versions: Versions) -> None:
    make(versions, "v1")
    (versions.root / "current").write_text("v7\n", encoding="utf-8")
    remedy = ("'v7'", "kdkit rollback VERSION", ": v1")
    with raises_error("KD-PROJ-008", mentions=remedy, code=ExitCode.MISSING):
        versions.current()
    assert versions.rollback("v1").name == "v1"


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}', '{"format": 2}'])
def test_a_damaged_lineage_is_one_error(versions: Versions, text: str) -> None:
    make(versions, "v1")
    version, path = versions.get(), versions.root / "v1" / LINEAGE
    path.write_text(text, encoding="utf-8")
    write_manifest(path.parent)
    with raises_error("KD-PROJ-005", where=str(path), mentions=(LINEAGE, "v1")) as caught:
        _ = version.lineage
    assert caught.value.code == ExitCode.MISSING


@pytest.mark.parametrize("name", ["student/weights", TASK, SAMPLES, LINEAGE])
def test_a_changed_byte_is_found(versions: Versions, name: str) -> None:
    with versions.writing("v1", refused=False) as folder:
        (folder / "student").mkdir()
        for file in ("student/weights", TASK, SAMPLES):
            (folder / file).write_bytes(b"0123456789")
        (folder / LINEAGE).write_bytes(lineage("v1").to_bytes())
    path = versions.root / "v1" / name
    versions.get("v1").check()
    content, stat = path.read_bytes(), path.stat()
    path.write_bytes(content[:5] + bytes([content[5] ^ 1]) + content[6:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    for read in (
        versions.get("v1").check,
        lambda: versions.get("v1").file(name),
        lambda: load_student(path.parents[name.count("/")]),
    ):
        with raises_error("KD-PROJ-014", where=str(path), mentions=(name, "v1"), code=ExitCode.FOUND):
            read()
    path.unlink()
    with raises_error("KD-PROJ-014", where=str(path), mentions=("missing",)):
        versions.get("v1").check()


def test_a_version_without_its_manifest_is_one_error(versions: Versions) -> None:
    make(versions, "v1")
    (versions.root / "v1" / MANIFEST).unlink()
    with raises_error("KD-PROJ-005", where=str(versions.root / "v1" / MANIFEST)):
        versions.get("v1").check()


def test_a_manifest_names_only_files_of_the_version(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"format": 1, "files": {"../x": {"size": 1, "sha256": "0" * 64}}}))
    with raises_error("KD-PROJ-005", mentions=("../x",)):
        Manifest.load(tmp_path)
