"""Teachers of one class with equal preprocessing share prepared images; others do not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.extraction import extract
from tests.core.features.small import index_of, open_as, picture_samples
from tests.toys import ToyEncoder


class Stated(ToyEncoder):
    """A toy encoder that states its preprocessing and counts its calls."""

    def __init__(self, stated: str, scale: float = 1.0) -> None:
        super().__init__(8)
        self.stated, self.scale, self.calls = stated, scale, 0

    def identity(self) -> Mapping[str, str]:
        return {"preprocessing": self.stated} if self.stated else {}

    def preprocess(self, image: Image.Image) -> Tensor:
        self.calls += 1
        return super().preprocess(image) * self.scale


class Other(Stated):
    """Another class."""


@pytest.mark.parametrize(
    ("second", "calls"),
    [
        (Stated("224 px"), 1),  # one call to compare
        (Stated("336 px"), 12),
        (Stated(""), 12),
        (Other("224 px"), 12),
        (Stated("224 px", scale=0.5), 13),  # its identity is not the whole truth
    ],
    ids=["equal", "another size", "not stated", "another class", "untrue"],
)
def test_equal_preprocessing_runs_once(tmp_path: Path, second: Stated, calls: int) -> None:
    samples = picture_samples(tmp_path / "images", 12)
    (tmp_path / "images" / "000.png").write_bytes(b"no image")
    index = index_of(samples, tmp_path, skip_unreadable=True)
    torch.manual_seed(0)
    first = Stated("224 px")
    both, alone = FeatureStore(tmp_path / "both"), FeatureStore(tmp_path / "alone")
    extract(both, [open_as("first", first), open_as("second", second)], index, batch_size=4)
    assert second.calls == calls - (calls >= 12)  # the first image cannot be read
    extract(alone, [open_as("second", second)], index, batch_size=4)
    one, other = (store.column("second") for store in (both, alone))
    rows = one.locate(index)
    assert (rows >= 0).sum() == 11
    np.testing.assert_array_equal(one.gather("image", rows[1:]), other.gather("image", other.locate(index)[1:]))
