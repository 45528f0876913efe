"""Models in a ``.zip`` of a web server: a real one, on the loopback interface."""

from __future__ import annotations

import hashlib
import io
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import TeacherSpec
from kdkit.core.data import remote, remote_files
from kdkit.core.project.project import Project
from kdkit.core.teachers import (
    add_teacher,
    archive,
    check_lock,
    lock_teachers,
    materialize,
    open_teacher,
    plan_addition,
)
from kdkit.core.teachers.initial_weights import lock_initial_weights
from tests.core.data.test_remote import served
from tests.core.teachers import stub
from tests.core.teachers.test_initial_weights import TOWERS, built
from tests.core.teachers.test_initial_weights import make_project as make_pair
from tests.errors import raises_error
from tests.plugins.loaders.original_layouts import CAPTIONS, add_by_files, make_medclip
from tests.tiny_models import close


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAITS", (0.0,))
    monkeypatch.setattr(remote_files, "BLOCK", 100)


def zipped(files: Mapping[Any, bytes]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return buffer.getvalue()


def model(tmp_path: Path, width: int = 4, folder: str = "") -> dict[str, bytes]:
    found = stub.tree(stub.write(tmp_path / f"stub-{folder.strip('/')}{width}", width=width, pickled=True))
    return {folder + name: content for name, content in found.items()}


@pytest.mark.parametrize("folder", ["", "medclip/"])
def test_an_archive_becomes_a_locked_teacher(tmp_path: Path, folder: str) -> None:
    junk = {"__MACOSX/._model": b"x", f"{folder}run.py": b"evil", f"{folder}.hidden.json": b"{}"}
    content = zipped({**model(tmp_path, folder=folder), **junk})
    unpacked = {"from": f"local:{next(tmp_path.glob('stub-*'))}"}
    local = add_teacher(stub.make_project(tmp_path / "local"), "t", unpacked)
    with served({"/m/a.zip": content}, cut=300, cuts=2) as (address, server):
        project, source = stub.make_project(tmp_path / "project"), f"{address}/m/a.zip"
        planned = plan_addition(project, "t", {"from": source}).forecast
        assert (dict(planned.sizes), planned.cached) == ({"a.zip": len(content)}, 0)
        assert {method for method, _ in server.requests} == {"HEAD"}
        facts = add_teacher(project, "t", {"from": source})
        assert (facts.source, facts.commit) == (source, hashlib.sha256(content).hexdigest())
        assert (facts.files, facts.fingerprint) == (local.files, local.fingerprint), "as from the unpacked folder"
        assert any(wanted for _, wanted in server.requests), "continued where the connection ended"
        again = plan_addition(project.reloaded(), "u", {"from": source}).forecast
        assert again.cached == len(content)


def test_another_archive_at_the_address_is_refused(tmp_path: Path) -> None:
    first, other = zipped(model(tmp_path, 4)), zipped(model(tmp_path, 9))
    with served({"/a.zip": first}) as (address, server):
        source, project = f"{address}/a.zip", stub.make_project(tmp_path / "project")
        facts = add_teacher(project, "t", {"from": source})
        server.files["/a.zip"] = other
        project = project.reloaded()
        assert check_lock(project) == [], "what was fetched stays"
        shutil.rmtree(project.artifacts)
        with raises_error("KD-TEACH-303", mentions=(str(facts.commit), hashlib.sha256(other).hexdigest())):
            materialize(project, "t")
        assert lock_teachers(project, ["t"])["t"].dims["image"] == 9
        pinned = {"from": f"{source}#sha256={hashlib.sha256(first).hexdigest()}"}
        refused(stub.make_project(tmp_path / "pinned"), pinned, "KD-TEACH-303")
        server.files["/a.zip"] = first
        add_teacher(stub.make_project(tmp_path / "pinned"), "t", pinned)


def test_offline_reads_what_was_fetched(tmp_path: Path) -> None:
    with served({"/a.zip": zipped(model(tmp_path))}) as (address, _):
        source, project = {"from": f"{address}/a.zip"}, stub.make_project(tmp_path / "project")
        refused(project, source, "KD-TEACH-306", offline=True, code=ExitCode.MISSING)
        refused(project, {"from": f"{address}/absent.zip"}, "KD-DATA-225", code=ExitCode.MISSING)
        facts = add_teacher(project, "t", source)
    again = add_teacher(project, "u", source, offline=True)
    assert again.fingerprint == facts.fingerprint
    refused(stub.make_project(tmp_path / "down"), source, "KD-DATA-229", code=ExitCode.MISSING)


def refused(
    project: Project, fields: Mapping[str, str], id: str, *, offline: bool = False, code: ExitCode | None = None
) -> None:
    """Adding fails, and neither registry, lock nor a model's folder is changed."""
    with raises_error(id, code=code):
        add_teacher(project, "t", fields, offline=offline)
    assert not project.lock_path.exists()
    assert not any(project.artifacts.glob("*"))


def _with_mode(name: str, mode: int) -> ZipInfo:
    info = ZipInfo(name)
    info.external_attr = mode << 16
    return info


def _encrypted(content: bytes) -> bytes:
    """The flag of the first member, in its local and its central header."""
    changed = bytearray(content)
    changed[6] |= 1
    changed[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)


def test_archives_that_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = model(tmp_path)
    damaged = bytearray(zipped(good))
    damaged[60] ^= 0xFF
    cases = {
        "outside": (zipped({**good, "../../evil.json": b"{}"}), "KD-TEACH-018"),
        "absolute": (zipped({**good, "/evil.json": b"{}"}), "KD-TEACH-018"),
        "below": (zipped({f"a/{name}": x for name, x in good.items()} | {"a/../../e.json": b""}), "KD-TEACH-018"),
        "link": (zipped({**good, _with_mode("l.json", stat.S_IFLNK | 0o777): b"/etc/passwd"}), "KD-TEACH-307"),
        "twice": (zipped({**good, "a.json": b"{}", "./a.json": b"{}"}), "KD-TEACH-307"),
        "in-a-file": (zipped({**good, "a.json": b"{}", "a.json/b.json": b"{}"}), "KD-TEACH-307"),
        "encrypted": (_encrypted(zipped(good)), "KD-TEACH-307"),
        "page": (b"<!doctype html>" * 20, "KD-TEACH-304"),
        "cut": (zipped(good)[:-30], "KD-TEACH-304"),
        "flipped": (bytes(damaged), "KD-TEACH-304"),
        "no-model": (zipped({"LICENSE": b"x", "run.py": b"y"}), "KD-TEACH-017"),
    }
    with served({f"/{name}.zip": content for name, (content, _) in cases.items()}) as (address, server):
        for name, (_, id) in cases.items():
            refused(stub.make_project(tmp_path / name), {"from": f"{address}/{name}.zip"}, id)
        server.files["/a.zip"] = bomb = zipped({**good, "zeros.json": bytes(10**6)})
        monkeypatch.setattr(archive, "SMALL", 10**5)
        refused(stub.make_project(tmp_path / "bomb"), {"from": f"{address}/a.zip"}, "KD-TEACH-307")
        monkeypatch.setattr(archive, "LIMIT", 10**6)
        refused(stub.make_project(tmp_path / "large"), {"from": f"{address}/a.zip"}, "KD-TEACH-305")
        monkeypatch.setattr(archive, "LIMIT", len(bomb) - 1)
        server.requests.clear()
        refused(stub.make_project(tmp_path / "limit"), {"from": f"{address}/a.zip"}, "KD-TEACH-305")
        assert {method for method, _ in server.requests} == {"HEAD"}
    assert not list(tmp_path.rglob("*evil*"))


def test_a_catalogue_entry_may_name_an_archive(tmp_path: Path) -> None:
    """As a teacher, and as a student's initial weights."""
    with served({"/eye.zip": zipped(model(tmp_path))}) as (address, _):
        spec = TeacherSpec(name="eye", summary="", source=f"{address}/eye.zip", loader="stub")
        facts = add_teacher(stub.make_project(tmp_path / "teacher", spec), "eye", {})
        project = make_pair(tmp_path / "student", TOWERS, source=spec.source)
        locked = lock_initial_weights(project)["eye"]
        assert (locked.commit, locked.files) == (facts.commit, facts.files)
        assert built(project)["image"] == str(project.initial_weights("eye"))


def test_medclip_as_its_authors_publish_it(tmp_path: Path) -> None:
    """One pickle at the top of the archive; the tokenizer beside it stands for the repository of its BERT."""
    make_medclip(tmp_path / "medclip")
    facts, ours = add_by_files(tmp_path / "medclip", tmp_path / "local")
    with served({"/medclip-vit-pretrained.zip": zipped(stub.tree(tmp_path / "medclip"))}) as (address, _):
        project = Project(tmp_path / "local")
        fields = {"from": f"{address}/medclip-vit-pretrained.zip", "license": "mit"}
        fetched = add_teacher(project, "medclip", fields)
    assert (fetched.loader, fetched.files) == ("medclip", facts.files)
    theirs: Any = open_teacher(project.reloaded(), "medclip").model
    assert close(theirs.encode_text(CAPTIONS), ours.encode_text(CAPTIONS), 0)
