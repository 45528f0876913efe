"""A Hub on the loopback interface, the real client, no waiting between attempts, and caches of our own."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http

from kdkit.core.base.hub import Hub, connect, retry
from tests.local_hub import ALICE, Account, LocalHub, local_hub

BOB = Account("bob", "hf_bob", organizations={"lab": "write"})
READER = Account("alice", "hf_reader", role="read", organizations={"lab": "write"})
MALLORY = Account("mallory", "hf_mallory")
CARD = b"---\nlicense: mit\n---\n# A student\n"


@pytest.fixture(autouse=True, scope="session")
def _xet(tmp_path_factory: pytest.TempPathFactory) -> None:
    """``hf_xet`` makes one session for the whole process, which keeps what it reads here."""
    os.environ.setdefault("HF_XET_CACHE", str(tmp_path_factory.mktemp("xet")))
    os.environ.setdefault("HF_XET_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("HF_XET_CLIENT_RETRY_BASE_DELAY", "10ms")


@pytest.fixture(autouse=True)
def _client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda _: None, time=time.time))
    monkeypatch.setattr(retry, "WAITS", (0.0, 0.0, 0.0))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalHub]:
    """LFS storage alone."""
    with local_hub(tmp_path / "server", accounts=(ALICE, BOB, READER, MALLORY)) as running:
        yield running


@pytest.fixture
def hub(server: LocalHub) -> Hub:
    """As alice, who may write to ``alice`` and ``lab``."""
    return connect(server.url, ALICE.token)


@pytest.fixture
def xet_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """With Xet storage, which the client then uses."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with local_hub(tmp_path / "server", accounts=(ALICE, BOB), xet=True) as running:
        yield running


Release = Callable[..., Path]


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """``release(extra=b"..")``: a folder like a student's, with fresh weights; keywords name more files."""

    def make(size: int = 3000, **more: bytes) -> Path:
        folder = Path(tempfile.mkdtemp(dir=tmp_path, prefix="release-"))
        (folder / "eval").mkdir()
        (folder / "README.md").write_bytes(CARD)
        (folder / "eval/results.json").write_bytes(b"{}")
        (folder / "model.safetensors").write_bytes(os.urandom(size))
        for name, content in more.items():
            (folder / name).write_bytes(content)
        return folder

    return make
