"""Headers of DICOM files, read once: the few facts that a sample needs, without anything that names a patient."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from kdkit.plugins.readers.dicom_files import is_deflated, lacking_decoder, pydicom

VERSION = 3
PIXELS = (0x7FE00010,)
OTHER_PIXELS = (0x7FE00008, 0x7FE00009)
"""Pixels as floating-point numbers, which are no pictures."""
NO_PICTURES = frozenset({"PR", "REG", "RTDOSE", "RTPLAN", "RTSTRUCT", "SEG", "SR"})
"""Modalities whose pixels, if any, are masks, doses or layers over other pictures."""
TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Modality", "BodyPartExamined", "PatientID", "Rows",
    "NumberOfFrames", "BurnedInAnnotation",
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What is kept of a file.

    Attributes:
        instance: hash of its SOP instance UID.
        patient: hash of the patient's id, else of the study; empty if the file has neither.
        modality, body_part: DICOM's codes, such as ``CT`` and ``CHEST``.
        frames: number of frames.
        burned_in: the file says that the picture shows texts, which may name the patient.
        skip: why the file is no picture; empty if it is one. ``fix``: the remedy.
    """

    instance: str = ""
    patient: str = ""
    modality: str = ""
    body_part: str = ""
    frames: int = 1
    burned_in: bool = False
    skip: str = ""
    fix: str = ""


DAMAGED = Header(skip="damaged DICOM files", fix="copy them again, or remove them")


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


class HeaderCache:
    """Headers by path, size and time, kept in a JSON file.

    Args:
        location: the folder of the DICOM files.
        folder: where the JSON file is; None keeps nothing.
        salt: goes into the hashes of patients.
    """

    def __init__(self, location: Path, folder: Path | None, salt: str) -> None:
        self._salt = salt
        name = blake2b(f"{os.path.abspath(location)}\0{salt}".encode(errors="surrogateescape"), digest_size=12)
        self._path = None if folder is None else folder / f"dicom-{name.hexdigest()}.json"
        self._known, self._changed = self._load(), False

    def get(self, path: Path, key: str) -> Header:
        """The header of a file; ``key`` is its path below the location.

        Raises:
            KdkitError: pydicom is not installed.
        """
        found = os.stat(path)
        stamp = [VERSION, found.st_size, found.st_mtime_ns]
        with suppress(KeyError, TypeError, ValueError):
            if self._known[key]["stamp"] == stamp:
                return Header(**self._known[key]["header"])
        header = _read(path, self._salt)
        if not header.skip.startswith("DICOM files in "):  # a decoder may be installed later
            self._known[key], self._changed = {"stamp": stamp, "header": asdict(header)}, True
        return header

    def _load(self) -> dict[str, Any]:
        try:
            known = json.loads(self._path.read_bytes()) if self._path else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return known if isinstance(known, dict) else {}

    def save(self) -> None:
        """Write the file; on a read-only disk headers are read again each time."""
        if self._path is None or not self._changed:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False, encoding="utf-8") as draft:
                json.dump(self._known, draft)
            os.replace(draft.name, self._path)


def _read(path: Path, salt: str) -> Header:
    pydicom(str(path))
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    if is_deflated(path):
        return Header(skip="DICOM files that are compressed as a whole (Deflated)", fix="convert them, by dcmconv +te")
    pixels: list[int] = []

    def at_pixels(tag: int, _: str | None, __: int) -> bool:
        if tag in (*PIXELS, *OTHER_PIXELS):
            pixels.append(int(tag))
        return bool(pixels)

    try:
        with open(path, "rb") as file:
            dataset = read_partial(file, at_pixels, specific_tags=[Tag(name) for name in TAGS])
        return _facts(dataset, pixels, salt) if dataset.get("SOPClassUID") else DAMAGED
    except Exception:  # pydicom raises anything for damaged files; its text may hold values of the file
        return DAMAGED


def _facts(dataset: Any, pixels: list[int], salt: str) -> Header:
    if not pixels and (dataset.get("Rows") or "Image Storage" in dataset.SOPClassUID.name):
        return Header(skip="DICOM images without pixel data", fix="copy them again, or remove them")
    modality = str(dataset.get("Modality", "") or "OT").strip().upper()
    if not pixels or pixels[0] in OTHER_PIXELS or not dataset.get("Rows") or modality in NO_PICTURES:
        return Header(skip="DICOM files without a picture (reports, structures, plans)")
    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    if syntax is not None and (fix := lacking_decoder(syntax)):
        return Header(skip=f"DICOM files in {syntax.name}, which no installed package decodes", fix=fix)
    instance = str(dataset.get("SOPInstanceUID", ""))
    patient = str(dataset.get("PatientID", "") or "") or str(dataset.get("StudyInstanceUID", "") or "")
    return Header(
        instance=_hash(instance) if instance else "",
        patient=_hash(f"{salt}\0{patient}") if patient else "",
        modality=modality,
        body_part=str(dataset.get("BodyPartExamined", "") or "").strip().upper(),
        frames=max(1, int(dataset.get("NumberOfFrames", 1) or 1)),
        burned_in=str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES",
    )


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
