"""Folders of DICOM files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation, Sample, Skipped
from kdkit.core.data import load_index, stamps
from kdkit.core.data.check import check_data
from kdkit.core.data.images import open_image
from kdkit.core.data.locations import read_content
from kdkit.core.project.project import Project
from kdkit.plugins.sources import dicom_index
from tests.core.data.projects import write_registry
from tests.core.features.small import paint
from tests.errors import raises_error
from tests.plugins.sources.dicom_files import RGB, write_dicom
from tests.plugins.sources.files import read, read_all, write_manifest

pydicom = pytest.importorskip("pydicom")
RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
SECRETS = ("Doe", "Jane", "MRN", "4711")
HALVES = {"train": 0.5, "test": 0.5}


def skipped(found: list[Sample | Skipped]) -> dict[str, str]:
    return {item.what: item.level for item in found if isinstance(item, Skipped)}


def test_domain_text_and_split_come_from_few_fields(tmp_path: Path) -> None:
    write_dicom(tmp_path / "train" / "a.dcm", GRAY, Modality="CT", BodyPartExamined="CHEST")
    write_dicom(tmp_path / "val" / "deep" / "b", GRAY, Modality="DX")
    ct, x_ray = read("dicom", tmp_path)
    assert (ct.domain, ct.text, ct.split, ct.label) == ("ct", "ct image", "train", None)
    assert (x_ray.domain, x_ray.split) == ("x-ray", "calibration")
    assert ct.id.startswith("ct-")
    options = {"domain": "{modality}/{body_part}", "caption": "{body_part} on {modality}", "classes": True}
    ct, x_ray = read("dicom", tmp_path, split="test", **options)
    assert [(one.domain, one.text, one.label) for one in (ct, x_ray)] == [
        ("ct/chest", "chest on ct", "train"),
        ("x-ray/unspecified", "unspecified on x-ray", "deep"),
    ]
    with raises_error("KD-SRC-105", where=str(tmp_path / "train" / "a.dcm")):
        read("dicom", tmp_path, caption="{PatientName}", split="test")
    with raises_error("KD-SRC-020"):
        read("dicom", tmp_path / "val")
    with raises_error("KD-SRC-101"):
        read("dicom", tmp_path, split="test", split_fractions=HALVES)


def test_nothing_names_the_patient(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Not in samples, the index on disk or warnings, also where pydicom itself would say it."""
    write_dicom(tmp_path / "data" / "1.dcm", GRAY, PatientID="MRN-4711", AccessionNumber="MRN-4711", Modality="Jane?")
    write_dicom(tmp_path / "data" / "2.dcm", GRAY, PatientBirthDate="19700101", ReferringPhysicianName="Doe^Jane")
    write_registry(tmp_path, [{"source": "dicom", "path": "data", "options": {"split_fractions": HALVES}}])
    index = load_index(Project(tmp_path))
    texts = [repr(index.samples[1]).replace(str(tmp_path), ""), "".join(capfd.readouterr())]
    texts += [path.read_text(encoding="utf-8") for path in (tmp_path / ".kdkit").rglob("*.json")]
    for secret in (*SECRETS, "19700101"):
        assert not [text for text in texts if secret in text]
    assert len({sample.extra["group"] for sample in index.samples}) == 1


