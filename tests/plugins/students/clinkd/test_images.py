"""Sizes of images: those of Qwen's own processor, as long as these keep to the limit."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as stock

from kdkit.plugins.students.clinkd.images import ImageSettings, smart_resize, squared
from tests.plugins.students.clinkd.tiny import make, picture, sample

LIMITS = st.integers(1, 40).map(lambda tokens: tokens * 28 * 28)


@given(width=st.integers(1, 2000), stretch=st.floats(1 / 100, 100), least=LIMITS, most=LIMITS)
def test_sizes_are_those_of_stock_transformers_within_the_limit(
    width: int, stretch: float, least: int, most: int
) -> None:
    height = max(1, round(width * stretch))
    if max(width, height) > 200 * min(width, height):
        return
    settings = ImageSettings.from_config({}, min_pixels=least, max_pixels=most)
    w, h = settings.resized(width, height)
    assert w % 28 == h % 28 == 0
    assert 0 < w * h <= most
    theirs = stock(height, width, 28, min_pixels=settings.min_pixels, max_pixels=most)[::-1]
    assert smart_resize(width, height, unit=28, least=settings.min_pixels, most=most) == theirs
    if theirs[0] * theirs[1] <= most:
        assert (w, h) == theirs


def test_a_picture_that_qwen_makes_too_large() -> None:
    assert stock(60, 30, 28, min_pixels=56 * 56, max_pixels=56 * 56) == (84, 56)
    settings = ImageSettings.from_config({}, max_pixels=56 * 56)
    assert settings.min_pixels == settings.max_pixels
    assert settings.resized(30, 60) == (28, 56)


def test_squares_have_as_many_pixels() -> None:
    assert [squared(picture(*size)).size for size in ((60, 15), (7, 7), (1, 50))] == [(30, 30), (7, 7), (7, 7)]


def test_a_student_of_squared_images() -> None:
    """Its inputs are those of the squared image; another identity, so features of the two never mix."""
    wide, asked = picture(112, 28), sample("lung")
    square, plain = make(square=True), make()
    found, wanted = square.prepare(wide, asked), plain.prepare(squared(wide), asked)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert found["grids"][0].tolist() == [1, 4, 4] != plain.prepare(wide, asked)["grids"][0].tolist()
    assert square.identity()["preprocessing"] != plain.identity()["preprocessing"]
    assert square.config["square"] is True
