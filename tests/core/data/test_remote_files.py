"""Files of web servers, and of the Hub."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from huggingface_hub import HfFileSystem, constants

from kdkit.core.contracts import Silent
from kdkit.core.data import load_index, remote, remote_files
from kdkit.core.data.images import open_image
from kdkit.core.data.index import SampleIndex
from kdkit.core.project.project import Project
from tests.core.data.test_remote import Server
from tests.errors import raises_error
from tests.local_hub import ALICE, local_hub
from tests.loopback import serving
from tests.plugins.archive_examples import COLUMNS
from tests.plugins.sources.archives import write_parquet


def test_shards_of_a_web_server_are_asked_for_together() -> None:
    """No answer is sent before all requests are here: one after the other would end by the barrier's timeout."""
    together = threading.Barrier(remote_files.AT_ONCE, timeout=10)

    class Waits(Server):
        files: ClassVar[dict[str, bytes]] = {f"/{n}.tar": bytes(n) for n in range(remote_files.AT_ONCE)}

        def do_HEAD(self) -> None:
            together.wait()
            super().do_HEAD()

    with serving(Waits) as address:
        url = f"{address}/{{0..{remote_files.AT_ONCE - 1}}}.tar"
        found = remote_files.HttpFiles(url).find(url, ".tar")
    assert [(file.name, file.size) for file in found] == [(f"{n}.tar", n) for n in range(remote_files.AT_ONCE)]


def test_a_url_of_the_hub_names_a_commit_and_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the real client, with a Hub on this machine."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    content = write_parquet(tmp_path / "a.parquet", COLUMNS).read_bytes()
    with local_hub(tmp_path / "server") as hub:
        hub.add("lab/scans", {"data/train-00000-of-00001.parquet": content, "README.md": b"#"}, "dataset")
        hub.add("lab/old", {"old.py": b"raise SystemExit", "README.md": b"#"}, "dataset")
        system = HfFileSystem(endpoint=hub.url, token=ALICE.token, skip_instance_cache=True)
        monkeypatch.setattr(fsspec, "filesystem", lambda _: system)
        for url in ("hf://datasets/lab/scans", "hf://datasets/lab/scans@main/data", "hf://datasets/lab/scans@abc"):
            with raises_error("KD-DATA-320"):
                read(tmp_path, url)
        commit = hub.head("lab/scans", kind="dataset").oid
        index = read(tmp_path, f"hf://datasets/lab/scans@{commit}")
        assert index.ids[0] == "0"
        assert [open_image(sample).size for sample in index.samples] == [(16, 16)] * 3
        hub.add("lab/scans", {"data/train-00000-of-00001.parquet": b"PAR1"}, "dataset")
        assert len(read(tmp_path, f"hf://datasets/lab/scans@{commit}")) == 3
        with raises_error("KD-DATA-225", mentions=("program", "refs/convert/parquet")):
            read(tmp_path, f"hf://datasets/lab/old@{hub.head('lab/old', kind='dataset').oid}")


class Slow:
    """A storage that does not answer."""

    def find(self, url: str, ending: str) -> list[remote_files.RemoteFile]:
        assert (url, ending) == ("https://host/a.tar", ".tar")
        time.sleep(0.05)
        raise remote_files.Unavailable("ReadTimeout")


class Said(Silent):
    """A reporter that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_slow_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAITS", (0.0,))
    monkeypatch.setattr(remote, "PATIENCE", 0.01)
    said = Said()
    with pytest.raises(remote_files.Unavailable, match="asked 2 times"):
        remote.find_patiently(Slow(), "https://host/a.tar", ".tar", said)  # type: ignore[arg-type]
    assert [line for line in said.lines if "host/a.tar" in line] == said.lines
    assert ["waiting" in line for line in said.lines] == [True, False]


def read(folder: Path, url: str) -> SampleIndex:
    text = f"version: 1\ndata:\n- source: hf-dataset\n  path: '{url}'\n"
    (folder / "registry.yaml").write_text(text, encoding="utf-8")
    return load_index(Project(folder))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_server_with_the_certificate_of_another_is_not_asked_again(tmp_path: Path) -> None:
    """A real handshake with a certificate that nobody has signed."""
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*made, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    calls: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    calls.append(1)
                    with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as stream:
                        stream.recv(1)

        threading.Thread(target=answer, daemon=True).start()
        url = f"https://localhost:{listening.getsockname()[1]}/a.tar"
        with raises_error("KD-DATA-345", where=url, mentions=["SSL_CERT_FILE"]):
            remote.remote_size(url, ".tar")
        listening.shutdown(socket.SHUT_RDWR)
    assert len(calls) == 1
