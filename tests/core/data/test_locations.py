"""Images that are no files of their own: what is read of them, and where they go."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation, ImageReaderSpec, Sample
from kdkit.core.data import load_index, locations
from kdkit.core.data.check import check_data
from kdkit.core.data.digests import file_digest
from kdkit.core.data.images import decode, open_further_images, open_image
from kdkit.core.data.locations import image_reader, key_of, read_content
from kdkit.core.distill.pseudo_labels.manifest import Manifest
from kdkit.core.plugin_system.catalogue import Entry
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.project import Project
from tests.core.data.projects import make_project, row, write_registry
from tests.core.features.small import paint
from tests.errors import raises_error
from tests.plugins.sources.archives import members_of, png, write_parquet, write_tar

ROWS = [row(number, image=f"{number}.png") for number in range(12)]
PNGS = {f"{number}.png": png(number) for number in range(12)}


def project_of(root: Path, source: str, path: str, **options: Any) -> Project:
    write_registry(root, [{"source": source, "path": path, "options": options}])
    return Project(root)


@pytest.fixture
def files(tmp_path: Path) -> Project:
    (tmp_path / "files" / "data").mkdir(parents=True)
    for name, content in PNGS.items():
        (tmp_path / "files" / "data" / name).write_bytes(content)
    return make_project(tmp_path / "files", ROWS)


@pytest.fixture
def shards(tmp_path: Path) -> Project:
    for number in range(3):
        write_tar(tmp_path / "shards" / "data" / f"{number}.tar", members_of(ROWS[4 * number :][:4], PNGS))
    return project_of(tmp_path / "shards", "webdataset", "data")


@pytest.fixture
def cells(tmp_path: Path) -> Project:
    columns = {name: [one[name] for one in ROWS] for name in ROWS[0]}
    columns["image"] = [PNGS[name] for name in columns["image"]]
    write_parquet(tmp_path / "cells" / "all.parquet", columns)
    return project_of(tmp_path / "cells", "parquet", "all.parquet")


def test_the_same_images_have_the_same_digests_wherever_they_are(
    files: Project, shards: Project, cells: Project
) -> None:
    """So cached features of files serve a WebDataset of the same files."""
    first = load_index(files)
    for project in (shards, cells):
        for _ in range(2):  # hashed, and from the cache
            other = load_index(project)
            assert other.ids == first.ids
            assert (other.digests == first.digests).all()
        pairs = zip(first.samples, other.samples, strict=True)
        assert all(open_image(a).tobytes() == open_image(b).tobytes() for a, b in pairs)
        fields = ("text", "domain", "label", "split", "extra")
        assert [[getattr(one, f) for f in fields] for one in first.samples] == [
            [getattr(one, f) for f in fields] for one in other.samples
        ]


def test_the_check_finds_the_same(files: Project, shards: Project, cells: Project) -> None:
    reports = [check_data(project).to_json() for project in (files, shards, cells)]
    assert reports[0] == reports[1] == reports[2]
    assert not reports[0]["problems"]


def test_a_changed_shard_is_hashed_again(shards: Project) -> None:
    before = load_index(shards)
    pictures = {**PNGS, "5.png": png(99)}
    write_tar(shards.root / "data" / "1.tar", members_of(ROWS[4:8], pictures))
    after = load_index(shards)
    assert (before.digests == after.digests).tolist() == [number != 5 for number in range(12)]


def test_an_unreadable_member_is_named(shards: Project) -> None:
    write_tar(shards.root / "data" / "1.tar", members_of(ROWS[4:8], {**PNGS, "5.png": b"no picture"}))
    report = check_data(shards)
    assert [(bad.id, bad.image) for bad in report.items("images")] == [("s5", f"{shards.root}/data/1.tar[s5.png]")]
    with raises_error("KD-DATA-001", where=f"{shards.root}/data/1.tar[s5.png]"):
        open_image(load_index(shards).samples[5])


def test_pseudo_labels_name_members_of_shards(shards: Project) -> None:
    """As an object, which the source ``jsonl`` reads."""
    samples = load_index(shards).samples
    path = shards.root / "out" / "labels.jsonl"
    path.parent.mkdir()
    manifest = Manifest(path, shards.root, samples)
    twice = replace(samples[1], extra={"images": [samples[2].image, Path("/elsewhere/more.png")]})
    manifest = Manifest(path, shards.root, [*samples, twice])
    rows = [manifest.row(one, "new", "another text", {}) for one in (samples[0], twice)]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    options = {"image_root": manifest.image_root}
    again = list(load_catalogue().make("source", "jsonl", location=path, **options))
    assert [one.image for one in again] == [samples[0].image, samples[1].image]
    assert again[1].extra["images"][0] == samples[2].image
    wrong: list[Any] = [[{}], "512", None]
    for at in wrong:
        rows[0]["image"]["at"] = at
        path.write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
        with raises_error("KD-SRC-084", where=f"{path}:1"):
            list(load_catalogue().make("source", "jsonl", location=path, **options))
    rows[0]["image"].update(at=[], file="../../../etc/passwd")
    path.write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    with raises_error("KD-SRC-036", where=f"{path}:1"):
        list(load_catalogue().make("source", "jsonl", location=path, image_root="."))


def test_a_manifest_cannot_name_an_unknown_reader(tmp_path: Path) -> None:
    paint(tmp_path / "data" / "a.png", seed=1)
    place = {"reader": "os.system", "file": "a.png", "at": [], "name": "x"}
    (tmp_path / "data" / "a.jsonl").write_text(json.dumps(row(0, image=place)) + "\n", encoding="utf-8")
    with raises_error("KD-PLUG-003", where="registry.yaml:2"):
        load_index(project_of(tmp_path, "jsonl", "data/a.jsonl"))


# ----------------------------------------------------------------------------- a kind of a plugin


class Halves:
    """The left or right half of a picture: a kind that kdkit does not know."""

    def content(self, location: ImageLocation) -> bytes:
        """The pixels of the half."""
        with Image.open(location.file) as image:
            width, height = image.size
            left = 0 if location.at == ("left",) else width // 2
            return image.convert("RGB").crop((left, 0, left + width // 2, height)).tobytes()

    def decode(self, location: ImageLocation, content: bytes) -> Image.Image:
        """Eight pixels wide."""
        if location.at == ("middle",):
            raise KdkitError("HALF-001", "no such half", why="there are two")
        return Image.frombytes("RGB", (8, 16), content)


def read_halves(location: Path) -> Iterator[Sample]:
    for side in ("left", "right"):
        image = ImageLocation("halves", location, (side,), side)
        yield Sample(side, image, f"the {side} half", "ct", extra={"images": [image]}, origin=str(location))


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    catalogue = load_catalogue()
    spec = ImageReaderSpec(name="halves", summary="halves", factory=f"{__name__}:Halves")
    broken = ImageReaderSpec(name="broken", summary="no reader", factory="builtins:object")
    added = tuple(Entry(one, "kdkit-halves", "1.0") for one in (spec, broken))
    contents = {**catalogue.contents, "reader": (*catalogue.contents["reader"], *added)}
    monkeypatch.setattr(locations, "load_catalogue", lambda: replace(catalogue, contents=contents))
    monkeypatch.setattr("kdkit.plugins.sources.folder.read_folder", read_halves)
    image_reader.cache_clear()
    yield
    image_reader.cache_clear()


@pytest.mark.usefixtures("halves")
def test_a_plugin_adds_a_kind_of_place(tmp_path: Path) -> None:
    path = paint(tmp_path / "a.png", seed=3)
    project = project_of(tmp_path, "folder", "a.png")
    index = load_index(project)
    whole = decode(path)
    for sample, box in zip(index.samples, ((0, 0, 8, 16), (8, 0, 16, 16)), strict=True):
        assert open_image(sample).tobytes() == whole.crop(box).tobytes()
        assert [image.size for image in open_further_images(sample)] == [(8, 16)]
    assert len(set(index.digests.tolist())) == 2
    assert not check_data(project).items("images")
    middle = replace(index.samples[0], image=ImageLocation("halves", path, ("middle",), "middle"))
    with raises_error("KD-DATA-001", where=f"{path}[middle]", mentions=("no such half",)) as caught:
        open_image(middle)
    assert caught.value.why == "there are two"
    with raises_error("KD-DATA-019"):
        image_reader("broken")


def read_numbers(location: Path) -> Iterator[Sample]:
    yield Sample("a", 7 if location.suffix else Path("a.png"), "t", "ct", origin="x:1")  # type: ignore[arg-type]


def test_other_things_are_no_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdkit.plugins.sources.folder.read_folder", read_numbers)
    for path in ("a.png", "folder"):
        with raises_error("KD-DATA-011"):
            load_index(project_of(tmp_path, "folder", path))


def test_the_folder_of_an_index_is_not_an_option(shards: Project) -> None:
    load_index(shards)
    assert len(list((shards.state / "index").glob("tar-*.json"))) == 3
    with raises_error("KD-DATA-021", where="registry.yaml:2"):
        load_index(project_of(shards.root, "webdataset", "data", cache_folder="/tmp"))


def test_keys_and_contents_of_files_are_as_ever(tmp_path: Path) -> None:
    path = paint(tmp_path / "a.png", seed=1)
    assert key_of(path) == str(path)
    assert read_content(path) == path.read_bytes()
    tar = write_tar(tmp_path / "a.tar", {"a.png": path.read_bytes()})
    with tarfile.open(tar) as archive:
        member = archive.getmember("a.png")
    place = ImageLocation("tar", tar, (member.offset_data, member.size), "a.png")
    assert file_digest(place) == file_digest(path)
    assert isinstance(file_digest(replace(place, at=(512, 3))), str)
