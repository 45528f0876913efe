"""What people did in a repository is seen before a push, and by nobody overwritten in the meantime."""

from __future__ import annotations

from pathlib import Path

from kdkit.core.base.hub import Hub
from kdkit.core.project.registry.lock import FileFact
from kdkit.core.sharing.hub import plan_upload, upload
from kdkit.core.sharing.hub.edits import PublishedFiles, keep_files
from tests.core.sharing.hub.conftest import Release
from tests.core.teachers.stub import Notes
from tests.errors import raises_error
from tests.local_hub import LocalHub

REPO = "lab/s"


def test_an_edit_during_the_planning_is_not_overwritten(
    server: LocalHub, hub: Hub, release: Release, tmp_path: Path
) -> None:
    server.add(REPO, {"README.md": b"old"}, private=True)
    there = PublishedFiles(hub, REPO, "model", tmp_path / "scratch")
    head = server.add(REPO, {"README.md": b"bob's"}, author="bob")
    plan = plan_upload(hub, REPO, "model", release(), seen=there.seen)
    with raises_error("KD-HUB-003"):
        upload(hub, plan)
    assert server.head(REPO).oid == head


def test_only_what_a_push_wrote_is_replaced(server: LocalHub, hub: Hub, release: Release, tmp_path: Path) -> None:
    files = {"README.md": b"old", "eval/results.json": b"[1]", "mine.txt": b"by hand", "old.json": b"{}"}
    server.add(REPO, files, private=True)
    pushed = {
        name: FileFact(size=len(files[name]), sha256=digest)
        for name, digest in server.hashes(REPO).items()
        if name in ("eval/results.json", "old.json")
    }
    there, notes = PublishedFiles(hub, REPO, "model", tmp_path / "scratch"), Notes()
    plan = plan_upload(hub, REPO, "model", release(), seen=there.seen)
    kept = keep_files(plan, there, pushed, ("README.md",), "--all", notes)
    assert (kept.deletes, kept.kept) == (("old.json",), ("mine.txt",))
    assert ["mine.txt" in said and "--all" in said for said in notes.warnings] == [True]
    changed = {**pushed, "eval/results.json": FileFact(size=3, sha256="0" * 64)}
    with raises_error("KD-HUB-042", mentions=("eval/results.json", "--all")):
        keep_files(plan, there, changed, ("README.md",), "--all", notes)
