"""Otsu's threshold and the tissue mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdkit.plugins.readers.wsi_files import open_slide
from kdkit.plugins.sources import wsi_tissue
from kdkit.plugins.sources.wsi_tissue import TissueMask, find_tissue, otsu_threshold
from tests.plugins.sources.slide_files import GLASS, tissue_on_glass, write_slide


@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_has_the_smallest_variance_within_both_sides(seed: int) -> None:
    """Otsu's other form: the variance within both sides is smallest, from the values themselves."""
    rng = np.random.default_rng(seed)
    values = np.clip(np.concatenate([rng.normal(20, 6, 900), rng.normal(120, 30, 400)]), 0, 255).astype(np.int64)

    def within(t: int) -> float:
        parts = [part for part in (values[values <= t], values[values > t]) if len(part)]
        return float(sum(part.var() * len(part) for part in parts))

    best = otsu_threshold(np.bincount(values, minlength=256))
    assert within(best) == pytest.approx(min(within(t) for t in range(256)))


def test_tissue_is_found_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = open_slide(write_slide(tmp_path / "a.svs", tissue_on_glass(640, 960, (320, 128, 768, 512))))
    mask = find_tissue(slide, 8)
    assert mask is not None
    assert (mask.scale, mask.tissue.shape) == (8, (80, 120))
    truth = np.zeros((80, 120), dtype=bool)
    truth[16:64, 40:96] = True
    assert (mask.tissue != truth).sum() == 12  # the corners, by the median filter
    monkeypatch.setattr(wsi_tissue, "STRIP_PIXELS", 2000)  # strips of 8 rows
    strips = find_tissue(slide, 8)
    assert strips is not None
    assert np.array_equal(strips.tissue, mask.tissue)
    monkeypatch.setattr(wsi_tissue, "MAX_PIXELS", 1000)
    assert find_tissue(slide, 8) is None


def test_glass_and_black_borders_are_no_tissue(tmp_path: Path) -> None:
    pixels = np.full((320, 320, 3), GLASS, dtype=np.uint8)
    pixels[:, :64] = np.random.default_rng(0).integers(0, 5, (320, 64, 3))
    mask = find_tissue(open_slide(write_slide(tmp_path / "a.svs", pixels)), 8)
    assert mask is not None
    assert not mask.tissue.any()


def test_shares_are_means_of_the_mask() -> None:
    tissue = np.random.default_rng(0).random((20, 30)) < 0.4
    mask = TissueMask(tissue, 4.0)
    corners = np.array([[0, 0], [8, 12], [116, 76], [40, 0]])
    expected = [tissue[:4, :4], tissue[3:7, 2:6], tissue[19:, 29:], tissue[:4, 10:14]]
    assert mask.shares(corners, 16) == pytest.approx([part.mean() for part in expected])
