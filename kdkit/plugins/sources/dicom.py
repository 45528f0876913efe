"""A folder of DICOM files: a sample per frame, with domain and text from a few fields that name no patient."""

from __future__ import annotations

import filecmp
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.templates import fill
from kdkit.core.contracts import ImageLocation, Sample, Skipped, Split
from kdkit.plugins.readers.windows import FILE, Window, read_window
from kdkit.plugins.sources.dicom_index import Header, HeaderCache, is_dicom
from kdkit.plugins.sources.fields import FolderSplits
from kdkit.plugins.sources.tree import walk_files

MODALITIES: Mapping[str, str] = {
    "CR": "x-ray", "CT": "ct", "DX": "x-ray", "ES": "endoscopy", "GM": "microscopy", "MG": "mammography", "MR": "mri",
    "NM": "nuclear medicine", "OP": "fundus", "OPT": "oct", "OT": "other", "PT": "pet", "RF": "fluoroscopy",
    "RG": "x-ray", "SC": "other", "SM": "microscopy", "US": "ultrasound", "XA": "angiography", "XC": "photograph",
}  # fmt: skip
"""Code of DICOM (PS3.3, C.7.3.1.1.1) -> the name of ``{modality}``; others keep their code in lower case."""
UNSPECIFIED = "unspecified"
Frames = int | Literal["all", "middle"]


