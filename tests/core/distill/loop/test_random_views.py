"""Random views: torchvision's RandomResizedCrop, from numbers of their own; only where no teacher covers a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode  # type: ignore[import-untyped]
from torchvision.transforms.functional import hflip, resized_crop  # type: ignore[import-untyped]

from kdkit.core.contracts import Sample
from kdkit.core.distill.loop.dataloader import DistillDataLoader
from kdkit.core.distill.loop.inputs import InputCache
from kdkit.core.distill.loop.random_views import RandomViews, draw_box, input_size
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.plan.targets import TeacherTargets
from kdkit.core.distill.plan.types import SamplePool
from kdkit.core.project.recipe import AugmentPart
from tests.core.features.small import index_of, picture_samples
from tests.errors import raises_error
from tests.toys import SIDE, ToyEncoder

COUNT, BATCH, STEPS, COVERED = 24, 8, 6, 10
SAMPLE = Sample("s", Path("s.png"), "a scan", "ct")


@pytest.mark.parametrize("flip", [(), ("ct",), ("*",), ("mri",)])
def test_a_view_is_that_of_torchvision(flip: tuple[str, ...]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    views, mirrored = RandomViews(AugmentPart(crop=(0.3, 0.9), flip=flip), (20, 24)), 0
    for number in range(40):
        left, upper, right, lower = draw_box(np.random.default_rng(number), 90, 60, (0.3, 0.9), (0.75, 4 / 3))
        wanted = resized_crop(image, upper, left, lower - upper, right - left, [24, 20], InterpolationMode.BICUBIC)
        found = views.view(image, SAMPLE, number)
        assert found.tobytes() in (wanted.tobytes(), hflip(wanted).tobytes())
        mirrored += found.tobytes() != wanted.tobytes()
    assert (10 < mirrored < 30) if set(flip) & {"ct", "*"} else mirrored == 0


def test_parts_have_the_wanted_area_and_ratio() -> None:
    boxes = [draw_box(np.random.default_rng(n), 400, 300, (0.5, 0.8), (0.75, 4 / 3)) for n in range(300)]
    sizes = np.array([(right - left, lower - upper) for left, upper, right, lower in boxes])
    share, ratio = sizes.prod(axis=1) / (400 * 300), sizes[:, 0] / sizes[:, 1]
    assert 0.49 < share.min() < 0.52
    assert 0.78 < share.max() < 0.81
    assert 0.74 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.34
    assert all(0 <= left < right <= 400 and 0 <= upper < lower <= 300 for left, upper, right, lower in boxes)


@pytest.mark.parametrize(("size", "box"), [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506))])
def test_a_thin_image_gives_its_middle(size: tuple[int, int], box: tuple[int, ...]) -> None:
    assert draw_box(np.random.default_rng(0), *size, (0.9, 1.0), (0.75, 4 / 3)) == box


def batches(folder: Path, *, augmented: bool, start: int = 0, rank: int = 0, world: int = 1) -> list[Any]:
    """A run in which a teacher covers the first samples."""
    index = index_of(picture_samples(folder, COUNT), folder)
    inputs = InputCache(ToyEncoder(), index, views=RandomViews(AugmentPart(crop=(0.2, 0.6)), (SIDE, SIDE)))
    weight = (np.arange(COUNT) < COVERED).astype(np.float32)
    teacher = TeacherTargets("a", {"image": 3}, np.arange(COUNT), weight, lambda _, rows: np.ones((len(rows), 3)))
    sampler = BatchSampler([SamplePool(np.arange(COUNT), index.domain_index)], batch_size=BATCH, steps=STEPS, seed=3)
    loader = DistillDataLoader(
        sampler,
        inputs,
        [teacher],
        index.domain_index,
        one_teacher=False,
        seed=3,
        rank=rank,
        world=world,
        augmented=augmented,
    )
    found = [(sampler[step], batch.inputs["pixels"]) for step, batch in loader.batches(start)]
    inputs.close()
    return found


def test_only_samples_without_a_teacher_are_changed(tmp_path: Path) -> None:
    views: dict[int, list[bytes]] = {}
    for (rows, plain), (_, found) in zip(
        batches(tmp_path, augmented=False), batches(tmp_path, augmented=True), strict=True
    ):
        for row, before, after in zip(rows.tolist(), plain, found, strict=True):
            assert torch.equal(before, after) == (row < COVERED)
            views.setdefault(row, []).append(after.numpy().tobytes())
    assert any(len(seen) > 1 for row, seen in views.items() if row >= COVERED)
    assert all(len({*seen}) == (1 if row < COVERED else len(seen)) for row, seen in views.items())


def test_views_follow_from_seed_step_and_place(tmp_path: Path) -> None:
    whole = [pixels for _, pixels in batches(tmp_path, augmented=True)]
    resumed = [pixels for _, pixels in batches(tmp_path, augmented=True, start=3)]
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], resumed, strict=True))
    shards = [batches(tmp_path, augmented=True, rank=rank, world=2) for rank in range(2)]
    for step, pixels in enumerate(whole):
        assert torch.equal(pixels, torch.cat([shard[step][1] for shard in shards]))


def test_a_student_without_an_image_of_one_size_is_refused() -> None:
    assert input_size({"pixels": torch.zeros(3, 5, 7), "tokens": torch.zeros(4)}) == (7, 5)
    for row in ({"patches": torch.zeros(9, 12)}, {"a": torch.zeros(3, 2, 2), "b": torch.zeros(3, 2, 2)}):
        with raises_error("KD-DIST-221"):
            input_size(row)
