"""A project goes through a bundle and is the same: by hash, and by what it computes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import SignalSpec, Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.answering.gate_file import GATES, Gate, write_gate
from kdkit.core.features import FeatureStore, Header
from kdkit.core.features.extract.status import verify_columns
from kdkit.core.project.lineage import EarlierHistory, Origin
from kdkit.core.project.manifest import write_manifest
from kdkit.core.project.project import Project
from kdkit.core.project.registry.lock import Lock
from kdkit.core.project.versions import Versions, load_student
from kdkit.core.sharing.bundle import PARTS, Packed, check, collect, pack, unpack
from kdkit.core.sharing.bundle.manifest import MANIFEST
from kdkit.core.teachers import open_teacher
from tests.core.sharing.bundle.test_unpacking import tree
from tests.errors import raises_error
from tests.lineages import lineage, write_version
from tests.toy_project import make_project, open_project


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A toy project with a column and a version."""
    root = tmp_path_factory.mktemp("there") / "project"
    project = make_project(root, teachers={"radio": ("ct", "mri")}, domains=("ct", "mri"))
    distill(project, Options(cpu=True))
    return project


@pytest.fixture(scope="module")
def packed(folder: Project) -> Packed:
    return pack(folder, folder.root.parent / "project.tar")


@pytest.fixture
def copy(folder: Project, tmp_path: Path) -> Project:
    """The project, to be spoilt."""
    shutil.copytree(folder.root, tmp_path / "project")
    return open_project(tmp_path / "project")


def paths(project: Project, parts: Sequence[str] = PARTS, *, all_versions: bool = False) -> set[str]:
    return {item.path for item in collect(project, parts, all_versions=all_versions)}


def test_what_is_in_it_and_what_is_not(folder: Project, packed: Packed) -> None:
    inside = {file.path for file in packed.manifest.files}
    fingerprint = Lock.load(folder.lock_path).teacher("radio").fingerprint[:12]
    assert {
        "registry.yaml",
        "registry.lock",
        "requirements.txt",
        "toy.yaml",
        ".kdkit/artifacts/radio/toy.safetensors",
        "features/radio/current",
        f"features/radio/{fingerprint}/shard-0000.h5",
        "versions/current",
        "versions/v1/student/toy.safetensors",
        "versions/v1/lineage.json",
    } <= inside
    assert not [path for path in inside if path.startswith(("images", "models", "reports")) or "busy" in path]
    on_disk = tree(folder.root)
    assert not [path for path in on_disk if path.startswith("versions/") and path not in inside]


def test_decisions_about_a_version_go_along(copy: Project) -> None:
    write_gate(copy.versions / "v1" / GATES / f"{7:016x}.json", Gate("v1", {}))
    assert f"versions/v1/{GATES}/{7:016x}.json" in paths(copy)


def test_there_and_back_by_hash(folder: Project, packed: Packed, tmp_path: Path) -> None:
    assert unpack(packed.archive, tmp_path / "here") == check(packed.archive) == packed.manifest
    here, there = tree(tmp_path / "here"), tree(folder.root)
    assert here.pop("requirements.txt") == b""
    assert here == {path: there[path] for path in here}
    assert set(here) | {"requirements.txt"} == {file.path for file in packed.manifest.files}
    assert packed.size == packed.archive.stat().st_size


def test_there_and_back_by_what_it_computes(folder: Project, packed: Packed, tmp_path: Path) -> None:
    unpack(packed.archive, tmp_path / "here")
    here = open_project(tmp_path / "here")
    assert verify_columns(here) == verify_columns(folder)
    assert not any(verify_columns(here).values())
    pixels, texts = torch.rand(4, 3, 8, 8), ["a mass", "a cyst"]
    for one, other in (
        (open_teacher(here, "radio").model, open_teacher(folder, "radio").model),
        (load_student(Versions(here).get(), here.catalogue), load_student(Versions(folder).get(), here.catalogue)),
    ):
        with torch.no_grad():
            assert torch.equal(one.encode_image(pixels), other.encode_image(pixels))  # type: ignore[union-attr]
            assert torch.equal(one.encode_text(texts), other.encode_text(texts))  # type: ignore[union-attr]
    rows = np.arange(5)
    mine, theirs = (FeatureStore(project.features).column("radio") for project in (here, folder))
    assert np.array_equal(mine.gather("image", rows), theirs.gather("image", rows))


