"""Files of a web server without their images, and one part of images at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import ImageLocation, Silent
from kdkit.core.data import partial_files, remote
from kdkit.core.data.locations import read_content
from kdkit.core.data.partial_files import PartialFiles, open_partial
from kdkit.plugins.readers.parquet_parts import image_parts
from tests.core.data.test_remote import served
from tests.errors import raises_error
from tests.plugins.sources.archives import png, write_parquet

PNGS = [png(n, (64, 64)) for n in range(6)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))


def table(folder: Path, first: int = 0) -> bytes:
    columns: dict[str, list[object]] = {"image": [*PNGS[first:]], "text": [f"scan {n}" for n in range(first, 6)]}
    return write_parquet(folder / "whole.parquet", columns, row_group=2).read_bytes()


def opened(folder: Path, url: str) -> PartialFiles:
    found = open_partial(folder, url, ".parquet", image_parts, Silent())
    found.fetch_texts(Silent())
    return found


def location(files: PartialFiles, row: int) -> ImageLocation:
    return ImageLocation("parquet", files.location, ("image", row), "x.png")


def test_images_are_here_while_the_loop_is_at_them(tmp_path: Path) -> None:
    with served({"/a.parquet": table(tmp_path)}, cut=3000, cuts=2) as (address, _):
        files = opened(tmp_path, f"{address}/a.parquet")
        path = files.location
        before = path.stat()
        parts = files.parts[path]
        assert before.st_size == len(table(tmp_path))
        assert [part.first for part in parts] == [0, 2, 4]
        order = [(path, part) for part in reversed(parts)]
        for (_, part), _ in zip(files.load(order), order, strict=True):
            assert [read_content(location(files, row)) for row in range(part.first, part.stop)] == PNGS[
                part.first : part.stop
            ]
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        if files.has_holes():
            assert after.st_blocks * 512 < before.st_size / 2
            assert path.read_bytes()[parts[0].start + 4096 : parts[0].end - 4096].strip(b"\0") == b""
        assert files.part_of(location(files, 3)) == (path, parts[1])
        with raises_error("KD-PLUG-510"):
            files.part_of(location(files, 6))
        files.remove()
        assert not list((tmp_path / "streams").glob("*parquet*"))


def test_texts_are_fetched_once_and_again_after_a_change(tmp_path: Path) -> None:
    with served({"/a.parquet": table(tmp_path)}) as (address, server):
        opened(tmp_path, f"{address}/a.parquet")
        asked = len(server.requests)
        again = opened(tmp_path, f"{address}/a.parquet")
        assert len(server.requests) == asked + 1  # is it still the same?
        again.require_same()
        server.files["/a.parquet"] = table(tmp_path, 2)
        with raises_error("KD-DATA-228"):
            again.require_same()
        with raises_error("KD-DATA-228"):
            list(again.load([(again.location, again.parts[again.location][0])]))
        assert len(opened(tmp_path, f"{address}/a.parquet").parts[again.location]) == 2


def test_a_server_that_gives_no_parts_is_told(tmp_path: Path) -> None:
    with served({"/a.parquet": table(tmp_path)}, ranges=False) as (address, _), raises_error("KD-DATA-511"):
        opened(tmp_path, f"{address}/a.parquet")


def test_a_server_that_ends_is_told(tmp_path: Path) -> None:
    with served({"/a.parquet": table(tmp_path)}) as (address, server):
        files = opened(tmp_path, f"{address}/a.parquet")
        server.busy = 100
        with raises_error("KD-DATA-229"):
            list(files.load([(files.location, files.parts[files.location][0])]))
        with raises_error("KD-DATA-229", mentions=("asked 3 times",)):
            files.require_same()


def test_a_file_that_vanished_here_is_fetched_again(tmp_path: Path) -> None:
    with served({"/a.parquet": table(tmp_path)}) as (address, _):
        opened(tmp_path, f"{address}/a.parquet").location.unlink()
        again = opened(tmp_path, f"{address}/a.parquet")
        assert [part.first for part in again.parts[again.location]] == [0, 2, 4]


def test_a_disk_without_holes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any) -> bool:
        return False

    monkeypatch.setattr(partial_files, "_punch", refuses)
    with served({"/a.parquet": table(tmp_path)}) as (address, _):
        files = opened(tmp_path, f"{address}/a.parquet")
        assert not files.has_holes()
        list(files.load((files.location, part) for part in files.parts[files.location]))
        assert [read_content(location(files, row)) for row in range(6)] == PNGS
