"""``.npy`` and ``.npz`` that people have, and those that are refused."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.features.imports.arrays import read_ids
from kdkit.core.features.imports.open import open_rows
from kdkit.core.features.imports.rows import FeatureRows, ReadOptions
from tests.core.features.imports.saved import IDS, save_npz, vectors
from tests.errors import raises_error


def all_rows(rows: FeatureRows) -> tuple[list[str], dict[str, np.ndarray]]:
    ids: list[str] = []
    values: dict[str, list[np.ndarray]] = {}
    for part in rows.parts():
        ids += part.ids
        for signal, array in part.values.items():
            values.setdefault(signal, []).append(array)
    return ids, {signal: np.concatenate(found) for signal, found in values.items()}


@pytest.mark.parametrize("name", ["image", "image_vector", "features", "anything"])
def test_one_array_holds_image_vectors(tmp_path: Path, name: str) -> None:
    arrays: dict[str, Any] = {name: vectors()}
    ids, values = all_rows(open_rows([save_npz(tmp_path / "a.npz", **arrays)], ReadOptions()))
    assert ids == list(IDS)
    assert list(values) == ["image"]
    assert np.array_equal(values["image"], vectors())


def test_one_array_of_texts_is_no_array_of_images(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", text_features=vectors())
    assert list(all_rows(open_rows([path], ReadOptions()))[1]) == ["text"]


def test_arrays_that_are_not_read_are_named(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", image=vectors(), text=vectors(seed=1), labels=np.arange(12))
    rows = open_rows([path], ReadOptions())
    assert rows.unused == ("a.npz: labels",)
    assert sorted(all_rows(rows)[1]) == ["image", "text"]


@pytest.mark.parametrize("ids", [np.arange(12), np.array([f"{i}".encode() for i in range(12)])])
def test_ids_may_be_numbers_or_bytes(tmp_path: Path, ids: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", ids=ids, image=vectors())
    assert all_rows(open_rows([tmp_path / "a.npz"], ReadOptions()))[0] == [str(i) for i in range(12)]


def test_npy_with_a_file_of_ids_and_one_of_texts(tmp_path: Path) -> None:
    for name, seed in (("i", 0), ("t", 1)):
        np.save(tmp_path / f"{name}.npy", vectors(seed=seed))
    (tmp_path / "ids.json").write_text(json.dumps(IDS), encoding="utf-8")
    options = ReadOptions(ids=tmp_path / "ids.json", text=tmp_path / "t.npy")
    ids, values = all_rows(open_rows([tmp_path / "i.npy"], options))
    assert ids == list(IDS)
    assert np.array_equal(values["text"], vectors(seed=1))


def test_files_of_ids(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("s 1\r\nß\n\n".encode())
    assert read_ids(tmp_path / "a.txt") == ["s 1", "ß"]
    np.save(tmp_path / "a.npy", np.array(["x", "y"]))
    assert read_ids(tmp_path / "a.npy") == ["x", "y"]
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-8")
    with raises_error("KD-FEAT-022"):
        read_ids(tmp_path / "a.json")


def text_file(path: Path) -> None:
    path.write_text("no array", encoding="utf-8")


def truncated(path: Path) -> None:
    save_npz(path.with_suffix(".npz"))
    path.write_bytes(path.with_suffix(".npz").read_bytes()[:-40])


def without_ids(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), image=vectors())
    path.with_suffix(".npz").replace(path)


def fewer_ids(path: Path) -> None:
    save_npz(path, IDS[:5], image=vectors())


def whole_numbers(path: Path) -> None:
    save_npz(path, image=np.arange(24).reshape(12, 2))


def one_dimension(path: Path) -> None:
    save_npz(path, image=np.ones(12))


def two_images(path: Path) -> None:
    save_npz(path, image=vectors(), features=vectors())


def damaged(path: Path) -> None:
    np.savez_compressed(path, ids=np.array(IDS), image=vectors())
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("image.npy")
    start = info.header_offset + 30 + content[info.header_offset + 26] + content[info.header_offset + 28]
    content[start : start + info.compress_size] = bytes(255 for _ in range(info.compress_size))
    path.write_bytes(content)


def of_another_compression(path: Path) -> None:
    save_npz(path)
    changed = bytearray(path.read_bytes())
    at = -1
    while (at := changed.find(b"PK\x01\x02", at + 1)) >= 0:
        changed[at + 10] = 97
    path.write_bytes(changed)


def encrypted(path: Path) -> None:
    save_npz(path)
    changed = bytearray(path.read_bytes())
    for begin, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := changed.find(begin, at + 1)) >= 0:
            changed[at + flags] |= 1
    path.write_bytes(changed)


def other_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ids", "s0\ns1")
        archive.writestr("image", "no array")


@pytest.mark.parametrize(
    "write",
    [
        damaged,
        of_another_compression,
        encrypted,
        other_members,
        text_file,
        truncated,
        without_ids,
        fewer_ids,
        whole_numbers,
        one_dimension,
        two_images,
    ],
)
def test_files_that_are_refused(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "a.npz")
    with raises_error("KD-FEAT-022", where=str(tmp_path / "a.npz")):
        open_rows([tmp_path / "a.npz"], ReadOptions())


class Explosive:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("exploded"),)  # type: ignore[return-value]


def test_objects_are_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    objects = np.array([Explosive()] * 12, dtype=object)
    np.savez("ids.npz", ids=objects, image=vectors())
    np.savez("image.npz", ids=np.array(IDS), image=objects)
    np.save("image.npy", objects)
    Path("pickle.npy").write_bytes(pickle.dumps(Explosive()))
    Path("ids.txt").write_text("\n".join(IDS), encoding="utf-8")
    for name in ("ids.npz", "image.npz", "image.npy", "pickle.npy"):
        with raises_error("KD-FEAT-023"):
            open_rows([tmp_path / name], ReadOptions(ids=Path("ids.txt") if name.endswith("npy") else None))
    assert not Path("exploded").exists()


def test_other_paths(tmp_path: Path) -> None:
    with raises_error("KD-FEAT-022", mentions=["no such file"]):
        open_rows([tmp_path / "a.npz"], ReadOptions())
    (tmp_path / "a.csv").write_text("", encoding="utf-8")
    with raises_error("KD-FEAT-022", mentions=[".csv", ".npz"]):
        open_rows([tmp_path / "a.csv"], ReadOptions())
    np.save(tmp_path / "a.npy", vectors())
    with raises_error("KD-FEAT-022", mentions=["--ids FILE"]):
        open_rows([tmp_path / "a.npy"], ReadOptions())


def test_links_that_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    np.save(folder / "image.npy", vectors())
    (tmp_path / "ids.txt").write_text("\n".join(IDS), encoding="utf-8")
    (folder / "ids.txt").symlink_to(tmp_path / "ids.txt")
    with raises_error("KD-FEAT-024", mentions=["ids.txt"]):
        open_rows([folder], ReadOptions())
    (folder / "ids.txt").unlink()
    (tmp_path / "ids.txt").replace(folder / "ids.txt")
    assert all_rows(open_rows([folder], ReadOptions()))[0] == list(IDS)


def folder_of_arrays(folder: Path, ids: Sequence[str], seed: int) -> Path:
    folder.mkdir(parents=True)
    np.save(folder / "image.npy", vectors(len(ids), seed=seed))
    (folder / "ids.txt").write_text("\n".join(ids), encoding="utf-8")
    return folder


def test_folders_inside_a_folder_are_not_read(tmp_path: Path) -> None:
    """Their ids would otherwise meet vectors of another folder."""
    one = folder_of_arrays(tmp_path / "f" / "one", IDS[:6], 1)
    two = folder_of_arrays(tmp_path / "f" / "two", IDS[6:], 2)
    with raises_error("KD-FEAT-022", mentions=["--from"]):
        open_rows([tmp_path / "f"], ReadOptions())
    ids, values = all_rows(open_rows([one, two], ReadOptions()))
    assert ids == list(IDS)
    assert np.array_equal(values["image"], np.concatenate([vectors(6, seed=1), vectors(6, seed=2)]))
    two.rename(one / "two")
    rows = open_rows([one], ReadOptions())
    assert all_rows(rows)[0] == list(IDS[:6])
    assert rows.unused == ("two/ids.txt", "two/image.npy")


def test_a_folder_with_two_files_of_ids(tmp_path: Path) -> None:
    folder = folder_of_arrays(tmp_path / "f", IDS, 0)
    (folder / "ids.json").write_text(json.dumps(IDS[::-1]), encoding="utf-8")
    with raises_error("KD-FEAT-022", mentions=["ids.json and ids.txt"]):
        open_rows([folder], ReadOptions())


def test_options_that_a_format_does_not_use(tmp_path: Path) -> None:
    """An option that is silently ignored would pair rows with other ids than the user named."""
    npz, folder = save_npz(tmp_path / "a.npz"), folder_of_arrays(tmp_path / "f", IDS, 0)
    (tmp_path / "ids.txt").write_text("\n".join(IDS[::-1]), encoding="utf-8")
    ids = ReadOptions(ids=tmp_path / "ids.txt")
    assert all_rows(open_rows([npz], ids))[0] == list(IDS[::-1])
    with raises_error("KD-FEAT-022", mentions=["--ids", ".npy and .npz"], where=str(folder)):
        open_rows([folder], ids)
    with raises_error("KD-FEAT-022", mentions=["--text"], where=str(npz)):
        open_rows([npz], ReadOptions(text=tmp_path / "t.npy"))
    for option in (ReadOptions(key="a"), ReadOptions(projected=True), ReadOptions(id_format="{file}")):
        for path in (npz, folder, folder / "image.npy"):
            with raises_error("KD-FEAT-022", mentions=["this format does not use"]):
                open_rows([path], option)
    for name in ("a.h5", "a.parquet"):
        (tmp_path / name).touch()
        with raises_error("KD-FEAT-022", mentions=["--ids"]):
            open_rows([tmp_path / name], ids)
