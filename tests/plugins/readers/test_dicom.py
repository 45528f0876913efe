"""Pixels of DICOM instances."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from kdkit.core.contracts import ImageLocation
from kdkit.core.data.digests import file_digest
from kdkit.core.data.images import decode
from kdkit.plugins.readers import dicom_files
from kdkit.plugins.readers.dicom import DicomReader
from tests.errors import raises_error
from tests.plugins.sources.dicom_files import RGB, write_dicom

pydicom = pytest.importorskip("pydicom")
RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (9, 7), dtype=np.uint8)
CT = RNG.integers(0, 4096, (9, 7), dtype=np.uint16)
RESCALE = {"RescaleSlope": 1, "RescaleIntercept": -1024, "BitsStored": 12, "HighBit": 11}


def gray(path: Path, frame: int | None = None, window: str = "file") -> NDArray[np.uint8]:
    """The picture, which must be gray."""
    pixels = np.asarray(decode(ImageLocation("dicom", path, (frame, window))))
    assert (pixels == pixels[..., :1]).all()
    found: NDArray[np.uint8] = pixels[..., 0]
    return found


def test_eight_bits_are_kept(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", GRAY)
    assert np.array_equal(gray(path), GRAY)
    assert np.array_equal(gray(write_dicom(path, GRAY, WindowCenter=128, WindowWidth=256)), GRAY)
    assert np.array_equal(gray(write_dicom(path, GRAY, PhotometricInterpretation="MONOCHROME1")), 255 - GRAY)
    color = RNG.integers(0, 256, (9, 8, 3), dtype=np.uint8)
    write_dicom(path, color, **RGB)
    assert np.array_equal(np.asarray(decode(ImageLocation("dicom", path, (None, "file")))), color)
    write_dicom(path, np.ascontiguousarray(color.transpose(2, 0, 1)), **{**RGB, "PlanarConfiguration": 1},
                Rows=9, Columns=8, NumberOfFrames=1)  # fmt: skip
    assert np.array_equal(np.asarray(decode(ImageLocation("dicom", path, (None, "file")))), color)


def test_the_window_of_the_file_is_that_of_pydicom(tmp_path: Path) -> None:
    from pydicom.pixels import apply_modality_lut, apply_windowing

    path = write_dicom(tmp_path / "a.dcm", CT, **RESCALE, WindowCenter=[40, 300], WindowWidth=[400, 10], Modality="CT")
    data = pydicom.dcmread(path)
    reference = apply_windowing(apply_modality_lut(CT, data), data)
    low, high = -1024, 4095 - 1024
    assert np.abs(gray(path).astype(float) - (reference - low) / (high - low) * 255).max() <= 0.5 + 1e-9


def test_a_window_is_chosen(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", CT, **RESCALE)
    with raises_error("KD-DATA-020", where=str(path), mentions=("window",)) as caught:
        gray(path)
    assert "window" in caught.value.fix
    hounsfield = CT.astype(float) - 1024
    expected = np.clip((hounsfield - 40 + 0.5) / 399 + 0.5, 0, 1) * 255
    assert np.array_equal(gray(path, window="40/400"), np.rint(expected))
    expected = (hounsfield - hounsfield.min()) / np.ptp(hounsfield) * 255
    assert np.abs(gray(path, window="full").astype(int) - expected).max() <= 0.5 + 1e-9
    padded = np.array([[0, 100, 200]], dtype=np.uint16)
    write_dicom(path, padded, PixelPaddingValue=0)
    assert gray(path, window="full").tolist() == [[0, 0, 255]]
    assert (gray(write_dicom(path, np.full((2, 2), 7, np.uint16)), window="full") < 255).all()


def test_signed_values_and_tables(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_voi

    signed = RNG.integers(-1000, 1000, (9, 7)).astype(np.int16)
    path = write_dicom(tmp_path / "a.dcm", signed, WindowCenter=0, WindowWidth=2001)
    assert np.abs(gray(path).astype(float) - np.clip((signed + 1000.5) / 2000 * 255, 0, 255)).max() <= 0.5 + 1e-9
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [64, 100, 12], [int(x) for x in RNG.integers(0, 4096, 64)]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    stored = RNG.integers(80, 200, (9, 7)).astype(np.uint16)
    write_dicom(path, stored, VOILUTSequence=[table], WindowCenter=1, WindowWidth=2)
    reference = apply_voi(stored, pydicom.dcmread(path)) / 4095 * 255
    assert np.abs(gray(path).astype(float) - reference).max() <= 0.5 + 1e-9


def test_frames(tmp_path: Path) -> None:
    stack = RNG.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    path = write_dicom(tmp_path / "a.dcm", stack)
    assert [np.array_equal(gray(path, frame), stack[frame]) for frame in range(3)] == [True] * 3
    for frame in (None, 3, -1):
        with raises_error("KD-DATA-020", where=f"{path}"):
            gray(path, frame)
    digests = {file_digest(ImageLocation("dicom", path, at)) for at in ((0, "file"), (1, "file"), (0, "full"))}
    assert len(digests) == 3


def test_a_rescale_that_makes_all_values_one_is_damage(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", CT, **{**RESCALE, "RescaleSlope": 0}, WindowCenter=1, WindowWidth=9)
    with raises_error("KD-DATA-020", where=str(path)):
        gray(path)


def test_enhanced_frames_have_their_own_rescale_and_window(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    def groups(intercept: float, center: float) -> Dataset:
        item, values, window = Dataset(), Dataset(), Dataset()
        values.RescaleIntercept, values.RescaleSlope, values.RescaleType = intercept, 2, "HU"
        window.WindowCenter, window.WindowWidth = center, 101
        item.PixelValueTransformationSequence, item.FrameVOILUTSequence = [values], [window]
        return item

    stack = RNG.integers(0, 100, (2, 8, 8)).astype(np.uint16)
    frames = [groups(0, 100), groups(-50, 20)]
    path = write_dicom(tmp_path / "a.dcm", stack, PerFrameFunctionalGroupsSequence=frames)
    for frame, (intercept, center) in enumerate(((0, 100), (-50, 20))):
        expected = np.clip((stack[frame] * 2.0 + intercept - center + 0.5) / 100 + 0.5, 0, 1) * 255
        assert np.abs(gray(path, frame).astype(float) - expected).max() <= 0.5 + 1e-9


def test_palettes(tmp_path: Path) -> None:
    stored = np.arange(16, dtype=np.uint8).reshape(4, 4)
    luts: dict[str, Any] = {}
    for number, color in enumerate(("Red", "Green", "Blue")):
        luts[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        table = (np.arange(256) * (number + 1) % 256 * 256).astype("<u2")
        luts[f"{color}PaletteColorLookupTableData"] = table.tobytes()
    path = write_dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation="PALETTE COLOR", **luts)
    picture = np.asarray(decode(ImageLocation("dicom", path, (None, "file"))))
    assert np.array_equal(picture, stored[..., None] * np.array([1, 2, 3]))


@pytest.mark.parametrize("kind", ["jpeg", "jpeg2000", "rle"])
def test_compressed_pixels(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of JPEG, the pixels that Pillow gives for the same bytes."""
    from pydicom import uid
    from pydicom.encaps import encapsulate

    path = write_dicom(tmp_path / "a.dcm", GRAY)
    data = pydicom.dcmread(path)
    expected = GRAY
    if kind == "rle":
        data.compress(uid.RLELossless)
    else:
        stream = io.BytesIO()
        Image.fromarray(GRAY).save(stream, "JPEG" if kind == "jpeg" else "JPEG2000", **({"irreversible": False}
                                   if kind == "jpeg2000" else {}))  # fmt: skip
        expected = np.asarray(Image.open(stream))
        data.PixelData = encapsulate([stream.getvalue()])
        data["PixelData"].is_undefined_length = True
        data["PixelData"].VR = "OB"
        data.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit if kind == "jpeg" else uid.JPEG2000Lossless
    data.save_as(path)
    assert np.array_equal(gray(path), expected)
    monkeypatch.setattr("kdkit.plugins.readers.dicom.lacking_decoder", lambda _: "pip install it")
    with raises_error("KD-DATA-020", where=str(path)) as caught:
        gray(path)
    assert caught.value.fix == "pip install it"


