"""Whatever is wrong with an archive: one clear error, and nothing is left."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.sharing.bundle import check, senders, unpack
from kdkit.core.sharing.bundle.manifest import MANIFEST
from tests.core.sharing.bundle.forged import PROJECT, entry, forge, manifest_of
from tests.core.teachers.stub import Notes
from tests.errors import raises_error


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(archive: Path, *, max_size: int | None = None, checked: bool = True) -> KdkitError:
    """Unpacking, and checking unless ``checked`` is false, fail alike; nothing is left."""
    before = sorted(archive.parent.iterdir())
    with pytest.raises(KdkitError) as caught:
        unpack(archive, archive.parent / "out", max_size=max_size)
    assert sorted(archive.parent.iterdir()) == before
    if checked and max_size is None:
        with pytest.raises(KdkitError) as again:
            check(archive)
        assert again.value.why == caught.value.why
    return caught.value


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_right_one_is_unpacked(tmp_path: Path, form: int) -> None:
    files = {**PROJECT, "features/" + "long" * 20 + "/" + "x" * 10 + ".txt": b"long"}
    unpack(forge(tmp_path / "a.tar", files, form=form), tmp_path / "out")
    assert tree(tmp_path / "out") == files
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "out"]
    assert not (tmp_path / "out" / "registry.yaml").stat().st_mode & 0o111


def test_a_teacher_that_would_send_images_to_a_host_is_told_before_anything_is_written(tmp_path: Path) -> None:
    hidden, open_ = ".kdkit/artifacts/far/endpoint.json", "served/Endpoint.json"
    settings = json.dumps({"endpoint": "http://192.0.2.1/v1", "model": "m"}).encode()
    files = {**PROJECT, hidden: settings, open_: settings, "endpoint.json.md": b""}
    archive = forge(tmp_path / "a.tar", files)
    checked, unpacked = Notes(), Notes()
    assert senders(check(archive, reporter=checked)) == (hidden, open_)
    assert senders(unpack(archive, tmp_path / "p", reporter=unpacked)) == (hidden, open_)
    assert unpacked.warnings == checked.warnings
    assert [path in text for path, text in zip((hidden, open_), checked.warnings, strict=True)] == [True, True]
    (tmp_path / "damaged.tar").write_bytes(archive.read_bytes().replace(b"192.0.2.1", b"192.0.2.2", 1))
    notes = Notes()
    with raises_error("KD-BUNDLE-019", mentions=("damaged",)):
        unpack(tmp_path / "damaged.tar", tmp_path / "q", reporter=notes)
    assert len(notes.warnings) == 2


MEMBERS: dict[str, tuple[tarfile.TarInfo, bytes]] = {
    "absolute": entry("/tmp/evil", b"x"),
    "parent": entry("../evil", b"x"),
    "symlink": entry("versions/v1/a.json", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "hard link": entry("x", kind=tarfile.LNKTYPE, link="registry.yaml"),
    "character device": entry("x", kind=tarfile.CHRTYPE),
    "block device": entry("x", kind=tarfile.BLKTYPE),
    "pipe": entry("x", kind=tarfile.FIFOTYPE),
    "folder": entry("versions", kind=tarfile.DIRTYPE),
    "sparse": entry("versions/v1/a.json", kind=tarfile.GNUTYPE_SPARSE),
    "other kind": entry("x", kind=b"Z"),
    "not in the manifest": entry("versions/v1/more", b"x"),
    "case": entry("Registry.yaml", b"x"),
    "twice": entry("registry.yaml", PROJECT["registry.yaml"]),
    "other size": entry("versions/current", b"v1\nmore"),
    "huge": entry("versions/current", b"x" * 100_000),
    "name in another encoding": entry("\udcff", b"x"),
}


@pytest.mark.parametrize("kind", MEMBERS)
def test_members_that_are_refused(tmp_path: Path, kind: str) -> None:
    error = refused(forge(tmp_path / "a.tar", extra=[MEMBERS[kind]]))
    assert error.id == "KD-BUNDLE-020"
    assert ascii(MEMBERS[kind][0].name) in error.why


@pytest.mark.parametrize("size", [5_000, 3 << 20])
@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_extended_headers_rename_no_file_and_take_little_memory(tmp_path: Path, kind: bytes, size: int) -> None:
    """A long name, or a pax header, for the file behind it."""
    pax = b"%d path=" % size
    body = b"n" * size if kind == tarfile.GNUTYPE_LONGNAME else pax + b"n" * (size - len(pax) - 1) + b"\n"
    archive = forge(tmp_path / "a.tar", extra=[entry("x", body, kind=kind)])
    tracemalloc.start()
    assert refused(archive).id == "KD-BUNDLE-020"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_a_file_with_another_content_is_named_with_both_hashes(tmp_path: Path) -> None:
    manifest = manifest_of(PROJECT)
    archive = forge(tmp_path / "a.tar", {**PROJECT, "versions/current": b"v2\n"}, manifest=manifest)
    error = refused(archive)
    assert error.id == "KD-BUNDLE-019"
    assert manifest["files"][1]["sha256"] in error.why


def test_a_file_of_the_manifest_that_is_missing(tmp_path: Path) -> None:
    big = {**PROJECT, "versions/v1/gone.json": b""}
    files = {name: data for name, data in big.items() if name != "versions/v1/gone.json"}
    archive = forge(tmp_path / "a.tar", files, manifest=manifest_of(big))
    with archive.open("ab") as handle:
        handle.write(bytes(10240))
    missing = refused(archive).why
    assert missing.startswith("1 ")
    assert missing.endswith("'versions/v1/gone.json'")


def test_a_bundle_that_is_cut_off_is_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    archive = forge(tmp_path / "a.tar")
    with archive.open("r+b") as handle:
        handle.truncate(3000)
    error = refused(archive)
    assert (error.id, error.code) == ("KD-BUNDLE-021", ExitCode.MISSING)
    assert "3000 of 6144" in error.why


@pytest.mark.parametrize("content", [b"", b"PK\3\4" + bytes(600), bytes(1024)])
def test_what_is_no_bundle_at_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    assert refused(tmp_path / "a.tar").id == "KD-BUNDLE-020"


def test_a_tar_of_something_else(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as out:
        out.addfile(*((e := entry("thesis.tex", b"x"))[0], io.BytesIO(e[1])))
    assert MANIFEST in refused(tmp_path / "a.tar").why


def test_a_manifest_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo(MANIFEST)
    info.size = 1 << 40
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"{}")
    assert refused(tmp_path / "a.tar").id == "KD-BUNDLE-020"


@pytest.mark.parametrize("path", ["../evil", "/evil", ".git/config"])
def test_paths_of_the_manifest_are_not_trusted(tmp_path: Path, path: str) -> None:
    assert f"'{path}'" in refused(forge(tmp_path / "a.tar", {**PROJECT, path: b"x"})).why


def test_names_that_the_disk_does_not_take(tmp_path: Path) -> None:
    """Long, but not too long everywhere: it depends on where the project is to be."""
    deep = tmp_path.joinpath(*["d" * 200] * 3)
    deep.mkdir(parents=True)
    error = refused(forge(deep / "a.tar", {**PROJECT, "/".join(["n" * 250] * 15) + ".h5": b"x"}), checked=False)
    assert error.id == "KD-BASE-002"


def test_nothing_of_a_bundle_can_command_a_terminal(tmp_path: Path) -> None:
    escape = "\x1b[2J"
    for number, archive in enumerate(
        (
            forge(tmp_path / "a.tar", extra=[entry(escape, b"x")]),
            forge(tmp_path / "b.tar", extra=[entry(escape, kind=tarfile.SYMTYPE)]),
            forge(tmp_path / "c.tar", {**PROJECT, escape: b"x"}),
            forge(tmp_path / "d.tar", manifest=manifest_of(PROJECT, kdkit=escape)),
            forge(tmp_path / "e.tar", manifest=manifest_of(PROJECT, kdkit=escape, format=2)),
            forge(tmp_path / "f.tar", manifest=manifest_of(PROJECT, requirements=[escape])),
            forge(tmp_path / "g.tar", manifest=manifest_of(PROJECT, **{escape: 1})),
        )
    ):
        error = refused(archive)
        assert "\x1b" not in error.what + error.why, number


def test_a_newer_format(tmp_path: Path) -> None:
    error = refused(forge(tmp_path / "a.tar", manifest=manifest_of(PROJECT, format=2)))
    assert error.id == "KD-BUNDLE-005"


def test_a_project_that_this_kdkit_does_not_understand(tmp_path: Path) -> None:
    with raises_error("KD-BASE-007", where="registry.yaml:2", mentions=("registry.yaml:2",)):
        unpack(forge(tmp_path / "a.tar", {"registry.yaml": b"version: 1\nnew: 1\n"}), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_more_than_is_allowed_and_more_than_the_disk_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = forge(tmp_path / "a.tar")
    assert "--max-size" in refused(archive, max_size=100).fix
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with raises_error("KD-BUNDLE-009") as caught:
        unpack(archive, tmp_path / "out")
    assert (caught.value.code, list(tmp_path.iterdir())) == (ExitCode.MISSING, [archive])


def test_a_manifest_cannot_ask_for_more_than_the_archive_holds(tmp_path: Path) -> None:
    manifest = manifest_of(PROJECT)
    manifest["files"][2]["size"] = 10**12
    assert refused(forge(tmp_path / "bomb.tar", manifest=manifest)).id == "KD-BUNDLE-021"


def existing_project(out: Path) -> None:
    out.mkdir()
    (out / "registry.yaml").write_text("version: 1\n")


@pytest.mark.parametrize("make", [existing_project, Path.touch, Path.mkdir])
def test_what_is_there_is_never_touched(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "out")
    before = tree(tmp_path)
    with raises_error("KD-BUNDLE-015", where=str(tmp_path / "out")) as caught:
        unpack(forge(tmp_path / "a.tar"), tmp_path / "out")
    assert caught.value.code is ExitCode.FOUND
    assert {**tree(tmp_path), "a.tar": b""} == {**before, "a.tar": b""}


def test_what_is_unpacked_already_is_done(tmp_path: Path) -> None:
    archive = forge(tmp_path / "a.tar")
    unpack(archive, tmp_path / "out")
    before = tree(tmp_path)
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path) == before
    (tmp_path / "out" / "registry.yaml").write_text("version: 1\n\n")
    with raises_error("KD-BUNDLE-015"):
        unpack(archive, tmp_path / "out")


def test_the_folder_above_must_exist(tmp_path: Path) -> None:
    with raises_error("KD-BUNDLE-016"):
        unpack(forge(tmp_path / "a.tar"), tmp_path / "not" / "there")
    with raises_error("KD-BUNDLE-018"):
        unpack(tmp_path / "b.tar", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return forge(tmp_path_factory.mktemp("right") / "a.tar").read_bytes()


@given(data=st.data())
def test_damage_anywhere_is_one_clear_error_or_does_no_harm(right: bytes, data: st.DataObject) -> None:
    """Bytes that nothing depends on (times, padding) may differ; then the files are right."""
    place = data.draw(st.integers(0, len(right) - 1))
    spoilt = bytearray(right)
    spoilt[place : place + data.draw(st.integers(1, 600))] = data.draw(st.binary(min_size=1, max_size=600))
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "a.tar")
        archive.write_bytes(spoilt)
        try:
            unpack(archive, Path(folder, "out"))
        except KdkitError:
            assert [p.name for p in Path(folder).iterdir()] == ["a.tar"]
        else:
            assert tree(Path(folder, "out")) == PROJECT


def test_the_manifest_is_the_first_file_for_other_programs_too(tmp_path: Path) -> None:
    with tarfile.open(forge(tmp_path / "a.tar")) as archive:
        first = archive.extractfile(archive.getnames()[0])
        assert first is not None
        assert json.load(first)["format"] == 1
