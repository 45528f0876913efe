"""Where a version comes from, over increments and over pulls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.project.lineage import EarlierHistory, Lineage, Origin
from kdkit.core.project.manifest import write_manifest
from kdkit.core.project.project import Project
from kdkit.core.project.versions import HISTORY, Versions
from kdkit.core.sharing.release.provenance import Provenance, provenance_of
from tests.errors import raises_error
from tests.lineages import lineage, teacher, write_version

BIO = teacher("bio", "hf:lab/bio@main", {"ct": 1.0})
EYE = teacher("eye", "local:models/eye", {"oct": 1.0}, license="cc-by-nc-4.0", since="v2")
ORIGIN = Origin("lab/first", "c" * 40, "v2", "https://example.org")


def folder(root: Path, *lineages: Lineage, pulled: EarlierHistory | None = None, text: str = "") -> Project:
    """A project with these versions; the first was pulled."""
    for item in lineages:
        write_version(root / "versions" / item.version, item, pulled if item is lineages[0] else None)
    (root / "registry.yaml").write_text(f"version: 1\n{text}")
    return Project(root)


def trace(project: Project, name: str, *, stated: str | None = None, public: bool = False) -> Provenance:
    return provenance_of(project, Versions(project).get(name), stated=stated, public=public)


def names(found: Provenance) -> list[str]:
    return [item.version for item in found.history]


def test_the_history_is_that_of_the_version_not_of_the_project(tmp_path: Path) -> None:
    project = folder(tmp_path, lineage("v1"), lineage("v2", "v1"), lineage("v3"), lineage("v4", "v2"))
    assert names(trace(project, "v4")) == ["v1", "v2", "v4"]
    assert names(trace(project, "v3")) == ["v3"]


def test_what_was_pulled_goes_before(tmp_path: Path) -> None:
    pulled = EarlierHistory(ORIGIN, (lineage("v1", teachers=[BIO]),))
    project = folder(tmp_path, lineage("v2", "v1"), lineage("v3", "v2"), pulled=pulled)
    found = trace(project, "v3")
    assert names(found) == ["v1", "v2", "v3"]
    assert [t.name for t in found.teachers] == ["bio"], "teachers of all ancestors are listed"
    assert Versions(project).origin(Versions(project).get("v3")) == ORIGIN


def test_a_damaged_history_is_said(tmp_path: Path) -> None:
    project = folder(tmp_path, lineage("v2"))
    (tmp_path / "versions" / "v2" / HISTORY).write_text(json.dumps({"origin": None}))
    write_manifest(tmp_path / "versions" / "v2")
    with raises_error("KD-PROJ-005", mentions=(HISTORY, "v2")) as caught:
        trace(project, "v2")
    assert caught.value.code == ExitCode.MISSING


def test_the_license_of_a_removed_teacher_still_binds(tmp_path: Path) -> None:
    gone = {**EYE, "inherited": True}
    project = folder(tmp_path, lineage("v1", teachers=[BIO, EYE]), lineage("v2", "v1", teachers=[BIO, gone]))
    found = trace(project, "v2")
    assert found.license.name == "cc-by-nc-4.0"
    assert [reason.split() for reason in found.license.because] == [["teacher", "'eye'", "(cc-by-nc-4.0)"]]


def test_what_a_person_asserted_when_it_taught_is_remembered(tmp_path: Path) -> None:
    project = folder(tmp_path, lineage("v1", teachers=[{**EYE, "license_facts": {"asserted": "cc-by-sa-4.0"}}]))
    assert trace(project, "v1", public=True).license.name == "cc-by-sa-4.0"


def test_what_a_teacher_taught_in_another_project_is_still_told(tmp_path: Path) -> None:
    first, later = teacher("bio", "hf:lab/bio", {"ct": 1.0, "mri": 1.0}), teacher("bio", "hf:lab/bio", {"oct": 1.0})
    pulled = EarlierHistory(ORIGIN, (lineage("v1", teachers=[first]),))
    project = folder(tmp_path, lineage("v2", "v1", teachers=[later]), pulled=pulled)
    (bio,) = trace(project, "v2").teachers
    assert set(bio.entry.domains) == set(bio.entry.trust) == {"ct", "mri", "oct"}


def test_an_unknown_license_is_warned_of_once(tmp_path: Path) -> None:
    project = folder(tmp_path, lineage("v1", teachers=[teacher("bio", "hf:lab/bio", {"ct": 1.0}, license="weird")]))
    found = trace(project, "v1")
    assert found.license.name == "undetermined"
    assert ["'bio'" in warning for warning in found.warnings] == [True]


def test_two_teachers_of_one_name_are_two(tmp_path: Path) -> None:
    other = teacher("bio", "hf:else/bio", {"ct": 1.0}, license="cc-by-4.0", since="v2")
    project = folder(tmp_path, lineage("v1", teachers=[BIO]), lineage("v2", "v1", teachers=[other]))
    found = trace(project, "v2")
    assert {t.name: t.facts.shown for t in found.teachers} == {"bio": "mit", "bio (v2)": "cc-by-4.0"}
    assert found.license.name == "cc-by-4.0"


def test_the_license_of_the_release_that_was_pulled_binds(tmp_path: Path) -> None:
    pulled = EarlierHistory(ORIGIN, (lineage("v1", published_under="cc-by-nc-sa-4.0"),))
    project = folder(tmp_path, lineage("v2", "v1"), pulled=pulled)
    found = trace(project, "v2", public=True)
    assert found.license.name == "cc-by-nc-sa-4.0"
    assert [reason.split() for reason in found.license.because] == [["release", "v1", "(cc-by-nc-sa-4.0)"]]


def test_the_catalogue_knows_the_terms_of_a_teacher_that_is_gone(tmp_path: Path) -> None:
    known = teacher("conch", "hf:MahmoodLab/conch", {"ct": 1.0}, license=None)
    project = folder(tmp_path, lineage("v1", teachers=[known]))
    with raises_error("KD-REL-013", where="teacher 'conch'", mentions=("conch",)) as caught:
        trace(project, "v1")
    assert caught.value.code == ExitCode.DENIED


@pytest.mark.parametrize(
    ("card", "license", "warned"),
    [("---\nlicense: gpl-3.0\n---\n", "gpl-3.0", False), ("nothing", "undetermined", True)],
)
def test_initial_weights_bind_too(card: str, license: str, warned: bool, tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "README.md").write_text(card)
    project = folder(tmp_path, lineage("v1", student={"config": {"init": "./start"}}))
    found = trace(project, "v1")
    assert found.license.name == license
    if warned:
        with raises_error("KD-REL-014", where="license of the student") as caught:
            trace(project, "v1", public=True)
        assert (caught.value.code, "--license" in caught.value.fix) == (ExitCode.DENIED, True)
        assert trace(project, "v1", public=True, stated="mit").license.name == "mit"
    assert any("initial weights" in warning for warning in found.warnings) == warned
    assert found.start is not None
    assert found.start.repository == ""


@pytest.mark.parametrize(
    ("image", "text", "license"),
    [("mit", "cc-by-nc-4.0", "cc-by-nc-4.0"), ("mit", "", "undetermined"), ("mit", "apache-2.0", "apache-2.0")],
)
def test_the_weights_of_both_towers_bind(image: str, text: str, license: str, tmp_path: Path) -> None:
    for name, terms in (("image", image), ("text", text)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"---\nlicense: {terms}\n---\n" if terms else "nothing")
    init = {"image": "./image", "text": "./text"}
    found = trace(folder(tmp_path, lineage("v1", student={"config": {"init": init}})), "v1")
    assert found.license.name == license
    assert found.start is not None
    assert [part.license_facts.seen for part in found.start.parts] == [image, text or None]


@pytest.mark.parametrize(("base", "repository"), [("vendor/VL", "vendor/VL"), ("./models/VL", ""), (None, "")])
def test_a_person_says_what_the_initial_weights_are_a_download_of(
    base: str | None, repository: str, tmp_path: Path
) -> None:
    config = {"init": "./start", "base": base}
    project = folder(tmp_path, lineage("v1", student={"config": config}))
    found = trace(project, "v1")
    assert found.start is not None
    assert found.start.repository == repository


def test_licenses_of_data_bind(tmp_path: Path) -> None:
    data = {"licenses": ["cc-by-4.0"]}
    entry = "data: [{source: jsonl, path: a.jsonl, license: CC BY-NC 4.0}]\n"
    assert trace(folder(tmp_path / "a", lineage(data=data)), "v1").license.name == "cc-by-4.0"
    assert trace(folder(tmp_path / "b", lineage(data=data), text=entry), "v1").license.name == "cc-by-nc-4.0"


def test_the_license_of_a_corrector_binds_if_it_rewrote_answers(tmp_path: Path) -> None:
    def corrected(rewritten: int) -> dict[str, Any]:
        counts = {"step": 6, "epoch": 1, "answered": 9, "unscored": 0, "wrong": 3, "refused": 0, "rewritten": rewritten}
        facts = {"asserted": "cc-by-nc-4.0"}
        return {"corrector": "big", "file": "x", "corrected": 3, "rounds": [counts], "license_facts": facts}

    taught = trace(folder(tmp_path / "a", lineage("v1", correction=corrected(2)), lineage("v2", "v1")), "v2")
    assert taught.license.name == "cc-by-nc-4.0"
    assert [reason.split() for reason in taught.license.because] == [["corrector", "'big'", "(cc-by-nc-4.0)"]]
    refused = trace(folder(tmp_path / "b", lineage("v1", correction=corrected(0))), "v1")
    assert refused.license.name == trace(folder(tmp_path / "c", lineage("v1")), "v1").license.name
