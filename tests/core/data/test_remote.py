"""Data behind URLs: fetched once, continued after failures, fetched again when it changes; credentials refused."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import httpx2
import numpy as np
import pytest

from kdkit.core.base.locks import file_lock
from kdkit.core.contracts import Silent
from kdkit.core.data import load_index, remote, remote_cache, remote_files
from kdkit.core.data.images import open_image
from kdkit.core.data.remote import FOLDER, fetch_data
from kdkit.core.project.project import Project
from tests.errors import raises_error
from tests.loopback import serving
from tests.plugins.archive_examples import COLUMNS, PNGS, ROWS
from tests.plugins.sources.archives import members_of, write_parquet, write_tar
from tests.recorder import Recorder

BLOCK = 1000
CONTENT = np.random.default_rng(0).bytes(20 * BLOCK + 17)


class Server(BaseHTTPRequestHandler):
    """Serves ``files``, with ranges; closes the connection after ``cut`` bytes of an answer while ``cuts`` are left."""

    files: ClassVar[dict[str, bytes]] = {}
    ranges, busy, cut, cuts = True, 0, 3 * BLOCK, 0
    requests: ClassVar[list[tuple[str, str]]] = []

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        kind, wanted = type(self), self.headers.get("Range")
        kind.requests.append((self.command, wanted or ""))
        content = kind.files.get(self.path)
        if kind.busy:
            kind.busy -= 1
            content, status = b"", 503
        elif content is None:
            content, status = b"", 404
        else:
            status = 206 if wanted and kind.ranges else 200
            etag, whole = hashlib.sha256(content).hexdigest(), len(content)
            if wanted and status == 206:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                content = content[int(first) : int(last) + 1 if last else None]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(content) - 1}/{whole}")
        if status < 300:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and kind.cuts and len(content) > kind.cut:
            kind.cuts -= 1
            content = content[: kind.cut]
        if body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(files: dict[str, bytes], **settings: Any) -> Iterator[tuple[str, type[Server]]]:
    kind: Any = type("Served", (Server,), {"files": files, "requests": [], **settings})
    with serving(kind) as address:
        yield address, kind


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(remote_files, "BLOCK", BLOCK)


def fetch(tmp_path: Path, url: str, reporter: Recorder | None = None, **options: Any) -> Path:
    return fetch_data(tmp_path, url, ".tar", reporter or Recorder(), **options)


def test_a_folder_of_a_storage(tmp_path: Path, memory: Any) -> None:
    contents = {"a.tar": CONTENT, "train/b.tar": CONTENT[:50], "train/.hidden.tar": b"x", "notes.txt": b"y"}
    for name, content in contents.items():
        memory.pipe(f"/bucket/data/{name}", content)
    folder = fetch(tmp_path, "memory://bucket/data")
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.tar")}
    assert found == {"a.tar": CONTENT, "train/b.tar": CONTENT[:50]}
    again, before = Recorder(), (folder / "a.tar").stat().st_mtime_ns
    assert fetch(tmp_path, "memory://bucket/data", again) == folder
    assert ((folder / "a.tar").stat().st_mtime_ns, again.lines, again.warnings) == (before, [], [])
    memory.pipe("/bucket/data/a.tar", CONTENT[::-1])
    memory.rm("/bucket/data/train/b.tar")
    fetch(tmp_path, "memory://bucket/data", again)
    assert [path.read_bytes() for path in folder.rglob("*.tar")] == [CONTENT[::-1]]
    assert len(again.warnings) == 2  # one changed, one gone


def test_one_file_and_local_files(tmp_path: Path, memory: Any) -> None:
    memory.pipe("/bucket/a.tar", CONTENT)
    path = fetch(tmp_path, "memory://bucket/a.tar")
    assert (path.name, path.read_bytes()) == ("a.tar", CONTENT)
    (tmp_path / "own data.tar").write_bytes(b"own")
    assert fetch(tmp_path, (tmp_path / "own data.tar").as_uri()) == tmp_path / "own data.tar"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_continues(tmp_path: Path, ranges: bool) -> None:
    """By ranges from where it stopped; a server without ranges sends all again."""
    with served({"/d/a.tar": CONTENT}, ranges=ranges, cuts=2 if not ranges else 5, busy=1) as (address, server):
        assert fetch(tmp_path, f"{address}/d/a.tar").read_bytes() == CONTENT
        starts = [wanted for command, wanted in server.requests if command == "GET"]
    assert starts[:3] == ["", f"bytes={3 * BLOCK}-", f"bytes={(6 if ranges else 3) * BLOCK}-"]


def test_what_was_fetched_is_kept_for_the_next_command(tmp_path: Path) -> None:
    files = {"/a0.tar": CONTENT[:500], "/a1.tar": CONTENT}
    with served(files, cut=BLOCK, cuts=10**6, ranges=False) as (address, server):
        url = f"{address}/a{{0..1}}.tar"
        with raises_error("KD-DATA-229"):
            fetch(tmp_path, url)
        server.cuts, server.ranges = 0, True
        server.requests.clear()
        folder = fetch(tmp_path, url)
        got = [wanted for command, wanted in server.requests if command == "GET"]
    assert got == [f"bytes={BLOCK}-"]
    assert [path.read_bytes() for path in sorted(folder.glob("*.tar"))] == list(files.values())
    warned = Recorder()
    assert fetch(tmp_path, url, warned) == folder  # the server is gone
    assert len(warned.warnings) == 1
    (folder / "a0.tar").unlink()
    with raises_error("KD-DATA-229"):
        fetch(tmp_path, url)


def test_a_file_that_changes_meanwhile_is_not_mixed(tmp_path: Path) -> None:
    with served({"/a.tar": CONTENT}, cut=BLOCK, cuts=1, ranges=False) as (address, server):
        server.cuts = 10**6
        with raises_error("KD-DATA-229"):
            fetch(tmp_path, f"{address}/a.tar")
        server.cuts, server.ranges = 0, True
        server.files = {"/a.tar": CONTENT[::-1]}
        assert fetch(tmp_path, f"{address}/a.tar").read_bytes() == CONTENT[::-1]


def test_a_short_answer_of_a_storage_leaves_no_gap(
    tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no checksum is known, the file had the right size and the wrong bytes."""
    whole, short = type(memory).cat_file, iter([0, 7, 0, 3])

    def cut(*args: Any) -> bytes:
        found: bytes = whole(*args)
        return found[: len(found) - next(short, 0)]

    monkeypatch.setattr(type(memory), "cat_file", cut)
    memory.pipe("/bucket/a.tar", CONTENT)
    assert fetch(tmp_path, "memory://bucket/a.tar").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    file = remote_files.RemoteFile("memory://a.tar", "a.tar", len(CONTENT), "1", sha256="0" * 64)
    system = fsspec.filesystem("memory")
    system.pipe("/a.tar", CONTENT)
    with raises_error("KD-DATA-228"):
        remote._fetch(remote_files.FsspecFiles(system, "memory"), file, tmp_path, Silent())
    system.rm("/a.tar")
    assert list(tmp_path.glob("a.tar*")) == [tmp_path / "a.tar.part.stamp"]


