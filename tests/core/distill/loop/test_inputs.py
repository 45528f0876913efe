"""The student's inputs: the same from memory, decoded ahead or anew, with any number of threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdkit.core.contracts import Sample
from kdkit.core.data.images import open_image
from kdkit.core.distill.loop.inputs import InputCache, InputRows
from tests.core.features.small import index_of, paint, picture_samples
from tests.errors import raises_error
from tests.toys import SIDE, ToyEncoder

COUNT = 12
ROWS = np.array([7, 2, 2, 11, 0])
ROW_BYTES = 3 * SIDE * SIDE + 26 * 4
"""An image as bytes, and the counts of letters."""


def expected(samples: Any, rows: Any) -> dict[str, Tensor]:
    """Without any cache."""
    prepared = [ToyEncoder().prepare(open_image(samples[row]), samples[row]) for row in rows]
    return {name: torch.stack([row[name] for row in prepared]) for name in prepared[0]}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("budget", [0, 3 * ROW_BYTES, 2**30], ids=["nothing", "3 rows", "all"])
@pytest.mark.parametrize("threads", [1, 5])
def test_every_way_gives_the_same_inputs(tmp_path: Path, threads: int, budget: int) -> None:
    samples = picture_samples(tmp_path, COUNT)
    inputs = InputCache(ToyEncoder(), index_of(samples, tmp_path), budget=budget, threads=threads)
    wanted = expected(samples, ROWS)
    assert same(inputs.batch(ROWS, upcoming=InputRows(np.array([7, 3, 3]))), wanted)
    assert same(inputs.batch(np.array([3, 7])), expected(samples, [3, 7]))  # decoded ahead
    assert same(inputs.batch(ROWS), wanted)
    for row in set(ROWS.tolist()):  # four images: the memory of three cannot hold all
        paint(tmp_path / f"{row:03}.png", seed=99)
    later = inputs.batch(ROWS)
    assert same(later, wanted) == (budget == 2**30)
    if not budget:
        assert same(later, expected(samples, ROWS))
    inputs.close()


def test_memory_is_counted_in_bytes_of_images(tmp_path: Path) -> None:
    inputs = InputCache(ToyEncoder(), index_of(picture_samples(tmp_path, COUNT), tmp_path), budget=10 * ROW_BYTES)
    assert inputs.expected_bytes(np.arange(4)) == 4 * ROW_BYTES
    assert inputs.expected_bytes(np.arange(COUNT)) == 10 * ROW_BYTES
    inputs.close()


def test_added_samples_replace_those_added_before(tmp_path: Path) -> None:
    samples = picture_samples(tmp_path, COUNT)
    inputs = InputCache(ToyEncoder(), index_of(samples, tmp_path))
    for text in ("one", "another"):
        more = Sample("more", samples[3].image, text, "ct")
        assert inputs.add([more]) == COUNT
        found = inputs.batch(np.array([COUNT, 1]), upcoming=InputRows(np.array([COUNT])))
        assert same(found, expected([*samples, more], [COUNT, 1]))
    inputs.close()


def test_an_unreadable_image_names_its_sample(tmp_path: Path) -> None:
    inputs = InputCache(ToyEncoder(), index_of(picture_samples(tmp_path, COUNT), tmp_path), threads=2)
    (tmp_path / "004.png").write_bytes(b"no image")
    inputs.batch(np.array([1]), upcoming=InputRows(np.array([4])))  # decoding ahead is not the error of this batch
    with raises_error("KD-DATA-001", where=str(tmp_path / "004.png"), mentions=("s004",)):
        inputs.batch(np.array([4, 5]))
    inputs.close()
