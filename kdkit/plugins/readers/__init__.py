"""Built-in image readers: members of tar files, cells of Parquet and Arrow files, rows of arrays, DICOM instances,
tiles of slides.
"""

from __future__ import annotations

from kdkit.core.contracts import ImageReaderSpec
from kdkit.core.contracts.hookspecs import hookimpl

READERS = (
    ("tar", "tar:TarReader", "a member of a tar file, by its offset"),
    ("parquet", "parquet:ParquetReader", "the bytes in a cell of a Parquet file"),
    ("arrow", "arrow:ArrowReader", "the bytes in a cell of an Arrow file"),
    ("array", "array:ArrayReader", "a row of an array in a .npz or .npy file"),
    ("dicom", "dicom:DicomReader", "a frame of a DICOM instance, through a window"),
    ("wsi", "wsi:SlideReader", "a tile of a whole-slide image"),
)
"""Name, factory in this package, summary."""


@hookimpl
def kdkit_image_readers() -> list[ImageReaderSpec]:
    return [
        ImageReaderSpec(name=name, summary=summary, factory=f"kdkit.plugins.readers.{factory}")
        for name, factory, summary in READERS
    ]
