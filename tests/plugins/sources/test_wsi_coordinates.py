"""Coordinates of TRIDENT and CLAM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pytest

from kdkit.plugins.sources.wsi_coordinates import coordinates_file, read_tiles
from kdkit.plugins.sources.wsi_tiles import Unusable
from tests.plugins.sources.slide_files import noise, write_coordinates, write_slide

TRIDENT = {
    "patch_size": 32,
    "patch_size_level0": 64,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "level0_width": 512,
    "level0_height": 400,
}
CLAM = {"patch_size": 32, "patch_level": 1, "downsample": (4.0, 4.0), "level_dim": (128, 100)}
CORNERS = [[0, 0], [64, 128], [480, 380]]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slides") / "a.svs", noise(400, 512), mpp=0.25, power=40)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (TRIDENT, (0, 64, 32)),
        ({**TRIDENT, "patch_size_level0": 128}, (1, 32, 32)),
        ({**TRIDENT, "patch_size_level0": 192}, (1, 48, 32)),
        (CLAM, (1, 32, 32)),
        ({"patch_size": 32, "patch_level": 0}, (0, 32, 32)),
        ({**CLAM, "custom_downsample": 2}, (1, 64, 32)),
    ],
)
def test_layouts(tmp_path: Path, slide: Path, attributes: dict[str, Any], expected: tuple[int, int, int]) -> None:
    found = read_tiles(slide, write_coordinates(tmp_path / "a.h5", CORNERS, attributes))
    assert (found.level, found.read, found.side) == expected
    assert found.corners.tolist() == CORNERS


@pytest.mark.parametrize(
    ("corners", "attributes", "what"),
    [
        ([[512, 0]], TRIDENT, "beyond"),
        ([[-8, 0]], TRIDENT, "beyond"),
        (CORNERS, {**TRIDENT, "level0_width": 600}, "beyond"),
        (CORNERS, {**CLAM, "level_dim": (128, 101)}, "beyond"),
        (CORNERS, {**CLAM, "patch_level": 7}, "beyond"),
        (CORNERS, {"patch_size": 32}, "damaged or incomplete"),
        (CORNERS, {**TRIDENT, "patch_size": "Doe"}, "damaged or incomplete"),
        (CORNERS, {**TRIDENT, "patch_size": 0}, "damaged or incomplete"),
        (CORNERS, {**CLAM, "patch_size": float("inf")}, "damaged or incomplete"),
        (CORNERS, {**CLAM, "level_dim": (float("inf"), 100.0)}, "damaged or incomplete"),
        (CORNERS, {**CLAM, "patch_size": 10_000}, "damaged or incomplete"),
        ([[float("nan"), 0]], CLAM, "damaged or incomplete"),
        ([], CLAM, "enough tissue"),
    ],
)
def test_wrong_files(
    tmp_path: Path, slide: Path, corners: list[list[float]], attributes: dict[str, Any], what: str
) -> None:
    with pytest.raises(Unusable) as caught:
        read_tiles(slide, write_coordinates(tmp_path / "a.h5", corners, attributes))
    assert what in caught.value.skipped.what
    assert "Doe" not in repr(caught.value.skipped)


def test_values_lie_in_the_file_itself(tmp_path: Path, slide: Path) -> None:
    write_coordinates(tmp_path / "other.h5", CORNERS, CLAM)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["coords"] = h5py.ExternalLink("other.h5", "coords")
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["features"] = [1.0]
    with h5py.File(tmp_path / "d.h5", "w") as file:  # a few bytes that would become 16 TB
        file.create_dataset("coords", (10**12, 2), dtype="i8", chunks=(1024, 2)).attrs.update(CLAM)
    with h5py.File(tmp_path / "e.h5", "w") as file:  # the same by large values: 4 TB
        file.create_dataset("coords", (2000, 2), dtype="S1000000000", chunks=(1, 1)).attrs.update(CLAM)
    for name in ("a.h5", "b.h5", "c.h5", "d.h5", "e.h5"):
        with pytest.raises(Unusable):
            read_tiles(slide, tmp_path / name)


def test_names_of_files(tmp_path: Path) -> None:
    slide = tmp_path / "slides" / "a.b.svs"
    assert coordinates_file(tmp_path, slide) is None
    clam = write_coordinates(tmp_path / "a.b.h5", CORNERS, CLAM)
    assert coordinates_file(tmp_path, slide) == clam
    assert coordinates_file(tmp_path, slide) == clam
    trident = write_coordinates(tmp_path / "a.b_patches.h5", CORNERS, TRIDENT)
    assert coordinates_file(tmp_path, slide) == trident