def test_a_patient_never_spans_two_splits(tmp_path: Path) -> None:
    for number in range(40):
        write_dicom(tmp_path / f"{number:02}.dcm", GRAY, PatientID=f"P{number // 2}")
    samples = read("dicom", tmp_path, split_fractions=HALVES)
    assert all(a.split == b.split for a, b in zip(samples[::2], samples[1::2], strict=True))
    assert len({one.split for one in samples}) == 2
    salted = read("dicom", tmp_path, split_fractions=HALVES, salt="secret")
    assert not {one.extra["group"] for one in salted} & {one.extra["group"] for one in samples}
    assert [one.id for one in salted] == [one.id for one in samples]


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    good = write_dicom(tmp_path / "a.dcm", GRAY, SOPInstanceUID="1.2.3")
    write_dicom(tmp_path / "copy.dcm", GRAY, SOPInstanceUID="1.2.3")
    write_dicom(tmp_path / "report.dcm", None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    write_dicom(tmp_path / "lost.dcm", None)
    write_dicom(tmp_path / "mask.dcm", GRAY, Modality="SEG")
    write_dicom(tmp_path / "text.dcm", GRAY, BurnedInAnnotation="YES")
    write_dicom(tmp_path / "stack.dcm", np.stack([GRAY] * 3))
    (tmp_path / "notes.txt").write_text("notes", encoding="utf-8")
    (tmp_path / "damaged.dcm").write_bytes(good.read_bytes()[:140])
    (tmp_path / "cut.dcm").write_bytes(good.read_bytes()[:-80])
    (tmp_path / ".hidden").write_bytes(good.read_bytes())
    found = read_all("dicom", tmp_path, split="train")
    assert [one.origin for one in found if isinstance(one, Sample)] == [str(good)]
    assert skipped(found) == {
        "copies of DICOM instances": "note",
        "DICOM files without a picture (reports, structures, plans)": "note",
        "DICOM files with burned-in texts": "warning",
        "DICOM files with several frames": "problem",
        "files that are no DICOM": "note",
        "hidden files and folders": "note",
        "damaged DICOM files": "problem",
        "DICOM images without pixel data": "problem",
    }
    assert len(read("dicom", tmp_path, split="train", burned_in=True)) == 2


def test_frames_are_samples(tmp_path: Path) -> None:
    stack = RNG.integers(0, 256, (5, 8, 8), dtype=np.uint8)
    write_dicom(tmp_path / "a.dcm", stack, Modality="US")
    samples = read("dicom", tmp_path, split="train", frames="all")
    assert [one.id.split("-")[2] for one in samples] == ["0", "1", "2", "3", "4"]
    assert all(np.array_equal(np.asarray(open_image(one))[..., 0], stack[n]) for n, one in enumerate(samples))
    (middle,) = read("dicom", tmp_path, split="train", frames="middle")
    assert middle.id == samples[2].id
    (first,) = read("dicom", tmp_path, split="train", frames=0)
    assert str(first.image) == f"{tmp_path}/a.dcm[frame 0]"
    with raises_error("KD-SRC-104", where=str(tmp_path / "a.dcm")):
        read("dicom", tmp_path, split="train", frames=5)


def test_windows_by_modality(tmp_path: Path) -> None:
    deep = RNG.integers(0, 4096, (8, 8), dtype=np.uint16)
    for name in ("CT", "MR", "DX"):
        write_dicom(tmp_path / f"{name}.dcm", deep, Modality=name)
    samples = read("dicom", tmp_path, split="train", windows={"ct": "lung", "*": "full", "DX": [100, 50]})
    assert [one.image.at for one in samples if isinstance(one.image, ImageLocation)] == [
        (None, "-600/1500"), (None, "100/50"), (None, "full"),
    ]  # fmt: skip
    with raises_error("KD-SRC-095"):
        read("dicom", tmp_path, split="train", windows={"CT": "lungs"})
    write_registry(tmp_path, [{"source": "dicom", "path": ".", "options": {"split": "train"}}])
    report = check_data(Project(tmp_path))
    assert {bad.what for bad in report.items("images")} == {"this DICOM file has no window"}


def test_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_dicom(tmp_path / "data" / f"{number}.dcm", GRAY)
    reads: list[Path] = []
    plain = dicom_index._read

    def counting(path: Path, salt: str) -> dicom_index.Header:
        reads.append(path)
        return plain(path, salt)

    monkeypatch.setattr(dicom_index, "_read", counting)
    options: dict[str, Any] = {"split": "train", "cache_folder": tmp_path / "cache"}
    first = read("dicom", tmp_path / "data", **options)
    assert read("dicom", tmp_path / "data", **options) == first
    assert len(reads) == 3
    write_dicom(tmp_path / "data" / "1.dcm", GRAY, Modality="MR")
    assert read("dicom", tmp_path / "data", **options)[1].domain == "mri"
    assert len(reads) == 4
    (kept,) = (tmp_path / "cache").iterdir()
    for content in ("[]", "{", '{"0.dcm": 1, "1.dcm": {"stamp": [1], "header": {}}}'):
        kept.write_text(content, encoding="utf-8")
        assert len(read("dicom", tmp_path / "data", **options)) == 3


def test_manifests_name_dicom_files(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "scans" / "a.dcm", RNG.integers(0, 4096, (8, 8), dtype=np.uint16))
    row = {"image": "scans/a.dcm", "text": "a scan", "domain": "ct", "split": "train"}
    (one,) = read("csv", write_manifest(tmp_path / "rows.csv", [row]), window="brain")
    assert (one.id, one.image) == ("scans/a.dcm", ImageLocation("dicom", path, (None, "40/80")))
    assert open_image(one).size == (8, 8)
    with raises_error("KD-SRC-095", where=str(tmp_path / "rows.csv")):
        read("csv", tmp_path / "rows.csv", window="brian")


def test_bad_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raises_error("KD-SRC-103", where=str(tmp_path / "none")):
        read("dicom", tmp_path / "none")
    paint(tmp_path / "a" / "a.png", seed=1)
    with raises_error("KD-SRC-102", where=str(tmp_path / "a")):
        read("dicom", tmp_path / "a", split="train")
    path = write_dicom(tmp_path / "b" / "b.dcm", RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8), **RGB)
    assert open_image(read("dicom", path, split="train")[0]).size == (4, 4)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with raises_error("KD-SRC-096") as caught:
        read("dicom", tmp_path / "b", split="train")
    assert caught.value.fix == "pip install 'kdkit[dicom]'"


