"""Folders and archives are recognized, and then read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import Recognition, Sample
from kdkit.plugins.sources.recognize import folders
from kdkit.plugins.sources.recognize.folders import (
    recognize_dicom,
    recognize_folder,
    recognize_medmnist,
    recognize_webdataset,
)
from tests.core.features.small import paint
from tests.errors import raises_error
from tests.plugins.sources.archives import png, write_tar
from tests.plugins.sources.files import read


def samples(source: str, found: Recognition | None) -> list[Sample]:
    assert found is not None
    return read(source, found.path, **found.options)


LAYOUTS: dict[str, tuple[list[str], list[tuple[Any, ...]]]] = {
    "classes": (["cyst/a", "normal/b"], [("set", "cyst", None), ("set", "normal", None)]),
    "domains": (["ct/cyst/a", "mri/normal/b"], [("ct", "cyst", None), ("mri", "normal", None)]),
    "splits": (["test/cyst/a", "train/cyst/b"], [("set", "cyst", "test"), ("set", "cyst", "train")]),
    "splits and domains": (
        ["Val/ct/cyst/a", "train/mri/cyst/b"],
        [("ct", "cyst", "calibration"), ("mri", "cyst", "train")],
    ),
}


@pytest.mark.parametrize(("files", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_of_folders(tmp_path: Path, files: list[str], expected: list[tuple[Any, ...]]) -> None:
    for name in files:
        paint(tmp_path / "set" / f"{name}.png", seed=1)
    (tmp_path / "set" / ".hidden").mkdir()
    (tmp_path / "set" / "notes.txt").write_text("x", encoding="utf-8")
    found = [(one.domain, one.label, one.split) for one in samples("folder", recognize_folder(tmp_path / "set"))]
    assert [one[: 3 if expected[0][2] else 2] for one in found] == [e[: 3 if e[2] else 2] for e in expected]


def test_other_folders_are_refused_with_what_was_seen(tmp_path: Path) -> None:
    paint(tmp_path / "set" / "a.png", seed=1)
    with raises_error("KD-SRC-109", where=str(tmp_path / "set")):
        recognize_folder(tmp_path / "set")
    paint(tmp_path / "set" / "x" / "a.png", seed=1)
    with raises_error("KD-SRC-109"):
        recognize_folder(tmp_path / "set")
    (tmp_path / "set" / "rows.jsonl").write_text("{}", encoding="utf-8")
    with raises_error("KD-SRC-109", mentions=[f"kdkit init --from {tmp_path / 'set' / 'rows.jsonl'}"]):
        recognize_folder(tmp_path / "set")
    paint(tmp_path / "deep" / "a" / "b" / "c" / "d" / "e.png", seed=1)
    assert recognize_folder(tmp_path / "deep") is None
    (tmp_path / "empty").mkdir()
    assert recognize_folder(tmp_path / "empty") is None
    assert recognize_folder(tmp_path / "set" / "a.png") is None


def test_no_split_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "FILES", 4)
    monkeypatch.setattr(folders, "LEAST", 1)
    for name in ("train/cyst/a", "train/cyst/b", "train/cyst/c", "train/cyst/d", "val/cyst/e"):
        paint(tmp_path / f"{name}.png", seed=1)
    assert [one.split for one in samples("folder", recognize_folder(tmp_path))] == ["train"] * 4 + ["calibration"]


def test_a_tar_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("not a tar file", encoding="utf-8")
    with raises_error("KD-SRC-116", where=str(tmp_path / "a.tar")):
        recognize_webdataset(tmp_path / "a.tar")


def test_shards(tmp_path: Path) -> None:
    members = {"a.png": png(1), "a.cls": b"cyst", "b.png": png(2), "b.cls": b"normal"}
    path = write_tar(tmp_path / "ct.tar", members)
    found = samples("webdataset", recognize_webdataset(path))
    assert [(one.domain, one.label, one.text) for one in found] == [
        ("ct", "cyst", "a ct image of cyst"),
        ("ct", "normal", "a ct image of normal"),
    ]
    for split in ("train", "val"):
        texts = {f"{split}.png": png(1), f"{split}.txt": b"a scan", f"{split}.json": b'{"modality": "mri"}'}
        write_tar(tmp_path / "shards" / f"{split}-0.tar", texts)
    found = samples("webdataset", recognize_webdataset(tmp_path / "shards"))
    assert [(one.domain, one.split) for one in found] == [("mri", "train"), ("mri", "calibration")]
    assert recognize_webdataset(tmp_path / "nothing.txt") is None


def test_arrays(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "train_images": np.zeros((2, 4, 4), np.uint8),
        "train_labels": np.array([[0], [1]], np.uint8),
    }
    np.savez(tmp_path / "breastmnist_64.npz", **arrays)
    assert len(samples("medmnist", recognize_medmnist(tmp_path / "breastmnist_64.npz"))) == 2
    np.savez(tmp_path / "mine.npz", **arrays)
    with raises_error("KD-SRC-110", where=str(tmp_path / "mine.npz")):
        recognize_medmnist(tmp_path / "mine.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK")
    for name in ("other.npz", "broken.npz", "gone.npz", "."):
        assert recognize_medmnist(tmp_path / name) is None


def test_dicom(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from tests.plugins.sources.dicom_files import write_dicom

    for number in range(6):
        write_dicom(tmp_path / "scans" / f"{number}", np.zeros((4, 4), np.uint8), PatientID=f"{number}", Modality="CT")
    assert {one.domain for one in samples("dicom", recognize_dicom(tmp_path / "scans"))} == {"ct"}
    for split in ("train", "test"):
        write_dicom(tmp_path / "split" / split / "a.dcm", np.zeros((4, 4), np.uint8))
    assert {one.split for one in samples("dicom", recognize_dicom(tmp_path / "split"))} == {"train", "test"}
    assert recognize_dicom(tmp_path / "split" / "train" / "a.dcm") is not None
    for number in range(9):
        paint(tmp_path / "scans" / f"{number}.png", seed=1)
    assert recognize_dicom(tmp_path / "scans") is None
