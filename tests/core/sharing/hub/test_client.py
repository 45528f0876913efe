"""Every step of a push, with every fault: success after a retry or one clear error, never half a commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import Hub, connect
from kdkit.core.sharing.hub import Uploaded, plan_upload, upload
from tests.core.sharing.hub.conftest import Release
from tests.core.sharing.hub.content import hashes
from tests.errors import raises_error
from tests.local_hub import ALICE, LocalHub

STEPS = {
    "whoami": "GET /api/whoami-v2",
    "info": "GET /api/models/lab/s/revision/main",
    "auth-check": "GET .*/auth-check/write",
    "refs": "GET .*/refs$",
    "validate-yaml": "POST /api/validate-yaml",
    "create": "POST /api/repos/create",
    "preupload": "POST .*/preupload/",
    "batch": "POST .*/objects/batch",
    "put": "PUT /lfs/",
    "verify": "POST /lfs/verify",
    "commit": "POST .*/commit/",
    "tree": "GET .*/tree/",
    "tag": "POST .*/tag/",
}
EXISTING = ("auth-check",)
"""Steps that a push into a new repository does not take."""
NEW = ("create",)
LATE = ("tree", "tag", "refs")
"""Steps that also come after the commit."""
ONCE: Mapping[str, Mapping[str, Any]] = {
    "503": {"status": 503},
    "request cut": {"cut": "request"},
    "answer cut": {"cut": "response"},
}
ALWAYS: Mapping[str, Mapping[str, Any]] = {
    "401": {"status": 401, "message": "Invalid credentials in Authorization header"},
    "403": {"status": 403, "message": "Forbidden"},
    "404": {"status": 404, "message": "Not Found"},
    "409": {"status": 409, "message": "Conflict"},
    "412": {"status": 412, "message": "A commit has happened since"},
    "413": {"status": 413, "message": "Private repository storage limit reached"},
    "500": {"status": 500, "message": "Internal Error"},
    "request cut": {"cut": "request"},
    "answer cut": {"cut": "response"},
}


def prepared(server: LocalHub, hub: Hub, release: Release, step: str) -> tuple[Path, Any]:
    """A folder and its plan, for a repository that exists or for a new one, as the step needs it."""
    folder = release()
    if step not in NEW:
        server.add("lab/s", {"README.md": b"old", "old.json": b"{}"}, private=True, title="before")
    return folder, plan_upload(hub, "lab/s", "model", folder)


def titles(server: LocalHub) -> list[str]:
    if ("model", "lab/s") not in server.repositories:
        return []
    return [commit.title for commit in server.repository("lab/s").history(server.head("lab/s"))]


@pytest.mark.parametrize("fault", ONCE)
@pytest.mark.parametrize("step", STEPS)
def test_a_fault_that_passes_is_not_noticed(
    server: LocalHub, hub: Hub, release: Release, step: str, fault: str
) -> None:
    folder, plan = prepared(server, hub, release, step)
    server.fail(STEPS[step], **ONCE[fault])
    done = upload(hub, plan, message="mine", tag="v1")
    assert server.faults.take(STEPS[step].replace(".*", "")) is None, "the fault was met"
    assert server.hashes("lab/s") == hashes(folder)
    assert titles(server).count("mine") == 1
    assert server.repository("lab/s").tags == {"v1": done.commit}


@pytest.mark.parametrize("fault", ALWAYS)
@pytest.mark.parametrize("step", STEPS)
def test_a_fault_that_stays_is_one_clear_error_and_the_next_run_finishes(
    server: LocalHub, hub: Hub, release: Release, step: str, fault: str
) -> None:
    folder, plan = prepared(server, hub, release, step)
    before = titles(server)
    server.fail(STEPS[step], times=10**6, **ALWAYS[fault])
    outcome = attempt(hub, plan)
    assert len(server.requests) < 60, "it gives up"
    if isinstance(outcome, KdkitError):
        assert outcome.fix
        assert outcome.code in (ExitCode.FOUND, ExitCode.MISSING, ExitCode.DENIED)
        assert ALICE.token not in str(vars(outcome))
        if "mine" in titles(server):
            assert step in LATE or (step, fault) == ("commit", "answer cut")
        else:
            assert [title for title in titles(server) if title != "initial commit"] == before[:-1]
    server.faults.clear()
    hub = connect(server.url, ALICE.token)
    final = upload(hub, plan_upload(hub, "lab/s", "model", folder), message="mine", tag="v1")
    assert server.hashes("lab/s") == hashes(folder)
    assert titles(server).count("mine") == 1
    assert server.repository("lab/s").tags == {"v1": final.commit}


def attempt(hub: Hub, plan: Any) -> Uploaded | KdkitError:
    try:
        return upload(hub, plan, message="mine", tag="v1")
    except KdkitError as error:
        return error


def test_a_lost_answer_opens_one_pull_request_only(server: LocalHub, hub: Hub, release: Release) -> None:
    folder, plan = prepared(server, hub, release, "commit")
    server.fail(STEPS["commit"], cut="response")
    done = upload(hub, plan, pull_request=True)
    assert done.pull_request == "refs/pr/1"
    assert len(server.repository("lab/s").pull_requests) == 1
    assert server.hashes("lab/s", "refs/pr/1") == hashes(folder)
    assert titles(server)[0] == "before"


EXPECTED = [
    ("whoami", "401", "the Hub does not know this token", ExitCode.DENIED),
    ("auth-check", "403", "no permission", ExitCode.DENIED),
    ("batch", "413", "no room for this on the Hub", ExitCode.DENIED),
    ("put", "413", "no room for this on the Hub", ExitCode.DENIED),
    ("commit", "403", "no permission", ExitCode.DENIED),
    ("commit", "500", "the Hub is in trouble", ExitCode.MISSING),
    ("preupload", "request cut", "the Hub cannot be reached", ExitCode.MISSING),
]


@pytest.mark.parametrize(("step", "fault", "what", "code"), EXPECTED)
def test_errors_say_what_it_is(
    server: LocalHub, hub: Hub, release: Release, step: str, fault: str, what: str, code: ExitCode
) -> None:
    _, plan = prepared(server, hub, release, step)
    server.fail(STEPS[step], times=10**6, **ALWAYS[fault])
    outcome = attempt(hub, plan)
    assert isinstance(outcome, KdkitError)
    assert (outcome.what, outcome.code) == (what, code)
    assert outcome.where == (server.url if step == "whoami" else "lab/s@main")


def test_nobody_listens(release: Release) -> None:
    hub = connect("http://127.0.0.1:9", "hf_any")
    with raises_error("KD-HUB-025", where="lab/s@main") as caught:
        plan_upload(hub, "lab/s", "model", release())
    assert caught.value.code == ExitCode.MISSING
    assert "http://127.0.0.1:9" in caught.value.fix


def test_offline_is_said(hub: Hub, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with raises_error("KD-HUB-011", where="lab/s@main") as caught:
        plan_upload(hub, "lab/s", "model", release())
    assert "offline" in caught.value.what
    assert caught.value.code == ExitCode.MISSING


def test_an_empty_repository_that_stays_is_said(server: LocalHub, hub: Hub, release: Release) -> None:
    plan = plan_upload(hub, "lab/s", "model", release())
    server.fail("PUT /lfs/", times=10**6, status=403, message="Forbidden")
    outcome = attempt(hub, plan)
    assert isinstance(outcome, KdkitError)
    assert f"{server.url}/lab/s" in outcome.why
    assert server.hashes("lab/s") == {}


@pytest.mark.parametrize("step", ["xet-write-token", "POST /xet/v1/xorbs/", "POST /xet/v1/shards"])
@pytest.mark.parametrize("fault", ["503", "answer cut", "403"])
def test_faults_of_xet_storage(xet_server: LocalHub, release: Release, step: str, fault: str) -> None:
    hub, folder = connect(xet_server.url, ALICE.token), release(1_500_000)
    plan = plan_upload(hub, "lab/s", "model", folder)
    xet_server.fail(step, **({**ONCE, **ALWAYS}[fault]))
    outcome = attempt(hub, plan)
    if fault == "403":
        assert isinstance(outcome, KdkitError)
        assert (outcome.what, outcome.code) == ("no permission", ExitCode.DENIED)
        assert xet_server.hashes("lab/s") == {}
        upload(hub, plan_upload(hub, "lab/s", "model", folder))
    assert xet_server.hashes("lab/s") == hashes(folder)
