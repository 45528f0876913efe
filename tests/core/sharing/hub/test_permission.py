"""Tokens: a push needs one, and none reaches another host or a message."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.base.hub import Hub, connect
from kdkit.core.sharing.hub import download, plan_upload, upload
from tests.core.sharing.hub.conftest import Release
from tests.errors import raises_error
from tests.local_hub import ALICE, LocalHub

SAVED = "hf_saved_for_huggingface_co"


def test_without_a_token_or_with_a_bad_one_nothing_is_pushed(server: LocalHub, release: Release) -> None:
    folder = release()
    nobody = connect(server.url, environment={"HF_TOKEN": SAVED})
    with raises_error("KD-HUB-004") as caught:
        upload(nobody, plan_upload(nobody, "lab/s", "model", folder))
    assert caught.value.code == ExitCode.DENIED
    assert "127.0.0.1" in caught.value.why
    assert "KDKIT_HUB_TOKEN" in caught.value.fix
    wrong = connect(server.url, "hf_wrong")
    with raises_error("KD-HUB-019", where="lab/s@main") as caught:
        plan_upload(wrong, "lab/s", "model", folder)
    assert caught.value.code == ExitCode.DENIED
    assert server.repositories == {}


def test_no_saved_token_reaches_another_host(server: LocalHub, tmp_path: Path) -> None:
    """In a process of its own, with a token in every place where the client looks for one."""
    server.add("lab/s", {"README.md": b"hi", "model.safetensors": b"weights" * 100})
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text(SAVED, encoding="utf-8")
    program = """
import sys
from pathlib import Path
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.hub import connect
from kdkit.core.sharing.hub import download, plan_upload, upload
hub, folder = connect(), Path(sys.argv[1])
download(hub, "lab/s", "model", "main", folder)
try:
    upload(hub, plan_upload(hub, "lab/new", "model", folder))
except KdkitError as error:
    print(error)
"""
    environment = {**os.environ, **server.environment(), "HF_HOME": str(home), "HF_TOKEN": SAVED}
    environment.pop("KDKIT_HUB_TOKEN")
    command = [sys.executable, "-c", program, str(tmp_path / "fetched")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "no token" in done.stdout
    assert (tmp_path / "fetched/model.safetensors").is_file()
    assert {request.token for request in server.requests} == {None}
    assert not any(SAVED in str(request.headers) for request in server.requests)


def test_a_token_is_in_no_message_also_when_the_server_echoes_it(
    server: LocalHub, hub: Hub, release: Release, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = plan_upload(hub, "lab/s", "model", release())
    server.fail("/preupload/", status=403, message=f"token {ALICE.token} may not")
    with raises_error("KD-HUB-020", where="lab/s@main") as caught:
        upload(hub, plan)
    assert "***" in caught.value.why
    assert ALICE.token not in "".join(traceback.format_exception(caught.value))
    assert ALICE.token not in repr(hub) + str(vars(caught.value))
    server.fail("/resolve/", times=99, status=500, message=f"{ALICE.token}?")
    server.add("lab/t", {"a.txt": b"a"})
    with raises_error("KD-HUB-022", where="lab/t@main"):
        download(hub, "lab/t", "model", "main", tmp_path / "t")
    assert ALICE.token not in "".join(capfd.readouterr())
