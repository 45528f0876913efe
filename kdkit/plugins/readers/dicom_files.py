"""pydicom, an extra. What it warns of may hold names of patients, so it is not shown."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError

DECODERS = {"JPEG 2000": "pylibjpeg pylibjpeg-openjpeg", "JPEG": "pylibjpeg pylibjpeg-libjpeg"}
"""Words in the name of a transfer syntax -> the packages that decode it."""


def pydicom(where: str) -> Any:
    """The package.

    Raises:
        KdkitError: it is not installed.
    """
    try:
        import pydicom as found
        import pydicom.pixels
    except ImportError:
        raise KdkitError(
            "KD-SRC-096",
            "DICOM needs pydicom",
            where=where,
            fix="pip install 'kdkit[dicom]'",
            code=ExitCode.MISSING,
        ) from None
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    return found


def is_deflated(path: Path) -> bool:
    """Whether the data set is compressed as a whole. pydicom would inflate it without a limit."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    try:
        return bool(read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)
    except Exception:  # a damaged header; who reads the file says so
        return False


def lacking_decoder(uid: Any) -> str:
    """What to install for pixels of a transfer syntax; empty if they can be decoded."""
    from pydicom.pixels import get_decoder

    try:
        if get_decoder(uid).is_available:
            return ""
    except NotImplementedError:
        return "convert them: no decoder for it is known"
    return next(f"pip install {packages}" for word, packages in DECODERS.items() if word in f"{uid.name} JPEG")
