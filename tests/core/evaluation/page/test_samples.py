"""How the page names single samples."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from kdkit.core.contracts import ImageLocation, ImageRef, Sample
from kdkit.core.evaluation.page.samples import _Samples
from kdkit.core.project.project import Project
from tests.core.evaluation.trust.synthetic import table_of

NAME = "Smith-1970"


def view(folder: Path, *samples: Sample, images: bool) -> _Samples:
    (folder / "registry.yaml").write_text(
        f"version: 1\nstudent: {{family: demo-student}}\nreport: {{images: {str(images).lower()}}}\n"
    )
    return _Samples(Project(folder), table_of(list(samples)), [])


def test_a_tile_is_named_by_a_hash(tmp_path: Path) -> None:
    """Its id has the name of the slide, which may be that of a patient."""
    sample = Sample(f"{NAME}_0_0", ImageLocation("wsi", tmp_path / f"{NAME}.svs", (0, 0, 0, 8, 8)), "a tile", "skin")
    shown = view(tmp_path, sample, images=False).shown(sample)
    assert (NAME in shown.name, shown.text) == (False, "a tile")


@pytest.mark.parametrize("image", [ImageLocation("dicom", Path("/x/a.dcm"), (None, "")), Path("/x/a.DCM")])
def test_a_dicom_file_is_named_by_a_hash_and_its_text_needs_permission(tmp_path: Path, image: ImageRef) -> None:
    sample = Sample(NAME, image, f"Report of {NAME}", "ct", "mass", "test")
    shown = view(tmp_path, sample, images=False).shown(sample)
    assert NAME not in shown.name + shown.text
    assert shown.picture is None
    allowed = view(tmp_path, sample, images=True).shown(sample)
    assert allowed.name == shown.name
    assert NAME in allowed.text


def test_a_thumbnail_is_pixels_alone_and_only_where_the_project_allows_it(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x010E] = NAME  # the description
    Image.new("RGB", (600, 300), "red").save(file, exif=exif, comment=NAME.encode())
    assert NAME.encode() in file.read_bytes()
    sample = Sample("a", file, "a scan", "ct", "mass", "test")
    assert view(tmp_path, sample, images=False).shown(sample).picture is None
    picture = view(tmp_path, sample, images=True).shown(sample).picture
    assert picture is not None
    assert NAME.encode() not in picture
    assert len(picture) < 4000
