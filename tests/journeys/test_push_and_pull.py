"""Distill, push, pull, teach on, push again, pull again: nothing of the history and no bit of the student gets lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kdkit.core.base.hub import Hub
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.project.project import Project
from kdkit.core.project.registry.lock import Lock
from kdkit.core.project.versions import Versions, load_student
from kdkit.core.sharing.release.layout import Record
from kdkit.core.sharing.release.pull import pull_student
from kdkit.core.sharing.release.push import push_student
from kdkit.core.teachers.add import add_teacher
from tests.core.sharing.release.projects import make_distilled
from tests.local_hub import ALICE, Account, LocalHub, local_hub
from tests.tiny_models import pictures
from tests.toy_project import open_project, toy_catalogue, train_teacher, write_images

BOB = Account("bob", "hf_bob")
THEIRS, MINE = "alice/student", "bob/student"


def features(project: Project) -> torch.Tensor:
    student: Any = load_student(Versions(project).get(), project.catalogue)
    pixels = torch.stack([student.preprocess(picture) for picture in pictures()])
    with torch.no_grad():
        return torch.cat([student.encode_image(pixels), student.encode_text(["a ct image of mass", "image"])])


def record_of(hub: LocalHub, repo: str) -> Record:
    file = hub.head(repo).files["kdkit.json"]
    return Record.from_json(json.loads(hub.store.path(file.sha256 or file.oid).read_text(encoding="utf-8")))


def teach_on(root: Path) -> Project:
    """Another person's pictures of one known domain, and a new teacher of it."""
    (root / "images").mkdir()
    rows = write_images(root / "images", ["xray"], train=12, held_out=10, seed=9)
    (root / "images" / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(text.replace("data:\n", "data:\n  - {source: jsonl, path: images/mine.jsonl}\n"), "utf-8")
    train_teacher(["xray"], width=20, seed=5).save(root / "models" / "mine")
    add_teacher(open_project(root), "mine", {"from": "local:models/mine", "loader": "toy", "license": "mit"})
    outcome = distill(open_project(root), Options(cpu=True, incremental=True))
    assert outcome is not None
    assert outcome.retention is not None
    assert (outcome.version.name, outcome.version.refused) == ("v3", False)
    assert (set(outcome.retention.domains), outcome.retention.not_compared) == ({"xray"}, ("ct", "mri"))
    return open_project(root)


def test_the_whole_circle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    author = make_distilled(tmp_path / "author")
    with local_hub(tmp_path / "hub", accounts=[ALICE, BOB]) as server:
        alice, bob = Hub(server.url, ALICE.token), Hub(server.url, BOB.token)
        pushed = push_student(author, THEIRS, public=True, hub=alice)
        assert pushed.uploaded is not None
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        root = tmp_path / "mine"
        pulled = pull_student(THEIRS, root, hub=bob, catalogue=toy_catalogue())
        assert pulled.origin.commit == pushed.uploaded.commit
        assert torch.equal(features(author), features(open_project(root)))
        project = teach_on(root)
        again = push_student(project, MINE, hub=bob)
        assert again.uploaded is not None
        assert again.license == "cc-by-nc-4.0", "what alice's teacher asks for binds bob too"
        record, before = record_of(server, MINE), record_of(server, THEIRS)
        assert [item.version for item in record.history] == ["v1", "v2", "v3"]
        assert list(record.history[:2]) == list(before.history)
        assert record.lineage.parent == "v2"
        assert {t.name: t.since for t in record.lineage.teachers} == {
            "radio": "v1",
            "chest": "v2",
            "mine": "v3",
        }
        assert record.origin is not None
        assert (record.origin.repository, record.origin.commit) == (THEIRS, pushed.uploaded.commit)
        third = pull_student(MINE, tmp_path / "third", hub=bob, catalogue=toy_catalogue())
        assert third.version == "v3"
        assert set(third.unpublished) == {"radio", "chest", "mine"}, "those of the first author too"
        assert {"radio", "chest"} <= Lock.load(third.root / "registry.lock").teachers.keys()
        assert third.origin.endpoint == record.origin.endpoint == server.url
        readme = server.head(MINE).files["README.md"]
        card = server.store.path(readme.sha256 or readme.oid).read_text(encoding="utf-8")
        assert f"[{THEIRS}]({server.url}/{THEIRS})" in card
        assert torch.equal(features(project), features(open_project(tmp_path / "third")))
        version = Versions(open_project(tmp_path / "third")).get()
        assert [item.version for item in Versions(project).history(version)] == ["v1", "v2", "v3"]