@pytest.mark.parametrize(
    "url",
    [
        "https://user:SECRET@host/a.tar",
        "https://host/a.tar?X-Amz-Signature=SECRET",
        "s3://key:SECRET@bucket/a",
        "http://host/a.tar",
        "ftp://host/a.tar",
        "https:///a.tar",
        "s3://bucket/../a",
        "https://host/{0..999999}-{0..999999}.tar",
    ],
)
def test_urls_that_are_not_read(tmp_path: Path, url: str) -> None:
    with raises_error("KD-DATA-220") as caught:
        fetch(tmp_path, url)
    assert "SECRET" not in str(caught.value) + caught.value.where + caught.value.why
    assert not list((tmp_path / FOLDER).glob("*"))


def test_names_and_sizes_of_a_storage_are_not_trusted(tmp_path: Path, memory: Any) -> None:
    memory.pipe("/bucket/data/x\\a.tar", CONTENT)
    with raises_error("KD-DATA-223"):
        fetch(tmp_path, "memory://bucket/data")
    with raises_error("KD-DATA-225"):
        fetch(tmp_path, "memory://bucket/nothing")
    memory.pipe("/bucket/large/a.tar", CONTENT)
    with raises_error("KD-DATA-226", mentions=("max_download_gib: 1",)):
        fetch(tmp_path, "memory://bucket/large", limit=0)
    assert not list((tmp_path / FOLDER).rglob("*.tar"))


