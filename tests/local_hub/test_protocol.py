"""What the Hub of the tests does, seen through the real client."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import BadRequestError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tests.local_hub import ALICE, Account, LocalHub, local_hub

BOB = Account("bob", "hf_bob", organizations={"lab": "read"})
READER = Account("alice", "hf_reader", role="read")


@pytest.fixture(autouse=True)
def _client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub(tmp_path / "server", accounts=(ALICE, BOB, READER)) as running:
        yield running


def as_(hub: LocalHub, account: Account | None) -> HfApi:
    return HfApi(endpoint=hub.url, token=account.token if account else False)


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_private_repositories_look_like_none_to_strangers(hub: LocalHub) -> None:
    hub.add("alice/s", {"a.txt": b"a"}, private=True)
    hub.add("lab/s", {"a.txt": b"a"}, private=True)
    assert as_(hub, BOB).model_info("lab/s").private
    with pytest.raises(RepositoryNotFoundError) as stranger:
        as_(hub, BOB).model_info("alice/s")
    with pytest.raises(RepositoryNotFoundError) as nobody:
        as_(hub, None).model_info("alice/s")
    assert (status(stranger), status(nobody)) == (404, 401)


def test_a_repository_is_made_once_and_never_seen_without_its_first_commit(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, stop, seen = hub.store.put_small, threading.Event(), set[str | None]()

    def slowly(content: bytes) -> str:
        time.sleep(0.2)  # time enough for somebody else to come
        return keep(content)

    def look() -> None:
        while not stop.is_set():
            try:
                seen.add(as_(hub, ALICE).model_info("lab/s").sha)
            except RepositoryNotFoundError:
                seen.add(None)

    def make() -> int:
        try:
            as_(hub, ALICE).create_repo("lab/s", private=True)
        except HfHubHTTPError as error:
            return int(error.response.status_code)
        return 200

    monkeypatch.setattr(hub.store, "put_small", slowly)
    with ThreadPoolExecutor(5) as pool:
        looking = pool.submit(look)
        made = [pool.submit(make) for _ in range(4)]
        statuses = sorted(one.result() for one in made)
        stop.set()
        looking.result()
    assert statuses == [200, 409, 409, 409]
    assert seen <= {None, hub.head("lab/s").oid}


def test_who_may_write(hub: LocalHub) -> None:
    hub.add("lab/s", {"a.txt": b"a"})
    as_(hub, ALICE).auth_check("lab/s", write=True)
    for account in (BOB, READER):
        as_(hub, account).auth_check("lab/s")
        with pytest.raises(HfHubHTTPError) as refused:
            as_(hub, account).auth_check("lab/s", write=True)
        assert status(refused) == 403
        with pytest.raises(HfHubHTTPError):
            as_(hub, account).create_repo("lab/t")
    with pytest.raises(HfHubHTTPError) as unknown:
        HfApi(endpoint=hub.url, token="hf_unknown").model_info("lab/s")
    assert status(unknown) == 401
    assert set(hub.repositories) == {("model", "lab/s")}


def test_gated_files_need_accepted_terms(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("alice/s", {"a.txt": b"a"}, gated=True)
    with pytest.raises(GatedRepoError):
        as_(hub, BOB).hf_hub_download("alice/s", "a.txt", local_dir=tmp_path)
    hub.repository("alice/s").granted.add("bob")
    assert Path(as_(hub, BOB).hf_hub_download("alice/s", "a.txt", local_dir=tmp_path)).read_bytes() == b"a"


def commit(hub: LocalHub, *operations: CommitOperationAdd | CommitOperationDelete, parent: str | None = None) -> None:
    as_(hub, ALICE).create_commit("lab/s", list(operations), commit_message="c", parent_commit=parent)


def test_a_commit_is_all_or_nothing(hub: LocalHub) -> None:
    first = hub.add("lab/s", {"a.txt": b"a"})
    add = CommitOperationAdd("b.txt", b"b")
    with pytest.raises(HfHubHTTPError):
        commit(hub, add, CommitOperationDelete("none.txt"))
    with pytest.raises(ValueError, match="license"):
        commit(hub, add, CommitOperationAdd("README.md", b"---\nlicense: no\n---\n"))
    with pytest.raises(HfHubHTTPError) as stale:
        commit(hub, add, parent="0" * 40)
    assert status(stale) == 412
    assert hub.head("lab/s").oid == first
    commit(hub, add, CommitOperationDelete("a.txt"), parent=first)
    assert list(hub.hashes("lab/s")) == ["b.txt"]


def test_what_was_never_uploaded_cannot_be_committed(hub: LocalHub) -> None:
    hub.add("lab/s", {"a.txt": b"a"})
    add = CommitOperationAdd("m.safetensors", b"weights")
    as_(hub, ALICE).preupload_lfs_files("lab/s", [add], free_memory=False)
    hub.store.path(add.upload_info.sha256.hex()).unlink()
    with pytest.raises(BadRequestError):
        commit(hub, add)
    assert list(hub.hashes("lab/s")) == ["a.txt"]


def test_contents_with_another_hash_are_refused(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("lab/s", {"a.txt": b"a"})
    (tmp_path / "m.safetensors").write_bytes(b"weights")
    add = CommitOperationAdd("m.safetensors", str(tmp_path / "m.safetensors"))
    add.upload_info.sha256 = bytes(32)
    with pytest.raises(RuntimeError, match="uploading"):
        as_(hub, ALICE).preupload_lfs_files("lab/s", [add])
    assert not hub.store.has("00" * 32)


def test_faults_come_as_often_as_asked_and_are_recorded(hub: LocalHub) -> None:
    hub.add("lab/s", {"a.txt": b"a"})
    hub.fail("GET /api/models/lab/s$", times=2, status=409, message="busy", code="Busy")
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="busy"):
            as_(hub, ALICE).model_info("lab/s")
    as_(hub, ALICE).model_info("lab/s")
    assert [(request.line.split(), request.status, request.token) for request in hub.requests] == [
        (["GET", "/api/models/lab/s"], status, "hf_alice") for status in (409, 409, 200)
    ]


def test_a_cut_request_changes_nothing_and_a_cut_answer_comes_too_late(hub: LocalHub) -> None:
    api = as_(hub, ALICE)
    hub.fail("POST /api/repos/create", cut="request")
    with pytest.raises(Exception, match=r"disconnected|reset|closed"):
        api.create_repo("lab/s")
    assert hub.repositories == {}
    hub.fail("POST /api/repos/create", cut="response")
    with pytest.raises(Exception, match=r"disconnected|reset|closed"):
        api.create_repo("lab/s")
    assert ("model", "lab/s") in hub.repositories


def test_branches_tags_pull_requests_and_squashing(hub: LocalHub) -> None:
    api = as_(hub, ALICE)
    hub.add("lab/s", {"a.txt": b"a"}, "dataset")
    api.create_branch("lab/s", repo_type="dataset", branch="draft")
    api.create_tag("lab/s", repo_type="dataset", tag="v1")
    with pytest.raises(HfHubHTTPError) as again:
        api.create_tag("lab/s", repo_type="dataset", tag="v1")
    assert status(again) == 409
    opened = api.create_pull_request("lab/s", "Add b", repo_type="dataset")
    add = [CommitOperationAdd("b.txt", b"b")]
    api.create_commit("lab/s", add, commit_message="b", repo_type="dataset", revision=f"refs/pr/{opened.num}")
    api.merge_pull_request("lab/s", opened.num, repo_type="dataset")
    assert api.get_discussion_details("lab/s", opened.num, repo_type="dataset").status == "merged"
    refs = api.list_repo_refs("lab/s", repo_type="dataset")
    assert {branch.name for branch in refs.branches} == {"main", "draft"}
    assert set(hub.hashes("lab/s", "main", "dataset")) == {"a.txt", "b.txt"}
    api.super_squash_history("lab/s", repo_type="dataset")
    assert len(api.list_repo_commits("lab/s", repo_type="dataset")) == 1
    api.delete_tag("lab/s", tag="v1", repo_type="dataset")
    api.update_repo_settings("lab/s", private=True, repo_type="dataset")
    assert api.dataset_info("lab/s").private
    api.delete_repo("lab/s", repo_type="dataset")
    assert hub.repositories == {}


def test_by_hand(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.local_hub", str(tmp_path / "hub")]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert running.stdout is not None
    lines = []
    for line in running.stdout:
        if line.startswith("#"):
            break
        lines.append(line.removeprefix("export ").strip().split("=", 1))
    told = dict(lines)
    api = HfApi(endpoint=told["HF_ENDPOINT"], token=told["HF_TOKEN"])
    try:
        assert api.whoami()["name"] == "alice"
    finally:
        running.send_signal(2)
        assert running.wait(timeout=300) == 0