def test_other_programs_read_it_and_the_manifest_comes_first(packed: Packed) -> None:
    with tarfile.open(packed.archive) as archive:
        assert archive.getnames() == [MANIFEST, *(file.path for file in packed.manifest.files)]
        first = archive.extractfile(MANIFEST)
        assert first is not None
        assert json.load(first)["created"] == packed.manifest.created
    assert subprocess.run(["tar", "-tf", packed.archive], capture_output=True, check=True).stderr == b""


def test_the_same_project_gives_the_same_bytes_at_the_same_time(
    folder: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = SimpleNamespace(now=lambda _: datetime(2026, 1, 1, tzinfo=UTC), fromisoformat=datetime.fromisoformat)
    monkeypatch.setattr("kdkit.core.sharing.bundle.packing.datetime", stopped)
    for name in ("a", "b"):
        pack(folder, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_parts_can_be_chosen(folder: Project) -> None:
    assert paths(folder, []) == {"registry.yaml", "registry.lock", "requirements.txt", "toy.yaml"}
    assert paths(folder, ["teachers"]) - paths(folder, []) == {
        ".kdkit/artifacts/radio/toy.safetensors",
        ".kdkit/artifacts/radio/toy.json",
    }
    with raises_error("KD-BUNDLE-001", mentions=("'images'",)) as caught:
        collect(folder, ["images"])
    assert "teachers" in caught.value.fix


def test_the_current_version_or_all_of_them(copy: Project) -> None:
    versions = copy.versions
    shutil.copytree(versions / "v1", versions / "v2")
    shutil.copytree(versions / "v1", versions / "candidates" / "v3")
    (versions / ".v4.draft-x").mkdir()
    (versions / "current").write_text("v2\n")
    (versions / "v2" / "corrections.jsonl").write_text("{}\n")
    write_manifest(versions / "v2")
    assert "versions/v2/corrections.jsonl" not in paths(copy, ["versions"])  # texts of the samples stay here

    def inside(all_versions: bool) -> set[str]:
        return {
            path.split("/")[1] for path in paths(copy, ["versions"], all_versions=all_versions) if "versions" in path
        }

    assert inside(False) == {"current", "v2"}
    assert inside(True) == {"current", "v1", "v2"}


def test_ancestors_stay_behind_but_not_their_lineages(copy: Project) -> None:
    def make(name: str, parent: str) -> None:
        shutil.copytree(copy.versions / parent, copy.versions / name)
        own = replace(Versions(copy).get(parent).lineage, version=name, parent=parent)
        write_version(copy.versions / name, own)
        Versions(copy).make_current(name)

    def carried(project: Project, name: str) -> Versions:
        to = project.root.parent / name
        pack(project, to.with_suffix(".tar"), ["versions"])
        unpack(to.with_suffix(".tar"), to)
        return Versions(Project(to))

    def told(versions: Versions) -> list[str]:
        return [lineage.version for lineage in versions.history(versions.get())]

    make("v2", "v1")
    make("v3", "v2")
    once = carried(copy, "once")
    assert (once.names(), told(once)) == (("v3",), ["v1", "v2", "v3"])
    assert once.get().earlier == EarlierHistory(None, tuple(Versions(copy).get(n).lineage for n in ("v1", "v2")))
    twice = carried(Project(once.root.parent), "twice")
    assert (twice.names(), told(twice)) == (("v3",), ["v1", "v2", "v3"])
    earlier = EarlierHistory(Origin("o/n", "c", "v2"), ())
    write_version(copy.versions / "v2", Versions(copy).get("v2").lineage, earlier)
    pulled = carried(copy, "pulled").get().earlier
    assert pulled is not None
    assert pulled.origin == earlier.origin


def test_a_removed_teachers_column_goes_along_and_a_stale_one_does_not(copy: Project) -> None:
    (column,) = (path for path in (copy.features / "radio").iterdir() if path.is_dir())
    stale = copy.features / "radio" / "000000000000"
    shutil.copytree(column, stale)
    header = json.loads((stale / "column.json").read_text())
    (stale / "column.json").write_text(json.dumps({**header, "fingerprint": "0" * 64}))
    assert not [path for path in paths(copy) if "000000000000" in path]
    Lock.load(copy.lock_path).without_teacher("radio").save(copy.lock_path)
    copy.registry_path.write_text("version: 1\n")
    kept = {path for path in paths(open_project(copy.root)) if path.startswith("features/")}
    assert any(path.endswith("shard-0000.h5") for path in kept)
    assert not [path for path in kept if "000000000000" in path]


class Warned(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.said.append(message)


@pytest.mark.parametrize("signals", [(SignalSpec("tokens", (4,), "int32"),), ()])
def test_features_that_reveal_texts_are_not_bundled(copy: Project, signals: tuple[SignalSpec, ...]) -> None:
    column = FeatureStore(copy.features).create(Header("talker", "e" * 64, {}, signals))
    (column.folder / "answers.jsonl").write_text('{"id": "s1", "digest": 1, "answer": "a nodule"}\n')
    warned = Warned()
    inside = {item.path for item in collect(copy, reporter=warned)}
    assert any(path.startswith("features/radio/") for path in inside)
    assert not any("talker" in path for path in inside)
    assert [line for line in warned.said if "'talker'" in line]


def test_files_that_the_registry_names_go_along_if_they_lie_in_the_project(copy: Project) -> None:
    (copy.root / "start").mkdir()
    (copy.root / "start" / "weights.safetensors").touch()
    text = copy.registry_path.read_text()
    copy.registry_path.write_text(text.replace("config: {width: 12}", "config: {init: ./start, more: [./toy.yaml]}"))
    assert {"start/weights.safetensors", "toy.yaml"} <= paths(open_project(copy.root), [])
    copy.registry_path.write_text(text.replace("config: {width: 12}", "config: {init: ../start}"))
    with raises_error("KD-BUNDLE-002"):
        collect(open_project(copy.root), [])
    copy.registry_path.write_text(text.replace("./toy.yaml", "./gone.yaml"))
    with raises_error("KD-BUNDLE-003"):
        collect(open_project(copy.root), [])


def test_wheels(folder: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "a-1.tar.gz").touch()
    monkeypatch.setattr("kdkit.core.sharing.bundle.contents.plugin_pins", lambda: ("a==1", "b==2"))
    heard = Heard()
    inside = collect(folder, [], wheels=tmp_path, reporter=heard)
    assert inside[-1].path == "wheels/a-1-py3-none-any.whl"
    assert [item.content for item in inside if item.path == "requirements.txt"] == [b"a==1\nb==2\n"]
    (warning,) = heard.warnings
    assert f" b==2 in {tmp_path}" in warning
    assert "a==1" not in warning
    (tmp_path / "none").mkdir()
    with raises_error("KD-BUNDLE-004", mentions=("no wheels",)) as caught:
        collect(folder, [], wheels=tmp_path / "none")
    assert "pip download" in caught.value.fix


def refused(project: Project, to: Path, id: str) -> KdkitError:
    before = sorted(to.parent.iterdir())
    with raises_error(id) as caught:
        pack(project, to)
    assert sorted(to.parent.iterdir()) == before
    return caught.value


def test_a_teacher_that_changed_since_it_was_locked_is_not_bundled(copy: Project) -> None:
    path = copy.artifacts / "radio" / "toy.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert refused(copy, copy.root.parent / "a.tar", "KD-BUNDLE-011").where == str(path)
    path.write_bytes(path.read_bytes()[:-1])
    refused(copy, copy.root.parent / "a.tar", "KD-BUNDLE-013")
    path.unlink()
    refused(copy, copy.root.parent / "a.tar", "KD-BUNDLE-012")


def test_a_teacher_whose_files_are_gone_is_fetched_first(copy: Project) -> None:
    shutil.rmtree(copy.artifacts)
    pack(copy, copy.root.parent / "a.tar", ["teachers"])
    unpack(copy.root.parent / "a.tar", copy.root.parent / "b")
    assert (copy.root.parent / "b" / ".kdkit" / "artifacts" / "radio" / "toy.safetensors").is_file()


def test_a_teacher_whose_files_its_author_kept_is_left_out_and_its_features_go_along(copy: Project) -> None:
    text, lock, hidden = copy.registry_path.read_text(), Lock.load(copy.lock_path), "local:(not published)"
    facts = lock.teacher("radio")
    copy.registry_path.write_text(text.replace(facts.source, hidden))
    lock.with_teacher("radio", facts.model_copy(update={"source": hidden})).save(copy.lock_path)
    shutil.rmtree(copy.artifacts / "radio")
    inside = {file.path for file in pack(open_project(copy.root), copy.root.parent / "a.tar").manifest.files}
    assert not any(path.startswith(".kdkit/artifacts/radio") for path in inside)
    assert any(path.startswith("features/radio/") for path in inside)


def test_a_teacher_that_is_not_locked(copy: Project) -> None:
    copy.lock_path.unlink()
    assert "lock radio" in refused(copy, copy.root.parent / "a.tar", "KD-REG-013").fix


def test_what_is_there_is_not_overwritten(folder: Project, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"earlier")
    assert refused(folder, tmp_path / "a.tar", "KD-BUNDLE-007").code is ExitCode.FOUND
    with raises_error("KD-BUNDLE-008"):
        pack(folder, tmp_path / "no" / "a.tar")
    some = pack(folder, tmp_path / "b.tar", ())
    assert pack(folder, some.archive, ()).manifest.files == some.manifest.files, "the same bundle again"
    assert refused(folder, some.archive, "KD-BUNDLE-007").code is ExitCode.FOUND


def test_too_little_disk(folder: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert refused(folder, tmp_path / "a.tar", "KD-BUNDLE-009").code is ExitCode.MISSING


def test_a_name_that_could_not_be_unpacked_is_refused_at_once(copy: Project) -> None:
    student = copy.versions / "v1" / "student"
    (student / "Toy.json").touch()
    write_manifest(student.parent)
    assert "Toy.json" in refused(copy, copy.root.parent / "a.tar", "KD-BUNDLE-006").why


class Heard(Silent):
    """Remembers progress and warnings."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
        self.told.append((done, total))


def test_memory_stays_small_and_progress_ends_once(copy: Project) -> None:
    size = 40_000_000
    with open(copy.versions / "v1" / "large.h5", "wb") as handle:
        handle.truncate(size)
    write_manifest(copy.versions / "v1")
    for work in (
        lambda seen: pack(copy, copy.root.parent / "a.tar", ["versions"], reporter=seen),
        lambda seen: unpack(copy.root.parent / "a.tar", copy.root.parent / "b", reporter=seen),
    ):
        seen = Heard()
        tracemalloc.start()
        work(seen)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < size / 4
        assert len(seen.told) > 30
        assert [done for done, total in seen.told if done == total] == [seen.told[-1][0]]


KILLED = """
import os, signal, sys
from pathlib import Path
from kdkit.core.sharing import bundle
from kdkit.core.contracts import Silent
from kdkit.core.project.project import Project

class Deadly(Silent):
    def progress(self, label, done, total, note=""):
        if 2 * done > total:
            os.kill(os.getpid(), signal.SIGKILL)

command, root, archive, to = sys.argv[1:]
if command == "pack":
    bundle.pack(Project(Path(root)), Path(archive), ["versions"], reporter=Deadly())
else:
    bundle.unpack(Path(archive), Path(to), reporter=Deadly())
"""


@pytest.mark.parametrize("command", ["pack", "unpack"])
def test_killed_in_the_middle_nothing_has_its_name_and_the_next_one_sweeps_up(tmp_path: Path, command: str) -> None:
    project, archive, to = Project(tmp_path / "project"), tmp_path / "a.tar", tmp_path / "here"
    (project.versions / "v1").mkdir(parents=True)
    project.registry_path.write_text("version: 1\n")
    (project.versions / "current").write_text("v1\n")
    with open(project.versions / "v1" / "large.h5", "wb") as handle:
        handle.truncate(10_000_000)
    write_version(project.versions / "v1", lineage())
    if command == "unpack":
        pack(project, archive, ["versions"])
    before = {path.name for path in tmp_path.iterdir()}
    done = subprocess.run([sys.executable, "-c", KILLED, command, project.root, archive, to], check=False)
    assert done.returncode == -signal.SIGKILL
    left = {path.name for path in tmp_path.iterdir()} - before
    assert len(left) == 1
    assert left.pop().startswith(".a.tar.draft-" if command == "pack" else ".here.draft-")
    if command == "pack":
        pack(project, archive, ["versions"])
    unpack(archive, to)
    assert tree(to)["versions/v1/large.h5"] == bytes(10_000_000)
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar", "here", "project"}
