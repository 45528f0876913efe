"""Content digests and their cache."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kdkit.core.contracts import ImageRef
from kdkit.core.data import load_index
from kdkit.core.data.digests import DigestCache, file_digest, file_digests, stamp_of
from kdkit.core.data.locations import file_of
from kdkit.core.project.project import Project
from tests.core.data.projects import make_project, row
from tests.core.features.small import paint


def test_digests_follow_the_content(tmp_path: Path) -> None:
    project = make_project(tmp_path, [row(i) for i in range(4)])
    before = load_index(project)
    assert len(set(before.digests.tolist())) == 4
    os.utime(tmp_path / "data/0.png")  # a new time, the same bytes
    paint(tmp_path / "data/1.png", seed=99)
    make_project(tmp_path, [row(0), row(1), row(2, text="other"), row(3, label="x", domain="mr")])
    after = load_index(Project(tmp_path))
    assert (before.digests == after.digests).tolist() == [True, False, False, True]


def test_digests_follow_all_images_of_a_sample(tmp_path: Path) -> None:
    paint(tmp_path / "data/more.png", seed=50)
    paint(tmp_path / "data/other.png", seed=51)
    rows = [row(i, extra={"images": images}) for i, images in enumerate([["more.png"], ["other.png", "more.png"], []])]
    before = load_index(make_project(tmp_path, rows))
    paint(tmp_path / "data/more.png", seed=52)
    after = load_index(make_project(tmp_path, rows))
    assert (before.digests == after.digests).tolist() == [False, False, True]


def test_files_are_hashed_once_and_a_damaged_cache_is_rebuilt(tmp_path: Path) -> None:
    project = make_project(tmp_path, [row(i) for i in range(4)])
    first = load_index(project)
    hashed: list[ImageRef] = []

    def counting(path: ImageRef) -> int | str:
        hashed.append(path)
        return file_digest(path)

    cache = DigestCache(project.state / "digests.arrow", counting)
    image = first.samples[2].image
    stat = os.stat(file_of(image))
    files = [(image, (stat.st_size, stat.st_mtime_ns))]
    expected = [file_digest(first.samples[2].image)]
    assert cache.get(files) == expected
    assert hashed == []
    for content in (b"", b"{", b"[1]", cache.path.read_bytes()[:90]):
        cache.path.write_bytes(content)
        assert cache.get(files) == expected
    assert len(hashed) == 4
    assert (load_index(project).digests == first.digests).all()


def test_an_interrupted_command_keeps_what_it_hashed(tmp_path: Path) -> None:
    images, hashed, stop = [], list[ImageRef](), True
    for i in range(4):
        path = tmp_path / f"{i}.png"
        path.write_bytes(b"%d" % i)
        images.append((path, stamp_of(path)))

    def digest(path: ImageRef) -> int | str:
        hashed.append(path)
        if stop and path == images[3][0]:
            raise KeyboardInterrupt
        return file_digest(path)

    cache = DigestCache(tmp_path / "state" / "digests.arrow", digest)
    with pytest.raises(KeyboardInterrupt):
        cache.get(images)
    stop = False
    hashed.clear()
    assert cache.get(images) == [file_digest(path) for path, _ in images]
    assert hashed == [images[3][0]]


def test_a_read_only_disk_costs_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path))

    image = tmp_path / "a.png"
    image.write_bytes(b"abc")
    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.warns(UserWarning, match="Read-only"):
        (digest,) = file_digests(tmp_path / "state").get([(image, stamp_of(image))])
    assert digest == file_digest(image)