def test_decoders_are_named() -> None:
    from pydicom import uid

    assert dicom_files.lacking_decoder(uid.ExplicitVRLittleEndian) == ""
    assert "pylibjpeg-openjpeg" in dicom_files.lacking_decoder(uid.HTJ2K) or not dicom_files.lacking_decoder(uid.HTJ2K)
    assert dicom_files.lacking_decoder(uid.MPEG2MPML).startswith("convert")


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", None)
    with raises_error("KD-DATA-020", where=str(path), mentions=("image",)) as caught:
        gray(path)
    assert caught.value.why == "no pixel data"
    whole = write_dicom(path, CT, **RESCALE, WindowCenter=1, WindowWidth=2).read_bytes()
    damaged: dict[str, Any] = {"cut": whole[:-40], "header": whole[:150], "text": b"no DICOM", "empty": b""}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with raises_error("KD-DATA-020"):
            gray(tmp_path / name)
    places: list[tuple[str | int | float | None, ...]] = [(), (0,), ("0", "file"), (0, 3)]
    for at in places:
        with raises_error("KD-SRC-100"):
            DicomReader().content(ImageLocation("dicom", path, at))
    with raises_error("KD-DATA-020"):
        decode(ImageLocation("dicom", write_dicom(path, CT[..., None].repeat(3, -1), **RGB), (None, "file")))
    with raises_error("KD-DATA-020"):
        gray(write_dicom(path, GRAY, WindowCenter=1, WindowWidth=0))


def test_no_message_names_the_patient(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_dicom(tmp_path / "a.dcm", GRAY, WindowCenter=1, WindowWidth=0)
    with raises_error("KD-DATA-020") as caught:
        gray(path)
    said = " ".join(map(str, caught.value.fields().values())) + "".join(capfd.readouterr())
    assert "Doe" not in said
    assert "MRN" not in said


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with raises_error("KD-SRC-096") as caught:
        DicomReader()
    assert caught.value.fix == "pip install 'kdkit[dicom]'"