def test_pixels_in_a_syntax_without_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dicom(tmp_path / "a.dcm", GRAY)
    write_dicom(tmp_path / "b.dcm", GRAY)
    monkeypatch.setattr(dicom_index, "lacking_decoder", lambda _: "pip install pylibjpeg pylibjpeg-openjpeg")
    options: dict[str, Any] = {"split": "train", "cache_folder": tmp_path / "cache"}
    with raises_error("KD-SRC-102"):
        read("dicom", tmp_path, **options)
    monkeypatch.undo()
    assert len(read("dicom", tmp_path, **options)) == 2


def test_a_decoder_that_is_installed_later_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages, lacking = tmp_path / "site-packages", ["", "pip install pylibjpeg"]
    packages.mkdir()
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setattr(stamps, "RECENT_NS", -(10**15))
    for name in ("a", "b"):
        write_dicom(tmp_path / "data" / f"{name}.dcm", GRAY)
    write_registry(tmp_path, [{"source": "dicom", "path": "data", "options": {"split": "train"}}])
    with monkeypatch.context() as patch:
        patch.setattr(dicom_index, "lacking_decoder", lambda _: lacking.pop(0))
        assert len(load_index(Project(tmp_path))) == 1
    assert len(load_index(Project(tmp_path))) == 1  # kept
    (packages / "pylibjpeg").mkdir()
    assert len(load_index(Project(tmp_path))) == 2


def test_one_uid_for_two_pictures_is_a_problem_and_a_copy_is_not(tmp_path: Path) -> None:
    uid = "1.2.3.4"
    for name, value in (("a", 10), ("b", 20)):
        write_dicom(tmp_path / "train" / f"{name}.dcm", np.full((4, 4), value, np.uint8), SOPInstanceUID=uid)
    (tmp_path / "train" / "c.dcm").write_bytes((tmp_path / "train" / "a.dcm").read_bytes())
    levels = {Path(one.where).name: one.level for one in read_all("dicom", tmp_path) if isinstance(one, Skipped)}
    assert levels == {"b.dcm": "problem", "c.dcm": "note"}


def test_files_without_preamble_and_compressed_ones_are_problems(tmp_path: Path) -> None:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    good = write_dicom(tmp_path / "train" / "a.dcm", np.zeros((4, 4), np.uint8))
    (tmp_path / "train" / "bare.dcm").write_bytes(good.read_bytes()[132:])
    dataset = pydicom.dcmread(good)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.SOPInstanceUID = "1.2.3"
    deflated = tmp_path / "train" / "z.dcm"
    dataset.save_as(deflated)
    levels = {Path(one.where).name: one.level for one in read_all("dicom", tmp_path) if isinstance(one, Skipped)}
    assert levels == {"bare.dcm": "problem", "z.dcm": "problem"}
    with pytest.raises(KdkitError) as found:
        read_content(ImageLocation("dicom", deflated, (None, "full")))
    assert "Deflated" in found.value.why
