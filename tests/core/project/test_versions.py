"""The history on disk: names, the pointer, promotion and rollback; no version is ever half there."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.project.project import Project
from kdkit.core.project.versions import LINEAGE, Versions
from tests.errors import raises_error
from tests.lineages import lineage


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(Project(tmp_path))


def make(versions: Versions, name: str, parent: str | None = None, *, refused: bool = False) -> None:
    with versions.writing(name, refused=refused) as folder:
        lineage(name, parent).save(folder / LINEAGE)
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
    assert caught.value.fix == "name one: kdkit rollback v1"


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


def test_a_pointer_that_leads_nowhere_can_be_set_right(versions: Versions) -> None:
    make(versions, "v1")
    (versions.root / "current").write_text("v7\n", encoding="utf-8")
    with raises_error("KD-PROJ-008", mentions=("'v7'",)) as caught:
        versions.current()
    assert (caught.value.code, caught.value.fix) == (ExitCode.MISSING, "run 'kdkit rollback VERSION' with one of: v1")
    assert versions.rollback("v1").name == "v1"


@pytest.mark.parametrize("content", [b"", b"\x80" * 64, None])
def test_damaged_samples_are_one_error(versions: Versions, content: bytes | None) -> None:
    make(versions, "v1")
    path = versions.root / "v1" / "samples.safetensors"
    path.unlink(missing_ok=True) if content is None else path.write_bytes(content)
    with raises_error("KD-BASE-040", where=str(path), mentions=("v1", "kdkit rollback"), code=ExitCode.MISSING):
        versions.get().known_samples()


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}', '{"format": 2}', None])
def test_a_damaged_lineage_is_one_error(versions: Versions, text: str | None) -> None:
    make(versions, "v1")
    version, path = versions.get(), versions.root / "v1" / LINEAGE
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    with raises_error("KD-PROJ-005", where=str(path), mentions=(LINEAGE, "v1")) as caught:
        _ = version.lineage
    assert caught.value.code == ExitCode.MISSING
