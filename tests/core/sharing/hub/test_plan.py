"""A plan says what a commit would change, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.base.hub import Hub, connect
from kdkit.core.sharing.hub import plan_upload
from tests.core.sharing.hub.conftest import CARD, Release
from tests.errors import raises_error
from tests.local_hub import ALICE, LocalHub, local_hub


def test_a_new_repository_gets_everything(server: LocalHub, hub: Hub, release: Release) -> None:
    plan = plan_upload(hub, "lab/s", "model", release(3000))
    assert [file.path for file in plan.adds] == ["README.md", "eval/results.json", "model.safetensors"]
    assert (plan.parent, plan.visibility, plan.size) == (None, None, 3000 + len(CARD) + 2)
    assert {request.method for request in server.requests} == {"GET"}
    assert server.repositories == {}


def test_files_are_compared_by_content(server: LocalHub, hub: Hub, release: Release) -> None:
    folder = release(extra=b"new")
    weights = (folder / "model.safetensors").read_bytes()
    commit = server.add(
        "lab/s",
        {".gitattributes": b"", "README.md": b"old", "model.safetensors": weights, "eval/old.json": b"{}"},
        private=True,
    )
    before = dict(server.repository("lab/s").refs)
    plan = plan_upload(hub, "lab/s", "model", folder)
    assert [file.path for file in plan.adds] == ["eval/results.json", "extra"]
    assert [file.path for file in plan.updates] == ["README.md"]
    assert [file.path for file in plan.unchanged] == ["model.safetensors"]
    assert plan.deletes == ("eval/old.json",)
    assert (plan.parent, plan.visibility, plan.empty) == (commit, "private", False)
    assert plan.to_json()["updates"] == {"README.md": len(CARD)}
    assert {request.method for request in server.requests} == {"GET"}
    assert server.repository("lab/s").refs == before


def test_a_weight_file_that_changed_keeps_its_size(server: LocalHub, hub: Hub, release: Release) -> None:
    folder = release(3000)
    server.add("lab/s", {"model.safetensors": bytes(3000)})
    assert [file.path for file in plan_upload(hub, "lab/s", "model", folder).updates] == ["model.safetensors"]


def test_kinds_are_apart(server: LocalHub, hub: Hub, release: Release) -> None:
    server.add("lab/s", {"README.md": b""})
    assert plan_upload(hub, "lab/s", "dataset", release()).parent is None


def test_long_listings_come_in_pages(tmp_path: Path, release: Release) -> None:
    names = {f"f{number}/{number}.txt": str(number).encode() for number in range(25)}
    with local_hub(tmp_path / "paged", page=4) as server:
        server.add("lab/s", names)
        plan = plan_upload(connect(server.url, ALICE.token), "lab/s", "model", release())
    assert set(plan.deletes) == set(names)


def test_a_folder_that_cannot_be_pushed_is_refused(hub: Hub, tmp_path: Path, release: Release) -> None:
    (tmp_path / "empty").mkdir()
    with raises_error("KD-HUB-038"):
        plan_upload(hub, "lab/s", "model", tmp_path / "empty")
    folder = release()
    (folder / "link").symlink_to("/etc/hostname")
    with raises_error("KD-HUB-040", mentions=("'link'",)):
        plan_upload(hub, "lab/s", "model", folder)


@pytest.mark.parametrize("name", ["lab/s/t", "lab/..", "la b/s"])
def test_a_name_that_cannot_be_is_refused(hub: Hub, release: Release, name: str) -> None:
    with raises_error("KD-HUB-012") as caught:
        plan_upload(hub, name, "model", release())
    assert caught.value.code == ExitCode.USAGE


def test_a_branch_that_does_not_exist_is_an_error(server: LocalHub, hub: Hub, release: Release) -> None:
    server.add("lab/s", {"README.md": b""})
    with raises_error("KD-HUB-015", where="lab/s@draft") as caught:
        plan_upload(hub, "lab/s", "model", release(), revision="draft")
    assert caught.value.code == ExitCode.MISSING
    assert "'draft'" in caught.value.why
