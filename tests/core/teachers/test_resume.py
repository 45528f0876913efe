"""A download continues where an interrupted command stopped: the real client against a small server."""

from __future__ import annotations

import hashlib
import shutil
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from huggingface_hub import constants

from kdkit.core.base.errors import ExitCode
from kdkit.core.base.hub import Hub, connect
from kdkit.core.base.locks import file_lock
from kdkit.core.teachers import add_teacher, plan_addition, resume
from kdkit.core.teachers.resume import download_large_files
from kdkit.core.teachers.source import parse_source
from tests.core.teachers import stub
from tests.local_hub import LocalHub
from tests.loopback import serving

WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """The local Hub with one teacher; every file is large."""
    monkeypatch.setattr(resume, "LARGE", 1)
    hub.add("org/teacher", stub.tree(stub.write(tmp_path / "stub")))
    return hub


def add(folder: Path) -> bytes:
    """Add the teacher to a new project; returns the weights that it got."""
    project = stub.make_project(folder)
    add_teacher(project, "t", {"from": "hf:org/teacher"})
    return (project.artifacts / "t" / WEIGHTS).read_bytes()


def ranges(hub: LocalHub) -> list[str]:
    return [
        found for request in hub.requests if (found := request.headers.get("range") or request.headers.get("Range"))
    ]


def interrupted(cache: Path, content: bytes, name: str = WEIGHTS) -> Path:
    """What an interrupted command left of a file."""
    link = next(cache.rglob(name))
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


def test_a_part_that_no_sha256_proves_is_thrown_away(hub: LocalHub, tmp_path: Path) -> None:
    """Small files have a git hash, of 40 digits."""
    add(tmp_path / "one")
    config = (tmp_path / "stub" / stub.CONFIG).read_bytes()
    partial = interrupted(tmp_path / "cache", b"x" * (len(config) - 1), stub.CONFIG)
    assert len(partial.name.removesuffix(resume.PARTIAL)) == 40
    add(tmp_path / "two")
    assert (tmp_path / "two/.kdkit/artifacts/t" / stub.CONFIG).read_bytes() == config
    assert ranges(hub) == []


def test_a_file_too_large_for_plain_downloads_is_left_to_the_client(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = add(tmp_path / "one")
    partial = interrupted(tmp_path / "cache", whole[:40])
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", len(whole) - 1)
    download_large_files(connect(), parse_source("hf:org/teacher", "t"), "0" * 40, {WEIGHTS: len(whole)}, tmp_path)
    assert ranges(hub) == []
    assert partial.exists()


def test_what_has_arrived_counts_as_cached(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = add(tmp_path / "one")
    interrupted(tmp_path / "cache", whole[:40])
    project, usage = stub.make_project(tmp_path / "two"), shutil.disk_usage(tmp_path)
    free = len(whole) - 40
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    planned = plan_addition(project, "t", {"from": "hf:org/teacher"}).forecast
    assert planned.bytes - planned.cached == free
    free -= 1
    stub.refused(project, "t", {"from": "hf:org/teacher"}, "KD-TEACH-029", code=ExitCode.MISSING)
    del hub


@pytest.mark.parametrize("elsewhere", [True, False])
def test_the_token_stays_with_its_host(elsewhere: bool, tmp_path: Path) -> None:
    """A Hub that redirects to another server, as to a store of large files, or answers itself."""
    content, received = b"weights", dict[str, str | None]()
    etag = hashlib.sha256(content).hexdigest()

    class Store(BaseHTTPRequestHandler):
        name = "store"

        def do_HEAD(self) -> None:
            self.answer(302 if elsewhere and self.name == "hub" else 200)

        def do_GET(self) -> None:
            self.answer(200)
            self.wfile.write(content)

        def answer(self, status: int) -> None:
            received[f"{self.name} {self.command}"] = self.headers["authorization"]
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{store}/signed")
                self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Content-Length", str(0 if status == 302 else len(content)))
            self.send_header("X-Linked-ETag", f'"{etag}"')
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    class Front(Store):
        name = "hub"

    sizes = {WEIGHTS: resume.LARGE}
    with serving(Store) as store, serving(Front) as endpoint:
        source = parse_source("hf:org/teacher", "t")
        download_large_files(Hub(endpoint, "hf_alice"), source, "0" * 40, sizes, tmp_path)
    assert next(tmp_path.rglob(etag)).read_bytes() == content
    alice = "Bearer hf_alice"
    assert received == {"hub HEAD": alice, **({"store GET": None} if elsewhere else {"hub GET": alice})}


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