def test_packages_of_storages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(protocol: str) -> Any:
        raise ImportError(protocol)

    monkeypatch.setattr(fsspec, "filesystem", missing)
    for protocol, package in (("s3", "s3fs"), ("gs", "gcsfs")):
        with raises_error("KD-DATA-221", mentions=(package,)):
            fetch(tmp_path, f"{protocol}://bucket/a")


@pytest.mark.parametrize("source", ["webdataset", "parquet"])
def test_a_project_reads_archives_behind_a_url(tmp_path: Path, source: str) -> None:
    if source == "webdataset":
        local = write_tar(tmp_path / "local" / "train-0.tar", members_of(ROWS, PNGS))
    else:
        local = write_parquet(tmp_path / "local.parquet", COLUMNS)
    with served({f"/set/{local.name}": local.read_bytes()}) as (address, _):
        indexes = []
        for name, path in (("here", str(local)), ("there", f"{address}/set/{local.name}")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "registry.yaml").write_text(
                f"version: 1\ndata:\n- source: {source}\n  path: '{path}'\n", encoding="utf-8"
            )
            indexes.append(load_index(Project(tmp_path / name)))
        here, there = indexes
        assert there.ids == here.ids
        assert there.digests.tolist() == here.digests.tolist()
        assert [open_image(a).tobytes() for a in there.samples] == [open_image(b).tobytes() for b in here.samples]
        text = (tmp_path / "there" / "registry.yaml").read_text(encoding="utf-8")
        (tmp_path / "there" / "registry.yaml").write_text(re.sub("source: .*", "source: csv", text), encoding="utf-8")
        with raises_error("KD-DATA-224", mentions=("webdataset", "parquet")):
            load_index(Project(tmp_path / "there"))


@pytest.mark.parametrize(
    ("path", "error"),
    [("https://host/a.tar?key=1", "KD-DATA-220"), ("memory://bucket/nothing", "KD-DATA-225"), ("BAD", "KD-DATA-223")],
)
def test_errors_of_urls_name_the_registry_line(tmp_path: Path, memory: Any, path: str, error: str) -> None:
    memory.pipe("/bucket/bad/x\\a.tar", CONTENT)
    path = path.replace("BAD", "memory://bucket/bad")
    text = f"version: 1\ndata:\n- source: webdataset\n  path: '{path}'\n"
    (tmp_path / "registry.yaml").write_text(text, encoding="utf-8")
    with raises_error(error) as caught:
        load_index(Project(tmp_path))
    place = "registry.yaml:3"
    assert caught.value.where == (place if error == "KD-DATA-223" else f"{place}: {path.partition('?')[0]}")


@pytest.mark.parametrize("what", ["record", "part", "folder"])
def test_a_project_of_others_writes_and_removes_nothing_outside(tmp_path: Path, what: str) -> None:
    """Its ``.kdkit/remote`` may name any file as one that is gone, or hold links where files are fetched to."""
    victim, state = tmp_path / "home/victim", tmp_path / "project/.kdkit"
    victim.parent.mkdir()
    victim.write_text("mine", encoding="utf-8")
    with serving(Server) as address:
        Server.files = {"/a.tar": CONTENT}
        url = f"{address}/a.tar"
        if what != "folder":
            fetch_data(state, url, ".tar", Silent())
        folder = state / FOLDER / f"a.tar-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        if what == "record":
            record = folder.with_name(folder.name + remote_cache.RECORD)
            record.write_text(json.dumps({"a.tar": "x", "../../../../home/victim": "x"}))
        elif what == "part":
            (folder / "a.tar").unlink()
            (folder / "a.tar.part").symlink_to(victim)
        else:
            folder.parent.mkdir(parents=True)
            folder.symlink_to(victim.parent)
        if what == "record":
            fetch_data(state, url, ".tar", Silent())
        else:
            with raises_error("KD-DATA-151"):
                fetch_data(state, url, ".tar", Silent())
    assert victim.read_text(encoding="utf-8") == "mine"
    assert list(victim.parent.iterdir()) == [victim]


