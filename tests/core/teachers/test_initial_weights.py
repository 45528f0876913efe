"""Models that a student starts from by name: the real client against a small Hub on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import Silent, StudentSpec, TeacherSpec
from kdkit.core.distill.cost_estimate import dry_run
from kdkit.core.distill.model.student import StudentBuilder, student_facts
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.plugin_system.catalogue import Entry
from kdkit.core.project.project import Project
from kdkit.core.project.versions import Versions
from kdkit.core.sharing.release.provenance import start_of
from kdkit.core.teachers import add_teacher, check_lock, lock_teachers
from kdkit.core.teachers.initial_weights import lock_initial_weights, require_initial_weights
from tests.core.teachers import stub
from tests.errors import raises_error
from tests.local_hub import LocalHub
from tests.recorder import Recorder
from tests.tiny_models import make_bert_folder, make_transformers_clip_folder
from tests.toy_project import write_images

TOWERS = "version: 1\nteachers:\nstudent: {family: pair, config: {init: {image: eye, text: ./words}}}\n"


class Pair(nn.Module):
    """Knows the folders that it was made from."""

    def __init__(self, init: Any) -> None:
        super().__init__()
        self.init = init


def files(tmp_path: Path, width: int) -> dict[str, bytes]:
    return stub.tree(stub.write(tmp_path / f"stub-{width}", width=width))


def make_project(folder: Path, registry: str = TOWERS, **facts: Any) -> Project:
    """A project whose catalogue has the model ``eye`` and the student family ``pair``."""
    eye = TeacherSpec(**{"name": "eye", "summary": "", "source": "hf:org/eye", "loader": "stub", **facts})
    pair = StudentSpec(name="pair", summary="", factory=f"{__name__}:Pair", loader="", default=True, weights=("init",))
    project = stub.make_project(folder, eye, registry=registry)
    contents = {**project.catalogue.contents, "student": (Entry(pair, "kdkit-stub", "1.0"),)}
    return project.with_catalogue(replace(project.catalogue, contents=contents))


def built(project: Project) -> Mapping[str, str]:
    """The folders that the student gets."""
    return cast(Mapping[str, str], StudentBuilder.of(project.reloaded()).student.init)


def test_a_name_is_fetched_once_and_stays_as_it_was_locked(hub: LocalHub, tmp_path: Path) -> None:
    commit = hub.add("org/eye", files(tmp_path, 4) | {"README.md": b"---\nlicense: mit\n---\n", "run.py": b"evil"})
    project, told = make_project(tmp_path / "project"), Recorder()
    with raises_error("KD-TEACH-301", where="registry.yaml:3", code=ExitCode.MISSING, mentions=("eye", "kdkit lock")):
        require_initial_weights(project, told)
    assert any("3 files" in line for line in told.lines)
    assert any("mit" in line or "unknown" in line for line in told.lines)
    assert hub.downloads() == []
    with raises_error("KD-TEACH-301"):
        built(project)

    locked = lock_initial_weights(project)["eye"]
    assert (locked.commit, set(locked.files)) == (commit, {"stub.json", "model.safetensors", "README.md"})
    assert locked.license is not None
    assert locked.license.name == "mit"
    folder = project.initial_weights("eye")
    assert built(project) == {"image": str(folder), "text": str(project.root / "words")}
    assert (project.reloaded().lock.teachers, check_lock(project.reloaded())) == ({}, [])
    assert lock_initial_weights(project) == {}

    hub.add("org/eye", files(tmp_path, 9))
    shutil.rmtree(project.state)
    shutil.rmtree(tmp_path / "cache")
    assert built(project)["image"] == str(folder)
    assert json.loads((folder / stub.CONFIG).read_bytes()) == {"width": 4}, "the locked commit, not the branch"
    config = folder / stub.CONFIG
    changed = config.read_bytes() + b" "
    config.unlink()  # a link to the Hub's cache
    config.write_bytes(changed)
    with raises_error("KD-TEACH-002", mentions=(locked.files[stub.CONFIG].sha256, "kdkit lock eye")):
        built(project)
    assert len(check_lock(project.reloaded())) == 1
    again = lock_initial_weights(project, ["eye"])
    assert again["eye"].commit != commit
    assert json.loads((folder / stub.CONFIG).read_bytes()) == {"width": 9}
    assert built(project)["image"] == str(folder)


def test_a_teacher_of_the_project_gives_its_own_files(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("org/eye", files(tmp_path, 4))
    project = make_project(tmp_path / "one")
    add_teacher(project, "eye", {})
    downloads = hub.downloads()
    assert lock_initial_weights(project) == {}
    assert built(project)["image"] == str(project.artifacts / "eye")
    assert hub.downloads() == downloads

    first = make_project(tmp_path / "two")
    lock_initial_weights(first)
    hub.add("org/eye", files(tmp_path, 9))
    add_teacher(first, "eye", {})  # a newer commit; the student's weights do not move
    assert first.reloaded().lock.teachers["eye"].dims["image"] == 9
    assert json.loads((Path(built(first)["image"]) / stub.CONFIG).read_bytes()) == {"width": 4}
    (first.root / "registry.yaml").write_text("version: 1\nteachers: {eye: {}}\nstudent: {config: {init: ./a}}\n")
    assert len(check_lock(first.reloaded())) == 1
    lock_initial_weights(first)
    assert first.reloaded().lock.initial_weights == {}
    assert check_lock(first.reloaded()) == []


def test_the_files_that_a_student_starts_from_are_in_the_digest_of_a_plan(hub: LocalHub, tmp_path: Path) -> None:
    contents = {width: files(tmp_path, width) for width in (4, 9)}
    for name, start in (("named", "eye"), ("teacher", "'teacher:eye'")):
        seen = []
        for width, content in contents.items():
            hub.add("org/eye", content)
            project = make_project(tmp_path / f"{name}-{width}", TOWERS.replace("image: eye", f"image: {start}"))
            if name == "teacher":
                add_teacher(project, "eye", {})
            else:
                lock_initial_weights(project)
            seen.append(student_facts(project.reloaded()))
        assert seen[0]["initial_weights"] != seen[1]["initial_weights"]
        assert {**seen[0], "initial_weights": {}} == {**seen[1], "initial_weights": {}}
    words = project.root / "words"
    words.mkdir()
    digests = []
    for letter in ("a", "b"):
        (words / "model.bin").write_text(letter, encoding="utf-8")
        digests.append(student_facts(project.reloaded())["initial_weights"]["./words/model.bin"])
    assert digests == [hashlib.sha256(letter).hexdigest() for letter in (b"a", b"b")]


def test_what_cannot_be_a_start_changes_nothing(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/eye", files(tmp_path, 4) | {"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n"})
    hub.add("org/gated", files(tmp_path, 5), gated=True)

    def refused(id: str, project: Project, *mentions: str, code: ExitCode | None = None, offline: bool = False) -> None:
        before = stub.tree(project.root)
        with raises_error(id, code=code, mentions=mentions):
            lock_initial_weights(project, offline=offline)
        assert stub.tree(project.root) == before
        assert not any(project.artifacts.glob("*"))

    unknown = make_project(tmp_path / "unknown", TOWERS.replace("image: eye", "image: eyes"))
    refused("KD-TEACH-300", unknown, "'eyes'", "'eye'", "./eyes")
    assert len(check_lock(unknown)) == 1
    business = make_project(tmp_path / "business", "use: commercial\n" + TOWERS)
    refused("KD-TEACH-009", business, code=ExitCode.DENIED)
    known = make_project(tmp_path / "known", "use: commercial\n" + TOWERS, license="cc-by-nc-4.0")
    downloads = hub.downloads()
    refused("KD-TEACH-009", known, code=ExitCode.DENIED)
    assert hub.downloads() == downloads
    gated = make_project(tmp_path / "gated", source="hf:org/gated")
    refused("KD-HUB-014", gated, f"{hub.url}/org/gated", code=ExitCode.DENIED)
    shutil.rmtree(tmp_path / "cache")
    refused("KD-HUB-026", make_project(tmp_path / "offline"), code=ExitCode.MISSING, offline=True)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused("KD-HUB-025", make_project(tmp_path / "down"), code=ExitCode.MISSING)
    moved = make_project(tmp_path / "moved", unavailable="it is elsewhere", source="", loader="")
    refused("KD-REG-001", moved, "elsewhere")


def test_another_source_in_the_catalogue_is_told(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("org/eye", files(tmp_path, 4))
    lock_initial_weights(make_project(tmp_path / "project"))
    other = make_project(tmp_path / "project", source="hf:org/eye@main")
    with raises_error("KD-TEACH-007", mentions=("hf:org/eye@main", "kdkit lock eye")):
        built(other)
    assert lock_teachers(other) == {}  # the lock is still read


def test_the_student_of_mmkd_is_complete_by_its_name(hub: LocalHub, tmp_path: Path) -> None:
    clip, bert = make_transformers_clip_folder(tmp_path / "clip", embed_dim=32), make_bert_folder(tmp_path / "bert")
    card = {"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n"}
    hub.add("facebook/metaclip-b16-400m", stub.tree(clip) | card)
    hub.add("microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract", stub.tree(bert))
    root = tmp_path / "project"
    (root / "images").mkdir(parents=True)
    rows = write_images(root / "images", ("ct",), train=4, held_out=2, seed=0)
    (root / "images" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "registry.yaml").write_text(
        "version: 1\nstudent: {family: mmkd}\ndata: [{source: jsonl, path: ./images/samples.jsonl}]\n"
        "recipe: captions\noptimizer: {steps: 1, batch_size: 4}\n"
    )
    options = Options(cpu=True)
    with raises_error("KD-TEACH-301", mentions=("metaclip-b16, biomedbert",)):
        dry_run(Project(root), options, Silent())
    assert (hub.downloads(), (root / "features").exists()) == ([], False)
    done = distill(Project(root), options)
    assert done is not None

    project = Project(root)
    torch.manual_seed(0)
    by_folders = project.catalogue.make("student", "mmkd", init={"image": str(clip), "text": str(bert)})
    made = StudentBuilder.of(project).student
    assert all(torch.equal(made.state_dict()[name], x) for name, x in by_folders.state_dict().items())
    start = start_of(project, [done.version.lineage])
    assert start is not None
    assert [part.repository for part in start.parts] == [
        "facebook/metaclip-b16-400m",
        "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
    ]
    assert [part.license_facts.strictest for part in start.parts] == ["non-commercial", "permissive"]
    assert distill(project, options) is not None
    assert Versions(project).names() == ("v1",), "the same plan makes no second version"
