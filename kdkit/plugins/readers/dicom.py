"""DICOM instances: ``at`` is the frame (or None, for the only one) and the window.

The steps are those of PS3.4, N.2: rescale or modality LUT, then VOI LUT or window, then MONOCHROME1 is inverted.
"""

from __future__ import annotations

import json
import math
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation
from kdkit.core.data.images import PIXELS
from kdkit.plugins.readers.dicom_files import is_deflated, lacking_decoder, pydicom
from kdkit.plugins.readers.windows import FILE, FULL, apply_window

CHOOSE = "choose a window: an option of the data entry, such as window: lung or window: [40, 400]"


class DicomReader:
    """Reads the whole file for each frame."""

    def __init__(self) -> None:
        self._pydicom = pydicom("")

    def content(self, location: ImageLocation) -> bytes:
        """Frame and window as JSON, a NUL, then the file: the same file through another window is other content.

        Raises:
            KdkitError: ``at`` is not a frame and a window.
        """
        match location.at:
            case (int() | None, str()):
                if is_deflated(location.file):
                    raise _unreadable(location, "it is compressed as a whole (Deflated)")
                return json.dumps(location.at).encode() + b"\0" + location.file.read_bytes()
        raise _unreadable(location, "at is not a frame and a window")

    def decode(self, location: ImageLocation, content: bytes) -> Image.Image:
        """The frame, gray or RGB.

        Raises:
            KdkitError: no DICOM file, no pixel data, no decoder, several frames or no window.
        """
        head, _, file = content.partition(b"\0")
        frame, window = json.loads(head)
        try:
            dataset = self._pydicom.dcmread(BytesIO(file))
        except Exception as error:  # damaged files raise anything; its text may hold values of the file
            raise _unreadable(location, f"no DICOM file ({type(error).__name__})") from None
        several = _check_frame(dataset, frame, location)
        stored = self._stored(dataset, frame if several else None, location)
        try:
            return _picture(dataset, stored, frame or 0, window, location)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError) as error:
            raise _unreadable(location, f"its header is damaged ({type(error).__name__})") from None

    def _stored(self, dataset: Any, frame: int | None, location: ImageLocation) -> NDArray[Any]:
        """The stored values of a frame; colors as RGB."""
        syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
        if syntax is not None and (fix := lacking_decoder(syntax)):
            raise KdkitError(
                "KD-SRC-097",
                "no decoder for this DICOM file is installed",
                where=str(location),
                why=f"its pixels are in {syntax.name}",
                fix=fix,
            )
        if int(dataset.get("Rows", 0)) * int(dataset.get("Columns", 0)) > PIXELS:
            raise _unreadable(location, f"{dataset.Rows} x {dataset.Columns} pixels")
        try:
            found: NDArray[Any] = self._pydicom.pixels.pixel_array(dataset, index=frame)
        except Exception as error:
            why = "no pixel data" if "PixelData" not in dataset else f"damaged pixel data ({type(error).__name__})"
            raise _unreadable(location, why) from None
        return found


def _check_frame(dataset: Any, frame: int | None, location: ImageLocation) -> bool:
    """Whether there are several frames.

    Raises:
        KdkitError: none of them is chosen, or one that does not exist.
    """
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames > 1 and frame is None:
        raise KdkitError(
            "KD-SRC-098",
            "several frames",
            where=str(location),
            why=f"{frames} frames",
            fix="read it by the source dicom, whose option frames chooses: frames: middle",
        )
    if frame is not None and not 0 <= frame < frames:
        raise _unreadable(location, f"{frames} frames, and frame {frame} is chosen (the first is 0)")
    return frames > 1


def _picture(dataset: Any, stored: NDArray[Any], frame: int, window: str, location: ImageLocation) -> Image.Image:
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if kind.startswith("MONOCHROME") and stored.ndim == 2:
        gray = _windowed(dataset, stored, frame, window, location)
        return Image.fromarray(255 - gray if kind == "MONOCHROME1" else gray)
    if kind == "PALETTE COLOR" and stored.ndim == 2:
        from pydicom.pixels import apply_color_lut

        colors = apply_color_lut(stored, dataset)[..., :3]
        return Image.fromarray((colors >> 8 if colors.dtype == np.uint16 else colors).astype(np.uint8))
    if stored.ndim == 3 and stored.shape[2] == 3 and stored.dtype == np.uint8:
        return Image.fromarray(stored)
    raise _unreadable(location, f"{kind or 'no'} photometric interpretation, {stored.dtype} of shape {stored.shape}")