@pytest.mark.parametrize("link", ["", "remote", "deep/remote"])
def test_a_project_of_others_deletes_nothing_through_a_link(tmp_path: Path, link: str) -> None:
    """Its record names a file outside as one that is gone, and the folder of the URL, or one in it, is a link."""
    home, state = tmp_path / "home", tmp_path / "project/.kdkit"
    home.mkdir()
    (home / "thesis.tex").write_text("mine", encoding="utf-8")
    with served({"/a.tar": CONTENT}) as (address, _):
        url = f"{address}/a.tar"
        folder = state / FOLDER / f"a.tar-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        (folder / link).parent.mkdir(parents=True)
        (folder / link).symlink_to(home)
        record = {f"{link}/thesis.tex".lstrip("/"): "x"}
        folder.with_name(folder.name + remote_cache.RECORD).write_text(json.dumps(record), encoding="utf-8")
        with raises_error("KD-DATA-151"):
            fetch_data(state, url, ".tar", Silent())
    assert [path.name for path in home.iterdir()] == ["thesis.tex"]


def test_commands_at_once_fetch_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, and then finds everything here; a third needs no lock."""
    monkeypatch.setattr(remote, "POLL", 0.01)
    with served({"/a.tar": CONTENT, "/b.tar": CONTENT[:50]}) as (address, server), ThreadPoolExecutor() as pool:
        url = f"{address}/{{a,b}}.tar"
        folder = tmp_path / FOLDER / f"_a,b_.tar-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        folder.mkdir(parents=True)
        waiting = [Recorder(), Recorder()]
        with file_lock(folder.with_name(folder.name + remote_cache.LOCK)):
            found = [pool.submit(fetch, tmp_path, url, reporter) for reporter in waiting]
            until = time.monotonic() + 10
            while not all(reporter.lines for reporter in waiting) and time.monotonic() < until:
                time.sleep(0.01)
        assert [future.result(timeout=30) for future in found] == [folder, folder]
        assert [command for command, _ in server.requests].count("GET") == 2
        assert sorted(len(reporter.lines) for reporter in waiting) == [1, 2]  # one fetched after its wait
        with file_lock(folder.with_name(folder.name + remote_cache.LOCK)):
            assert pool.submit(fetch, tmp_path, url).result(timeout=30) == folder


@pytest.mark.parametrize(
    ("url", "target", "follows"),
    [
        ("https://data.example/a.tar", "https://store.example/b", True),
        ("https://data.example/a.tar", "http://169.254.169.254/latest", False),
        ("https://data.example/a.tar", "http://localhost:80@evil.example/b", False),
        ("https://data.example/a.tar", "https://localhost/b", False),
        ("https://data.example/a.tar", "http://127.0.0.1:8888/b", False),
        ("http://127.0.0.1:8000/a.tar", "http://localhost:8888/b", True),
        ("http://127.0.0.1:8000/a.tar", "http://169.254.169.254/latest", False),
        ("http://127.0.0.1:8000/a.tar", "http://localhost:80@evil.example/b", False),
    ],
)
def test_redirects_are_checked_before_they_are_followed(url: str, target: str, follows: bool) -> None:
    """A refused address gets no request; only loopback leads to loopback."""
    asked = list[str]()

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        moved = len(asked) == 1
        return httpx2.Response(
            302 if moved else 200, headers={"Location": target} if moved else {"Content-Length": "5"}
        )

    files = remote_files.HttpFiles(url)
    transport, hooks = httpx2.MockTransport(answer), files._client.event_hooks
    files._client = httpx2.Client(transport=transport, follow_redirects=True, event_hooks=hooks)
    if follows:
        assert [(file.name, file.size) for file in files.find(url, ".tar")] == [("a.tar", 5)]
    else:
        with raises_error("KD-DATA-222"):
            files.find(url, ".tar")
    assert asked == [url, target][: 1 + follows]


@pytest.mark.parametrize("path", ["/folder/", "/page", "", "/{a.tar,b}"])
def test_web_addresses_without_the_ending_are_not_asked_for(tmp_path: Path, path: str) -> None:
    with served({"/folder/": CONTENT, "/page": CONTENT, "/": CONTENT, "/a.tar": CONTENT}) as (address, server):
        with raises_error("KD-DATA-225"):
            fetch(tmp_path, address + path)
        assert server.requests == []


def test_a_named_file_that_is_missing_is_no_smaller_data_set(tmp_path: Path, memory: Any) -> None:
    memory.pipe("/bucket/0.tar", CONTENT)
    with served({"/0.tar": CONTENT, "/2.tar": CONTENT}) as (address, _):
        for url in (f"{address}/{{0..2}}.tar", "memory://bucket/{0,1}.tar"):
            with raises_error("KD-DATA-225") as caught:
                fetch(tmp_path, url)
            assert str(caught.value.where).endswith("/1.tar")
