"""DICOM files for tests, written with pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pydicom = pytest.importorskip("pydicom")
RGB = {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0}


def write_dicom(path: Path, pixels: NDArray[Any] | None, **tags: Any) -> Path:
    """An instance with these stored values: (H, W), (frames, H, W), or (H, W, 3) with the tags :data:`RGB`."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.PatientName, data.PatientID, data.Modality = "Doe^Jane", "MRN-4711", "OT"
    if pixels is not None:
        color = tags.get("SamplesPerPixel") == 3
        shape = pixels.shape[-3:-1] if color else pixels.shape[-2:]
        data.Rows, data.Columns = shape
        if pixels.ndim - color > 2:
            data.NumberOfFrames = len(pixels)
        bits = pixels.dtype.itemsize * 8
        data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
        data.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
        data["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, value in tags.items():
        setattr(data, name, value)
    if "SOPInstanceUID" in tags:
        data.file_meta.MediaStorageSOPInstanceUID = tags["SOPInstanceUID"]
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path
