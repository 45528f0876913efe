"""Windows, against pydicom's."""

from __future__ import annotations

import numpy as np
import pytest

from kdkit.plugins.readers.windows import PRESETS, apply_window, read_window
from tests.errors import raises_error

pydicom = pytest.importorskip("pydicom")


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(40, 400), (-600, 1500), (2048, 4096), (0.5, 3)])
def test_windows_are_those_of_pydicom(function: str, center: float, width: float) -> None:
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_windowing

    data = Dataset()
    data.PhotometricInterpretation, data.BitsStored, data.PixelRepresentation = "MONOCHROME2", 16, 0
    data.WindowCenter, data.WindowWidth, data.VOILUTFunction = center, width, function
    values = np.arange(-3000, 5000, dtype=np.int32).reshape(80, 100)
    reference = apply_windowing(values, data) / 65535 * 255
    assert np.abs(apply_window(values, center, width, function) - reference).max() <= 0.5 + 1e-9


def test_eight_bits_through_their_own_range_stay_as_they_are() -> None:
    values = np.arange(256, dtype=np.uint8)
    assert np.array_equal(apply_window(values, 128, 256), values)
    assert np.array_equal(apply_window(values, 127.5, 255, "LINEAR_EXACT"), values)
    assert apply_window(values, 100, 1).tolist() == [0] * 100 + [255] * 156


def test_options_become_numbers() -> None:
    assert read_window("file", "x") == "file"
    assert read_window("lung", "x") == read_window([-600, 1500.0], "x") == "-600/1500"
    assert {read_window(name, "x").count("/") for name in PRESETS} == {1}
    for wrong in ("lungs", [1], [40, 0], [40, True], [float("nan"), 3], 7, None, ["a", "b"]):
        with raises_error("KD-SRC-095", where="x"):
            read_window(wrong, "x")


def test_impossible_windows_of_files() -> None:
    for width, function in ((0, "LINEAR"), (0, "SIGMOID"), (10, "CUBIC")):
        with pytest.raises(ValueError, match=function):
            apply_window(np.zeros(3), 0, width, function)
