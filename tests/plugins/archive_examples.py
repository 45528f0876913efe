"""Examples by which the conformance kit checks the sources of archives, and the image readers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import kdkit.testing as kit
from kdkit.core.contracts import ImageLocation
from tests.plugins.sources.archives import members_of, png, save_to_disk, write_arrow, write_parquet, write_tar

ROWS: list[dict[str, Any]] = [
    {"id": str(n), "image": f"{n}.png", "text": "a scan", "domain": "ct", "label": "cyst", "split": "train"}
    for n in range(3)
]
PNGS = {f"{n}.png": png(n) for n in range(3)}
COLUMNS: dict[str, Any] = {name: [row[name] for row in ROWS] for name in ROWS[0]} | {"image": list(PNGS.values())}


class WebDataset(kit.SourceContract):
    name = "webdataset"

    def location(self) -> Path:
        return write_tar(self.scratch() / "shards" / "0.tar", members_of(ROWS, PNGS)).parent

    def damaged(self) -> Path:
        path = write_tar(self.scratch() / "cut" / "0.tar", members_of(ROWS, PNGS))
        path.write_bytes(path.read_bytes()[:3000])
        return path.parent


class Parquet(kit.SourceContract):
    name = "parquet"

    def location(self) -> Path:
        return write_parquet(self.scratch() / "rows.parquet", COLUMNS)

    def damaged(self) -> Path:
        return write_parquet(self.scratch() / "bad.parquet", {**COLUMNS, "text": ["a scan", None, "a scan"]})


class HfDataset(kit.SourceContract):
    name = "hf-dataset"

    def location(self) -> Path:
        return save_to_disk(self.scratch() / "saved", COLUMNS)

    def damaged(self) -> Path:
        path = save_to_disk(self.scratch() / "cut", COLUMNS)
        file = path / "data-00001-of-00002.arrow"
        file.write_bytes(file.read_bytes()[:-30])
        return path


class MedMnist(kit.SourceContract):
    name = "medmnist"
    options: ClassVar[Mapping[str, Any]] = {"labels": ["normal", "cyst"]}

    def location(self) -> Path:
        return self.write(np.array([[0], [1]], np.uint8))

    def write(self, labels: Any) -> Path:
        folder = self.scratch() / f"{len(labels)}"
        folder.mkdir(exist_ok=True)
        np.save(folder / "train_images.npy", np.arange(32, dtype=np.uint8).reshape(2, 4, 4))
        np.save(folder / "train_labels.npy", labels)
        return folder

    def damaged(self) -> Path:
        return self.write(np.array([[0]], np.uint8))


class TarReader(kit.ImageReaderContract):
    name = "tar"

    def location(self) -> ImageLocation:
        path = write_tar(self.scratch() / "0.tar", {"a.png": PNGS["0.png"]})
        return ImageLocation("tar", path, (512, len(PNGS["0.png"])), "a.png")


class ParquetReader(kit.ImageReaderContract):
    name = "parquet"

    def location(self) -> ImageLocation:
        return ImageLocation("parquet", write_parquet(self.scratch() / "rows.parquet", COLUMNS), ("image", 1), "row 2")


class ArrowReader(kit.ImageReaderContract):
    name = "arrow"

    def location(self) -> ImageLocation:
        return ImageLocation("arrow", write_arrow(self.scratch() / "rows.arrow", COLUMNS), ("image", 1), "row 2")


class ArrayReader(kit.ImageReaderContract):
    name = "array"

    def location(self) -> ImageLocation:
        np.savez_compressed(self.scratch() / "a.npz", images=np.arange(32, dtype=np.uint8).reshape(2, 4, 4))
        return ImageLocation("array", self.scratch() / "a.npz", ("images", 1), "images 1")


class CocoCaptions(kit.SourceContract):
    name = "coco-captions"
    options: ClassVar[Mapping[str, Any]] = {"constants": {"domain": "ct", "split": "train"}}

    def location(self) -> Path:
        (self.scratch() / "0.png").write_bytes(PNGS["0.png"])
        captions = [{"id": n, "image_id": 0, "caption": "a scan"} for n in range(2)]
        content = {"images": [{"id": 0, "file_name": "0.png"}], "annotations": captions}
        path = self.scratch() / "captions.json"
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")
        return path


class PmcJsonl(kit.SourceContract):
    name = "pmc-jsonl"
    options: ClassVar[Mapping[str, Any]] = {"constants": {"domain": "ct", "split": "train"}}

    def location(self) -> Path:
        (self.scratch() / "0.png").write_bytes(PNGS["0.png"])
        return self.write({"image": "0.png", "captions": ["a scan", "the same scan"]})

    def write(self, record: Mapping[str, Any]) -> Path:
        path = self.scratch() / f"{len(record)}.jsonl"
        path.write_text(json.dumps(record) + "\n", encoding="utf-8")
        return path

    def damaged(self) -> Path:
        return self.write({"image": "0.png"})


class Dicom(kit.SourceContract):
    name = "dicom"
    options: ClassVar[Mapping[str, Any]] = {"split": "train"}

    def location(self) -> Path:
        from tests.plugins.sources.dicom_files import write_dicom

        for number in range(2):
            pixels = np.arange(16, dtype=np.uint8).reshape(4, 4) + number
            write_dicom(self.scratch() / "scans" / f"{number}.dcm", pixels)
        return self.scratch() / "scans"

    def damaged(self) -> Path:
        folder = self.scratch() / "damaged"
        folder.mkdir()
        (folder / "0.dcm").write_bytes(bytes(128) + b"DICM")
        return folder


class DicomReader(kit.ImageReaderContract):
    name = "dicom"

    def location(self) -> ImageLocation:
        from tests.plugins.sources.dicom_files import write_dicom

        pixels = np.arange(16, dtype=np.uint16).reshape(4, 4)
        return ImageLocation("dicom", write_dicom(self.scratch() / "a.dcm", pixels), (None, "full"))


class WholeSlides(kit.SourceContract):
    name = "wsi"
    options: ClassVar[Mapping[str, Any]] = {"split": "train", "tile_size": 64, "min_tissue": 0}

    def location(self) -> Path:
        from tests.plugins.sources.slide_files import noise, write_slide

        return write_slide(self.scratch() / "slides" / "a.svs", noise(128, 128)).parent

    def damaged(self) -> Path:
        folder = self.scratch() / "damaged"
        folder.mkdir()
        (folder / "0.svs").write_bytes(b"damaged")
        return folder


class SlideReader(kit.ImageReaderContract):
    name = "wsi"

    def location(self) -> ImageLocation:
        from tests.plugins.sources.slide_files import noise, write_slide

        return ImageLocation("wsi", write_slide(self.scratch() / "a.svs", noise(64, 64)), (0, 0, 0, 32, 16))


EXAMPLES: tuple[type[kit.Contract], ...] = (
    WebDataset, Parquet, HfDataset, MedMnist, CocoCaptions, PmcJsonl, Dicom, WholeSlides,
    TarReader, ParquetReader, ArrowReader, ArrayReader, DicomReader, SlideReader,
)  # fmt: skip
