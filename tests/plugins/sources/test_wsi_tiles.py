"""Grids of tiles at a resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.plugins.sources.wsi_tiles import TilePlan, Tiles, Unusable, cut_into_tiles
from tests.errors import raises_error
from tests.plugins.sources.slide_files import noise, tissue_on_glass, write_slide


def plan(**options: Any) -> TilePlan:
    names = ("tile_size", "mpp", "magnification", "min_tissue", "slide_mpp")
    return TilePlan.of("here", **{name: options.get(name) for name in names})


def cut(path: Path, **options: Any) -> Tiles:
    return cut_into_tiles(path, plan(**{"tile_size": 32, "min_tissue": 0, **options}))


def why(path: Path, **options: Any) -> tuple[str, str]:
    with pytest.raises(Unusable) as caught:
        cut(path, **options)
    return caught.value.skipped.what, caught.value.skipped.level


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """512 x 400 pixels at 0.25 microns, with a level of a quarter."""
    return write_slide(tmp_path_factory.mktemp("slides") / "a.svs", noise(400, 512), mpp=0.25, power=40)


@pytest.mark.parametrize(
    ("asked", "level", "read", "span"),
    [
        ({"mpp": 0.25}, 0, 32, 32),
        ({"mpp": 0.5}, 0, 64, 64),
        ({}, 0, 64, 64),
        ({"magnification": 20}, 0, 64, 64),
        ({"mpp": 1.0}, 1, 32, 128),
        ({"magnification": 10}, 1, 32, 128),
        ({"mpp": 1.01}, 1, 32, 128),  # within 2 % of the level
        ({"mpp": 1.5}, 1, 48, 192),
        ({"mpp": 0.254}, 0, 32, 32),
    ],
)
def test_resolution_and_grid(slide: Path, asked: dict[str, float], level: int, read: int, span: int) -> None:
    found = cut(slide, **asked)
    assert (found.level, found.read, found.side) == (level, read, 32)
    x, y = np.meshgrid(np.arange(0, 512 - span + 1, span), np.arange(0, 400 - span + 1, span))
    assert found.corners.tolist() == np.stack([x.ravel(), y.ravel()], axis=1).tolist()


def test_tiles_have_tissue(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", tissue_on_glass(640, 640, (64, 128, 320, 272)))
    found = cut(path, tile_size=64, min_tissue=0.9)
    assert sorted(found.corners.tolist()) == [[x, y] for x in range(64, 320, 64) for y in (128, 192)]
    half = cut(path, tile_size=64, min_tissue=0.2).corners
    assert len(half) == 12  # the row at 256 has a quarter of tissue
    blank = write_slide(tmp_path / "b.svs", tissue_on_glass(320, 320, (0, 0, 0, 0)))
    assert why(blank, tile_size=64, min_tissue=0.1) == ("slides without a tile of enough tissue", "warning")
    assert why(path, tile_size=700)[1] == "warning"


def test_slides_that_do_not_say_their_resolution(tmp_path: Path) -> None:
    unknown = write_slide(tmp_path / "a.tiff", noise(128, 128), mpp=None, described="")
    screen = write_slide(tmp_path / "b.tiff", noise(128, 128), mpp=352.8, described="")
    for path in (unknown, screen):
        assert why(path, mpp=0.5) == ("slides that do not say how many microns a pixel has", "problem")
        assert why(path, magnification=20)[1] == "problem"
        assert cut(path, mpp=0.5, slide_mpp=0.25).read == 64
    power = write_slide(tmp_path / "c.svs", noise(128, 128), mpp=None, power=40)
    assert cut(power, magnification=20).read == 64
    assert why(power, mpp=0.5)[1] == "problem"
    told = write_slide(tmp_path / "d.svs", noise(128, 128), mpp=0.5)
    assert cut(told, mpp=0.5, slide_mpp=0.1).read == 32  # what the slide says counts


def test_no_pixels_are_invented(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why(slide, mpp=0.2) == ("slides with larger pixels than asked for", "problem")
    assert why(slide, magnification=60)[1] == "problem"
    monkeypatch.setattr("kdkit.plugins.sources.wsi_tiles.MAX_TILES", 10)
    assert why(slide, mpp=0.25) == ("slides with too many tiles", "problem")
    monkeypatch.setattr("kdkit.plugins.sources.wsi_tissue.MAX_PIXELS", 10)
    assert why(slide, mpp=1.5, min_tissue=0.5) == ("slides without a small level to look for tissue", "problem")


def test_wrong_options() -> None:
    with raises_error("KD-SRC-345", where="here"):
        plan(mpp=0.5, magnification=20)
    for wrong in ({"mpp": 0}, {"tile_size": 0}, {"min_tissue": 1.5}, {"magnification": -1}, {"slide_mpp": 400}):
        with raises_error("KD-SRC-346", mentions=list(wrong)):
            plan(**wrong)
