"""WebDataset shards."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from kdkit.core.contracts import ImageLocation, Sample, Skipped
from kdkit.core.data.images import open_image
from kdkit.core.data.locations import read_content
from kdkit.plugins.sources import tar_index
from tests.errors import raises_error
from tests.plugins.sources.archives import png, write_tar
from tests.plugins.sources.files import read, read_all


def sample(key: str, seed: int, **fields: object) -> dict[str, bytes]:
    return {f"{key}.png": png(seed), f"{key}.txt": b"a scan", f"{key}.json": json.dumps(fields).encode()}


FIELDS = {"domain": "ct", "split": "train"}
TWO = {**sample("a", 0, label="cyst", **FIELDS), **sample("b", 1, **FIELDS)}


def test_members_of_a_key_are_a_sample(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {**TWO, "./dir/c.x.png": png(2), "dir/c.txt": b"other", "dir/c.cls": b"1"})
    options = {"constants": {"domain": "mr"}, "labels": ["normal", "cyst"], "split_fractions": {"train": 1.0}}
    with raises_error("KD-SRC-044"):  # the first two have a split
        read("webdataset", path, **options)
    write_tar(path, {"./dir/c.x.png": png(2), "dir/c.txt": b"other", "dir/c.cls": b"1"})
    (one,) = read("webdataset", path, **options)
    assert (one.id, one.text, one.label, one.domain, one.split) == ("dir/c", "other", "cyst", "mr", "train")
    assert isinstance(one.image, ImageLocation)
    assert (str(one.image), one.origin) == (f"{path}[./dir/c.x.png]", f"{path}[dir/c]")
    assert read_content(one.image) == png(2)
    first, second = read("webdataset", write_tar(path, TWO))
    assert (first.id, first.label, second.label, first.domain) == ("a", "cyst", None, "ct")
    assert open_image(second).size == (16, 16)


def test_folders_and_names_of_shards_are_splits(tmp_path: Path) -> None:
    for number, name in enumerate(("train-000.tar", "deep/val/000.tar", "extra/000.tar", ".hidden/0.tar")):
        write_tar(tmp_path / name, sample(f"s{number}", number, domain="ct"))
    with raises_error("KD-SRC-043"):
        read("webdataset", tmp_path)
    found = {one.id: one.split for one in read("webdataset", tmp_path, splits={"extra": "test"})}
    assert found == {"s0": "train", "s1": "calibration", "s2": "test"}
    fractions = {"split_fractions": {"test": 1.0}}
    assert {one.split for one in read("webdataset", tmp_path, **fractions)} == {"test"}


def test_a_key_in_two_shards_is_refused_unless_shards_name_the_ids(tmp_path: Path) -> None:
    for name in ("0.tar", "sub/1.tar"):
        write_tar(tmp_path / name, TWO)
    with raises_error("KD-SRC-090", where=f"{tmp_path / 'sub/1.tar'}[a]"):
        read("webdataset", tmp_path)
    assert [one.id for one in read("webdataset", tmp_path, shard_ids=True)] == ["0/a", "0/b", "sub/1/a", "sub/1/b"]


@pytest.mark.parametrize("cut", [1, 600, 1500, 2200, 10 * 512])
def test_a_cut_shard_is_named_with_its_last_whole_sample(tmp_path: Path, cut: int) -> None:
    """Also a cut at the end of a member: only the end of the tar file shows it."""
    path = write_tar(tmp_path / "0.tar", {**TWO, **sample("c", 2, **FIELDS)})
    whole = path.read_bytes().rstrip(b"\0")
    whole += bytes(-len(whole) % 512)
    path.write_bytes(whole[: len(whole) - (0 if cut == 1 else cut)])
    with raises_error("KD-SRC-091") as caught:
        read("webdataset", path)
    kept = read_all("webdataset", path, skip_broken=True)
    ids = [one.id for one in kept if isinstance(one, Sample)]
    assert ids == ["a", "b"][: len(ids)]
    assert ids
    assert caught.value.where == f"{path}[{ids[-1]}]"
    (skipped,) = [one for one in kept if isinstance(one, Skipped)]
    assert (skipped.where, skipped.level) == (str(path), "warning")
    assert all(open_image(one).size == (16, 16) for one in kept if isinstance(one, Sample))


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", TWO)
    content = bytearray(path.read_bytes())
    content[content.index(b"b.png") + 200] ^= 1
    path.write_bytes(content)
    with raises_error("KD-SRC-091", where=str(path)):
        read("webdataset", path)


def test_empty_and_compressed_shards(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(b"")
    with raises_error("KD-SRC-091", where=str(path)):
        read("webdataset", path)
    write_tar(path, {})
    write_tar(tmp_path / "1.tar", TWO)
    with raises_error("KD-SRC-091", where=str(path)):
        read("webdataset", tmp_path)
    kept = read_all("webdataset", tmp_path, skip_broken=True)
    assert [one.where for one in kept if isinstance(one, Skipped)] == [str(path)]
    path.write_bytes(gzip.compress(path.read_bytes()))
    with raises_error("KD-SRC-089", where=str(path)):
        read("webdataset", path)
    with raises_error("KD-SRC-087", where=str(tmp_path / "none")):
        read("webdataset", tmp_path / "none")


BROKEN = [
    ({"a.txt": b"text", "a.json": b"{}"}, "KD-SRC-092"),
    ({"a.png": png(0), "a.json": json.dumps(FIELDS).encode()}, "KD-SRC-092"),
    ({"a.left.png": png(0), "a.right.png": png(1), "a.txt": b"text"}, "KD-SRC-092"),
    ({"a.png": png(0), "a.txt": b"\xff\xfe", "a.json": json.dumps(FIELDS).encode()}, "KD-SRC-092"),
    ({"a.png": png(0), "a.txt": b"text", "a.json": b"[1]"}, "KD-SRC-092"),
    ({"a.png": png(0), "a.txt": b"text", "a.json": b"{"}, "KD-SRC-092"),
]


@pytest.mark.parametrize(("members", "id"), BROKEN)
def test_a_broken_sample_is_named_or_counted(tmp_path: Path, members: dict[str, bytes], id: str) -> None:
    path = write_tar(tmp_path / "0.tar", {**members, **sample("b", 1, **FIELDS)})
    with raises_error(id, where=f"{path}[a]"):
        read("webdataset", path)
    skipped, good = read_all("webdataset", path, skip_broken=True)
    assert isinstance(skipped, Skipped)
    assert (skipped.where, skipped.level) == (f"{path}[a]", "warning")
    assert isinstance(good, Sample)
    assert good.id == "b"


def test_one_of_several_images_is_chosen(tmp_path: Path) -> None:
    members = {"a.left.png": png(0), "a.right.png": png(1), "a.txt": b"t", "a.json": json.dumps(FIELDS).encode()}
    (one,) = read("webdataset", write_tar(tmp_path / "0.tar", members), image="right.png")
    assert read_content(one.image) == png(1)
    with raises_error("KD-SRC-092"):
        read("webdataset", tmp_path / "0.tar", image="up.png")


def test_other_members_are_counted(tmp_path: Path) -> None:
    members = {**TWO, "a.npy": b"1", "b.npy": b"2", "README": b"3", ".x.png": b"4"}
    found = read_all("webdataset", write_tar(tmp_path / "0.tar", members))
    kinds = [one.what for one in found if isinstance(one, Skipped)]
    assert sorted(kinds) == ["members with the ending .npy"] * 2 + ["members without a key"] * 2


def test_a_member_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", TWO)
    stream = io.BytesIO(path.read_bytes().rstrip(b"\0"))
    whole = stream.getvalue() + bytes(-len(stream.getvalue()) % 512)
    path.write_bytes(whole + path.read_bytes())  # two archives, one after the other
    with raises_error("KD-SRC-092", where=f"{path}[a]"):
        read("webdataset", path)


def test_the_index_is_made_once_and_again_when_the_shard_or_the_index_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = write_tar(tmp_path / "0.tar", TWO), tmp_path / "cache"
    scans: list[Path] = []
    scan = tar_index._scan

    def counting(path: Path) -> tar_index.Shard:
        scans.append(path)
        return scan(path)

    monkeypatch.setattr(tar_index, "_scan", counting)

    def ids() -> list[str]:
        return [one.id for one in read("webdataset", path, cache_folder=cache)]

    first = read("webdataset", path)
    assert ids() == ids() == ["a", "b"]
    assert read("webdataset", path, cache_folder=cache) == first
    assert len(scans) == 2
    (kept,) = cache.iterdir()
    for content in (b"", b"{}", b"[1]", b'{"stamp": 1}', kept.read_bytes()[:-9]):
        kept.write_bytes(content)
        assert ids() == ["a", "b"]
    assert len(scans) == 7
    write_tar(path, sample("c", 3, **FIELDS))
    assert ids() == ["c"]
    assert [name.name for name in cache.iterdir()] == [kept.name]


def test_what_follows_the_end_of_an_archive_is_not_lost(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", TWO).read_bytes()
    joined = tmp_path / "joined.tar"
    joined.write_bytes(whole + write_tar(tmp_path / "b.tar", sample("c", 2, **FIELDS)).read_bytes())
    with raises_error("KD-SRC-091", where=f"{joined}[a]"):
        read("webdataset", joined)
    joined.write_bytes(whole + bytes(20480))
    assert [one.id for one in read("webdataset", joined)] == ["a", "b"]


def test_images_that_are_left_out_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    write_tar(path, {**TWO, "c.jfif": png(3), "d.md": b"x"})
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("e.png")
        link.type, link.linkname = tarfile.LNKTYPE, "a.png"
        archive.addfile(link)
    levels = {one.what: one.level for one in read_all("webdataset", path) if isinstance(one, Skipped)}
    assert levels == {
        "images with the ending .jfif": "warning",
        "members with the ending .md": "note",
        "links and sparse members": "warning",
    }


def test_a_name_that_begins_with_bz_is_not_compressed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", sample("BZ001", 0, **FIELDS))
    assert [one.id for one in read("webdataset", path)] == ["BZ001"]


@pytest.mark.parametrize(("label", "expected"), [(b"-1", None), (b"1.0", "cyst"), (b" 0\n", "normal")])
def test_numbers_of_labels(tmp_path: Path, label: bytes, expected: str | None) -> None:
    members = {"a.png": png(0), "a.txt": b"x", "a.json": json.dumps(FIELDS).encode(), "a.cls": label}
    (one,) = read("webdataset", write_tar(tmp_path / "0.tar", members), labels=["normal", "cyst"])
    assert one.label == expected


@pytest.mark.parametrize("label", [b"2", b"-2"])
def test_a_label_without_a_name_is_refused(tmp_path: Path, label: bytes) -> None:
    members = {"a.png": png(0), "a.txt": b"x", "a.json": json.dumps(FIELDS).encode(), "a.cls": label}
    with raises_error("KD-SRC-088"):
        read("webdataset", write_tar(tmp_path / "0.tar", members), labels=["normal", "cyst"])


def test_byte_order_marks_are_no_text(tmp_path: Path) -> None:
    members = {name: codecs.BOM_UTF8 * (not name.endswith(".png")) + content for name, content in TWO.items()}
    assert read("webdataset", write_tar(tmp_path / "0.tar", members))[0].text == "a scan"


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_headers_that_call_one_another_are_damage(tmp_path: Path, kind: bytes) -> None:
    """Python's tarfile reads the header after a long name by recursion."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 5
    block = header.tobuf(tarfile.USTAR_FORMAT) + b"names".ljust(512, b"\0")
    (tmp_path / "0.tar").write_bytes(block * 2000 + bytes(1024))
    with raises_error("KD-SRC-091"):
        read("webdataset", tmp_path / "0.tar")


def test_a_sample_may_name_the_image_of_another_one(tmp_path: Path) -> None:
    """Captions of one image share it, as ``kdkit data shards`` writes them."""
    second = {"b.txt": b"again", "b.json": json.dumps({**FIELDS, "image": "a.png"}).encode()}
    path = write_tar(tmp_path / "0.tar", {**sample("a", 0, **FIELDS), **second})
    first, other = read("webdataset", path)
    assert (other.id, other.text, other.image) == ("b", "again", first.image)
    second["b.json"] = json.dumps({**FIELDS, "image": "c.png"}).encode()
    with raises_error("KD-SRC-092"):
        read("webdataset", write_tar(path, {**sample("a", 0, **FIELDS), **second}))
