"""A download continues where an interrupted command stopped: the real client against a small server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from kdkit.core.base.locks import file_lock
from kdkit.core.teachers import add_teacher, resume
from tests.core.teachers import stub
from tests.local_hub import LocalHub, local_hub

WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A local Hub with one teacher and an empty cache; every file is large."""
    with local_hub(tmp_path / "server") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("KDKIT_HUB_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(resume, "LARGE", 1)
        server.add("org/teacher", stub.tree(stub.write(tmp_path / "stub")))
        yield server


def add(folder: Path) -> bytes:
    """Add the teacher to a new project; returns the weights that it got."""
    project = stub.make_project(folder)
    add_teacher(project, "t", {"from": "hf:org/teacher"})
    return (project.artifacts / "t" / WEIGHTS).read_bytes()


def ranges(hub: LocalHub) -> list[str]:
    return [
        found for request in hub.requests if (found := request.headers.get("range") or request.headers.get("Range"))
    ]


def interrupted(cache: Path, content: bytes) -> Path:
    """What an interrupted command left of the weights."""
    link = next(cache.rglob(WEIGHTS))
    blob = link.resolve()
    blob.unlink()
    link.unlink()
    partial = blob.with_name(blob.name + resume.PARTIAL)
    partial.write_bytes(content)
    return partial


def test_only_the_rest_is_requested(hub: LocalHub, tmp_path: Path) -> None:
    whole = add(tmp_path / "one")
    assert ranges(hub) == []
    partial = interrupted(tmp_path / "cache", whole[:40])
    assert add(tmp_path / "two") == whole
    assert ranges(hub) == ["bytes=40-"]
    assert not partial.exists()


@pytest.mark.parametrize("left", [b"x" * 40, b"x" * 10**5], ids=["other bytes", "too long"])
def test_a_part_of_another_file_is_thrown_away(hub: LocalHub, tmp_path: Path, left: bytes) -> None:
    whole = add(tmp_path / "one")
    partial = interrupted(tmp_path / "cache", left)
    assert add(tmp_path / "two") == whole
    assert not partial.exists()
    del hub


def test_what_another_process_downloads_is_left_to_it(hub: LocalHub, tmp_path: Path) -> None:
    whole = add(tmp_path / "one")
    partial = interrupted(tmp_path / "cache", whole[:40])
    with file_lock(partial) as mine:
        assert mine
        assert add(tmp_path / "two") == whole
    assert partial.read_bytes() == whole[:40]
    assert ranges(hub) == []


def test_a_private_repository_is_downloaded_with_the_token(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("alice/private", stub.tree(stub.write(tmp_path / "other")), private=True)
    monkeypatch.setenv("KDKIT_HUB_TOKEN", "hf_alice")
    facts = add_teacher(stub.make_project(tmp_path / "one"), "t", {"from": "hf:alice/private"})
    assert facts.dims == {"image": 4, "text": 4}
    assert {request.token for request in hub.requests} == {"hf_alice"}
