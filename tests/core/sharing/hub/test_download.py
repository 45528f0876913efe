"""What arrives is what the Hub says, whole, or nothing is there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import Hub, connect
from kdkit.core.sharing.hub import download, plan_upload, upload
from tests.core.sharing.hub.conftest import MALLORY, Release
from tests.core.sharing.hub.content import hashes
from tests.errors import raises_error
from tests.local_hub import ALICE, LocalHub

WEIGHTS = os.urandom(300_000)
FILES = {"README.md": b"hi", "eval/results.json": b"{}", "model.safetensors": WEIGHTS}


def failing(hub: Hub, into: Path, repo: str = "lab/s", revision: str = "main", kind: str = "model") -> KdkitError:
    with pytest.raises(KdkitError) as caught:
        download(hub, repo, kind, revision, into)  # type: ignore[arg-type]
    assert not into.exists()
    return caught.value


def test_a_folder_with_the_files_and_nothing_else(server: LocalHub, hub: Hub, tmp_path: Path) -> None:
    first = server.add("lab/s", FILES, private=True)
    server.add("lab/s", {"README.md": b"newer"})
    done = download(hub, "lab/s", "model", first[:12], tmp_path / "deep/into")
    assert done.commit == first
    assert hashes(tmp_path / "deep/into") == dict(done.files)
    assert done.files == {path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["into"]


def test_through_xet_storage(xet_server: LocalHub, release: Release, tmp_path: Path) -> None:
    hub, folder = connect(xet_server.url, ALICE.token), release(5_000_000)
    upload(hub, plan_upload(hub, "lab/s", "model", folder))
    done = download(hub, "lab/s", "model", "main", tmp_path / "into")
    assert {path: done.files[path] for path in hashes(folder)} == hashes(folder)
    assert any("/xet/data/" in request.path for request in xet_server.requests)


def test_some_files_only(server: LocalHub, hub: Hub, tmp_path: Path) -> None:
    server.add("lab/s", FILES)
    done = download(
        hub,
        "lab/s",
        "model",
        "main",
        tmp_path / "into",
        select=lambda names: [name for name in names if name.endswith(".json")],
    )
    assert list(done.files) == ["eval/results.json"]
    assert not any("safetensors" in request.path for request in server.requests)


def test_tampered_content_is_refused(server: LocalHub, hub: Hub, tmp_path: Path) -> None:
    server.add("lab/s", FILES, "dataset")
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    server.store.path(sha256).write_bytes(WEIGHTS[:-1] + b"!")
    tampered = failing(hub, tmp_path / "into", kind="dataset")
    assert (tampered.id, tampered.code) == ("KD-HUB-007", ExitCode.FOUND)
    assert "'model.safetensors'" in tampered.what
    server.store.path(sha256).write_bytes(WEIGHTS)
    server.requests.clear()
    download(hub, "lab/s", "dataset", "main", tmp_path / "into")
    assert not any("results.json" in request.path for request in server.requests), "what was right is kept"


def test_a_small_file_that_was_tampered_with_is_refused(server: LocalHub, hub: Hub, tmp_path: Path) -> None:
    server.add("lab/s", FILES)
    server.store.path(server.head("lab/s").files["eval/results.json"].oid).write_bytes(b"[]")
    assert "'eval/results.json'" in failing(hub, tmp_path / "into").what


def test_a_broken_download_goes_on_where_it_ended(server: LocalHub, hub: Hub, tmp_path: Path) -> None:
    server.add("lab/s", FILES)
    server.fail("GET .*safetensors", times=99, status=403, message="no")
    assert failing(hub, tmp_path / "into").code == ExitCode.DENIED
    server.faults.clear()
    server.requests.clear()
    download(hub, "lab/s", "model", "main", tmp_path / "into")
    fetched = [request.path for request in server.requests if request.method == "GET" and "/resolve/" in request.path]
    assert [path.rpartition("/")[2] for path in fetched] == ["model.safetensors"]


def test_of_a_file_that_broke_off_the_rest_is_fetched(server: LocalHub, hub: Hub, tmp_path: Path) -> None:
    server.add("lab/s", {"model.safetensors": bytes(24_000_000)})
    server.fail("GET .*safetensors", cut="response")
    download(hub, "lab/s", "model", "main", tmp_path / "into")
    first, second = [request.headers.get("range") for request in server.requests if "GET /lab/s/" in request.line]
    assert first is None
    assert second is not None
    assert 8_000_000 < int(second.removeprefix("bytes=").rstrip("-")) <= 12_000_000


@pytest.mark.parametrize("step", ["/revision/", "/tree/", "HEAD .*safetensors", "GET .*safetensors"])
@pytest.mark.parametrize("fault", [{"status": 503}, {"cut": "response"}])
def test_a_fault_that_passes_is_not_noticed(
    server: LocalHub, hub: Hub, tmp_path: Path, step: str, fault: dict[str, object]
) -> None:
    server.add("lab/s", FILES)
    server.fail(step, **fault)  # type: ignore[arg-type]
    download(hub, "lab/s", "model", "main", tmp_path / "into")
    assert (tmp_path / "into/model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("step", ["/revision/", "/tree/", "HEAD .*safetensors", "GET .*safetensors"])
@pytest.mark.parametrize("fault", [{"status": 500}, {"cut": "response"}])
def test_a_permanent_fault_is_one_clear_error(
    server: LocalHub, hub: Hub, tmp_path: Path, step: str, fault: dict[str, object]
) -> None:
    server.add("lab/s", FILES)
    server.fail(step, times=10**6, **fault)  # type: ignore[arg-type]
    error = failing(hub, tmp_path / "into")
    assert error.code == ExitCode.MISSING
    assert error.id == ("KD-HUB-022" if "status" in fault else "KD-HUB-025")
    assert error.fix


@pytest.mark.parametrize("path", ["../evil.json", "/etc/evil.json", "a/../../evil.json", ".git/hooks/x", ".cache/x"])
def test_a_path_that_leads_outside_stops_everything(server: LocalHub, hub: Hub, tmp_path: Path, path: str) -> None:
    server.add("lab/s", {**FILES, path: b"{}"})
    evil = failing(hub, tmp_path / "into")
    assert path in evil.what
    assert evil.code == ExitCode.FOUND
    assert not any("/resolve/" in request.path for request in server.requests)


def test_what_cannot_be_fetched_is_explained(server: LocalHub, hub: Hub, tmp_path: Path) -> None:
    server.add("lab/s", FILES, private=True)
    server.add("lab/data", FILES, "dataset")
    server.add("other/gated", FILES, gated=True)
    into, nobody, mallory = tmp_path / "into", connect(server.url), connect(server.url, MALLORY.token)
    assert failing(hub, into, revision="v9").id == "KD-HUB-015"
    assert failing(hub, into, repo="lab/none").id == "KD-HUB-010"
    wrong_kind = failing(hub, into, repo="lab/data")
    assert wrong_kind.id == "KD-HUB-009"
    assert failing(hub, into, kind="dataset").id == "KD-HUB-009"
    for stranger in (nobody, mallory):
        assert failing(stranger, into).id == "KD-HUB-010"
        gated = failing(stranger, into, repo="other/gated")
        assert gated.id == "KD-HUB-014"
        assert f"{server.url}/other/gated" in gated.fix
        assert gated.code == ExitCode.DENIED
    server.repository("other/gated").granted.add("mallory")
    download(mallory, "other/gated", "model", "main", into)


def test_a_folder_in_use_is_left_alone(server: LocalHub, hub: Hub, tmp_path: Path) -> None:
    server.add("lab/s", FILES)
    (tmp_path / "into").mkdir()
    (tmp_path / "into/mine.txt").write_text("mine", encoding="utf-8")
    with raises_error("KD-HUB-006"):
        download(hub, "lab/s", "model", "main", tmp_path / "into")
    assert server.requests == []
    (tmp_path / "empty").mkdir()
    download(hub, "lab/s", "model", "main", tmp_path / "empty")