@dataclass(frozen=True)
class DicomFolder:
    """Samples in the order of the paths, then of the frames. Links to folders are followed; hidden names are skipped.

    Attributes:
        location: the folder, or one file.
        domain: template with ``{modality}`` and ``{body_part}``.
        caption: template of the text, with ``{domain}``, ``{modality}``, ``{body_part}``, and ``{label}`` with
            ``classes``.
        classes: the folder that holds a file names its class.
        windows: DICOM's code of a modality -> window; ``*`` is for all others. A window is ``file`` (that of the file),
            ``full`` (the range of the frame's values), a name such as ``lung``, or center and width.
        frames: which frames of files with several; by default such files are left out.
        burned_in: also use files that say that the picture shows texts.
        split: of all samples.
        split_fractions: shares by which a hash of the patient decides the split. Without it and ``split``, the first
            folder below ``location`` names the split.
        splits: name of such a folder -> the split.
        salt: a secret that goes into the hashes of patients' ids.
        id_prefix: prefix of every id; an id is the modality and a hash of the instance's UID.
        cache_folder: where the headers are kept.
    """

    location: Path
    domain: str = "{modality}"
    caption: str | None = None
    classes: bool = False
    windows: Mapping[str, Window] | None = None
    frames: Frames | None = None
    burned_in: bool = False
    split: Split | None = None
    split_fractions: Mapping[str, float] | None = None
    splits: Mapping[str, str] | None = None
    salt: str = ""
    id_prefix: str = ""
    cache_folder: Path | None = None

    def __iter__(self) -> Iterator[Sample | Skipped]:
        """The samples, and a ``Skipped`` for each other file.

        Raises:
            KdkitError: no DICOM file; a wrong option; pydicom is not installed.
        """
        where = str(self.location)
        splits = FolderSplits.of(self.split, self.split_fractions, self.splits, where)
        windows = {code.upper(): read_window(window, where) for code, window in (self.windows or {}).items()}
        headers, seen = HeaderCache(self.location, self.cache_folder, self.salt), dict[str, Path]()
        left_out = Counter[str]()
        for path in self._files():
            if isinstance(path, Skipped):
                yield path
                continue
            if not is_dicom(path):
                yield _no_dicom(path)
                continue
            if path.name == "DICOMDIR":
                continue
            relative = path.name if path == self.location else path.relative_to(self.location).as_posix()
            header = headers.get(path, relative)
            id_ = f"{self.id_prefix}{header.modality.lower()}-{header.instance or _path_hash(relative)}"
            if skipped := self._skipped(header, path, id_, seen):
                left_out[skipped.what] += 1
                yield skipped
                continue
            seen[id_] = path
            window = windows.get(header.modality, windows.get("*", FILE))
            split = splits.of_file(relative, header.patient or id_, str(path))
            fields = self._fields(header, path)
            for frame in self._chosen(header, str(path)):
                yield self._sample(path, header, fields, (f"{id_}" if frame is None else f"{id_}-{frame}"), frame,
                                   window, split)  # fmt: skip
        headers.save()
        if not seen:
            why = ", ".join(f"{count} {what}" for what, count in left_out.items())
            fix = "check the path, and the options frames and burned_in"
            raise KdkitError("KD-SRC-102", "no DICOM file with a picture here", where=where, why=why, fix=fix)

    def _files(self) -> Iterator[Path | Skipped]:
        """The files, and what is passed over."""
        if self.location.is_file():
            yield self.location
            return
        if not self.location.is_dir():
            fix = "check the path of the data entry; it is relative to registry.yaml"
            raise KdkitError("KD-SRC-103", "no such folder", where=str(self.location), fix=fix, code=ExitCode.MISSING)
        yield from walk_files(self.location)

    def _skipped(self, header: Header, path: Path, id_: str, seen: Mapping[str, Path]) -> Skipped | None:
        if header.skip:
            return Skipped(header.skip, str(path), header.fix, "problem" if header.fix else "note")
        if header.burned_in and not self.burned_in:
            fix = "burned_in: true uses them, if you know that no text names a patient"
            return Skipped("DICOM files with burned-in texts", str(path), fix, "warning")
        if header.frames > 1 and self.frames is None:
            fix = "choose by the option frames: all, middle, or a number from 0"
            return Skipped("DICOM files with several frames", str(path), fix)
        if id_ in seen:
            if filecmp.cmp(seen[id_], path, shallow=False):
                return Skipped("copies of DICOM instances", str(path), level="note")
            fix = "an anonymizer must give every instance a UID of its own; give them one, or remove the file"
            return Skipped("DICOM files with the UID of another file", str(path), fix)
        return None

    def _chosen(self, header: Header, where: str) -> list[int | None]:
        if header.frames == 1:
            return [None]
        if self.frames == "all":
            return list(range(header.frames))
        chosen = header.frames // 2 if self.frames == "middle" else int(self.frames or 0)
        if not 0 <= chosen < header.frames:
            fix = "correct the option frames"
            raise KdkitError(
                "KD-SRC-104", f"{header.frames} frames, and frame {chosen} is chosen", where=where, fix=fix
            )
        return [chosen]

    def _fields(self, header: Header, path: Path) -> dict[str, str]:
        """Values of the templates."""
        fields = {
            "modality": MODALITIES.get(header.modality, header.modality.lower()),
            "body_part": header.body_part.lower() or UNSPECIFIED,
        }
        fields["domain"] = _fill(self.domain, fields, str(path))
        if self.classes:
            fields["label"] = path.parent.name
        return fields

    def _sample(
        self, path: Path, header: Header, fields: Mapping[str, str], id_: str, frame: int | None, window: str,
        split: Split,
    ) -> Sample:  # fmt: skip
        caption = self.caption or ("a {domain} image of {label}" if self.classes else "{domain} image")
        extra: dict[str, Any] = {"group": header.patient} if header.patient else {}
        return Sample(
            id=id_,
            image=ImageLocation("dicom", path, (frame, window), "" if frame is None else f"frame {frame}"),
            text=_fill(caption, {name: value.replace("_", " ") for name, value in fields.items()}, str(path)),
            domain=fields["domain"],
            label=fields.get("label"),
            split=split,
            origin=str(path),
            extra=extra,
        )


def _no_dicom(path: Path) -> Skipped:
    if path.suffix.lower() in (".dcm", ".dicom"):
        return Skipped("DICOM files without the preamble of 128 bytes", str(path), "write them again as DICOM files")
    return Skipped("files that are no DICOM", str(path), level="note")


def _fill(template: str, fields: Mapping[str, str], where: str) -> str:
    try:
        return fill(template, fields)
    except (KeyError, ValueError) as error:
        names = ", ".join(f"{{{name}}}" for name in fields)
        why = f"no {error} here" if isinstance(error, KeyError) else str(error)
        raise KdkitError(
            "KD-SRC-105", f"the template '{template}' cannot be filled in", where=where, why=why,
            fix=f"it may use {names}",
        ) from error  # fmt: skip


def _path_hash(relative: str) -> str:
    return blake2b(os.fsencode(relative), digest_size=8).hexdigest()