def _windowed(
    dataset: Any, stored: NDArray[Any], frame: int, window: str, location: ImageLocation
) -> NDArray[np.uint8]:
    """Gray values of 8 bits."""
    values, rescaled = _rescaled(dataset, stored, frame)
    if window not in (FILE, FULL):
        given = window.partition("/")
        return apply_window(values, float(given[0]), float(given[2]))
    if window == FULL:
        used = values[stored != dataset.PixelPaddingValue] if "PixelPaddingValue" in dataset else values
        low, high = (float(used.min()), float(used.max())) if used.size else (0.0, 0.0)
        return apply_window(values, (low + high) / 2, high - low or 1.0, "LINEAR_EXACT")
    if dataset.get("VOILUTSequence"):
        return _by_table(dataset.VOILUTSequence[0], values)
    own = _group(dataset, frame, "FrameVOILUTSequence") or dataset
    center, width = _first(own.get("WindowCenter")), _first(own.get("WindowWidth"))
    if center is not None and width is not None:
        return apply_window(values, center, width, str(own.get("VOILUTFunction") or "LINEAR"))
    bits = int(dataset.get("BitsStored", 16))
    if bits <= 8 and not rescaled and not dataset.get("PixelRepresentation", 0):
        scaled: NDArray[np.uint8] = np.rint(values.astype(np.float64) * (255 / (2**bits - 1))).astype(np.uint8)
        return scaled
    raise KdkitError(
        "KD-SRC-099",
        "this DICOM file has no window",
        where=str(location),
        why=f"{bits} bits; the range of values that becomes black to white must be chosen (the option windows)",
        fix=CHOOSE,
    )


def _rescaled(dataset: Any, stored: NDArray[Any], frame: int) -> tuple[NDArray[Any], bool]:
    """Values after the modality LUT or the rescale, and whether these changed anything."""
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        return apply_modality_lut(stored, dataset), True
    own = _group(dataset, frame, "PixelValueTransformationSequence") or dataset
    slope, intercept = _first(own.get("RescaleSlope")), _first(own.get("RescaleIntercept"))
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if not slope or not math.isfinite(slope) or not math.isfinite(intercept):
        raise ValueError(f"a rescale by {slope:g} and {intercept:g}")  # all values would become one
    if (slope, intercept) == (1.0, 0.0):
        return stored, False
    return stored * slope + intercept, True


def _by_table(item: Any, values: NDArray[Any]) -> NDArray[np.uint8]:
    """By a VOI LUT (C.11.2.1.1): the first entry is for ``first`` and all below, the last one for all above."""
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    data = item.LUTData
    table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data, dtype=np.int64)
    if bits < 1 or not len(table):
        raise ValueError("an empty table")
    first -= 2**16 if first >= 2**15 and values.min(initial=0) < 0 else 0  # read as unsigned
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, min(count or 2**16, len(table)) - 1)
    found: NDArray[np.uint8] = np.rint(np.clip(table[places] * (255 / (2**bits - 1)), 0, 255)).astype(np.uint8)
    return found


def _group(dataset: Any, frame: int, name: str) -> Any:
    """The item of a functional group (enhanced multi-frame images), of the frame or of all; None without one."""
    for groups, number in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(groups)
        if items and number < len(items) and items[number].get(name):
            return items[number].get(name)[0]
    return None


def _first(value: Any) -> float | None:
    """The first of several values."""
    if value is None or value == "":
        return None
    return float(value) if isinstance(value, str | int | float) or not hasattr(value, "__len__") else float(value[0])


def _unreadable(location: ImageLocation, why: str) -> KdkitError:
    return KdkitError(
        "KD-SRC-100",
        "this DICOM file cannot be read as an image",
        where=str(location),
        why=why,
        fix="repair it or leave it out",
    )
