"""RoPE variants: what the papers demand of positions and frequencies, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.core.contracts import RopeVariant
from kdkit.core.plugin_system.discovery import load_catalogue
from tests.errors import raises_error
from tests.plugins.rope.reference import Piece, released_clinkd, scores, sequence

CATALOGUE = load_catalogue()
NAMES = [entry.spec.name for entry in CATALOGUE.entries("rope") if entry.provider == "kdkit"]
LANGUAGE = [name for name in NAMES if name != "rope-mixed"]
INVERSE = 1e6 ** (-torch.arange(64) / 64)
MIXED_SEQUENCE: tuple[Piece, ...] = (3, (1, 2, 4), 2, (1, 3, 3), (1, 1, 2), 4)

side = st.integers(1, 12)
few = st.integers(0, 6)


def make(name: str, **options: Any) -> RopeVariant:
    variant: RopeVariant = CATALOGUE.make("rope", name, **options)
    return variant


def test_all_variants_are_registered() -> None:
    wanted = {"rope-1d", "rope-2d", "rope-mixed", "mrope", "mrope-interleaved", "videorope", "rope-tv", "mcg-rope"}
    assert set(NAMES) == wanted | {"clinkd-repo"}


# ------------------------------------------------------------------------------------- every variant


@pytest.mark.parametrize("name", LANGUAGE)
def test_text_alone_is_1d_rope(name: str) -> None:
    variant = make(name)
    positions = variant.positions(torch.zeros(9, dtype=torch.int64), [])
    assert torch.equal(positions, torch.arange(9).expand(3, -1).to(positions.dtype))
    assert torch.equal(variant.frequencies(INVERSE).sum(0), INVERSE), "so text turns as in 1-D RoPE, exactly"


@pytest.mark.parametrize("name", NAMES)
def test_scores_depend_on_differences_alone(name: str) -> None:
    variant = make(name)
    modality, grids = sequence(*MIXED_SEQUENCE)
    positions = variant.positions(modality, grids).double()
    torch.manual_seed(0)
    q, k = torch.randn(2, len(modality), 16, dtype=torch.float64)
    shift = torch.tensor([7.5, -3.0, 11.0], dtype=torch.float64)[: len(positions), None]
    before, after = scores(variant, positions, q, k), scores(variant, positions + shift, q, k)
    assert torch.allclose(before, after, atol=1e-12)
    assert not torch.allclose(before, scores(variant, positions * 2, q, k), atol=1e-3)


@pytest.mark.parametrize("name", LANGUAGE)
def test_text_positions_increase_by_one_after_an_image(name: str) -> None:
    """So a model that generates may count on from its last position."""
    modality, grids = sequence(*MIXED_SEQUENCE)
    tail = make(name).positions(modality, grids)[:, -4:]
    assert torch.equal(tail, tail[0, 0] + torch.arange(4).expand(3, -1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pieces", [(0,), (5,), ((1, 2, 2),), ((2, 2, 3), 1), MIXED_SEQUENCE])
def test_dtype_and_shape_do_not_depend_on_the_sequence(name: str, pieces: tuple[Piece, ...]) -> None:
    variant = make(name)
    modality, grids = sequence(*pieces)
    positions = variant.positions(modality, grids)
    axes = len(variant.frequencies(INVERSE))
    assert positions.shape == (axes, len(modality))
    assert positions.dtype == (torch.float64 if name in ("rope-tv", "mcg-rope") else torch.int64)


@pytest.mark.parametrize("name", LANGUAGE)
def test_positions_are_causal(name: str) -> None:
    """What comes later moves nothing that came before, so a sequence may be continued, padded or packed."""
    variant = make(name)
    short, grids = sequence(*MIXED_SEQUENCE)
    long, more = sequence(*MIXED_SEQUENCE, (1, 4, 4), 3)
    assert torch.equal(variant.positions(long, more)[:, : len(short)], variant.positions(short, grids))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("pieces", "grids", "id"),
    [
        ((2, (1, 2, 2), 1), [(1, 2, 3)], "KD-ROPE-008"),
        ((2, (1, 2, 2), 1), [], "KD-ROPE-008"),
        ((2, (1, 1, 2), 1, (1, 1, 2)), [(1, 2, 2)], "KD-ROPE-005"),
        ((2, (1, 2, 2), 1), [(0, 2, 2), (1, 2, 2)], "KD-ROPE-006"),
    ],
)
def test_mismatched_grids_are_refused(
    name: str, pieces: tuple[Piece, ...], grids: list[tuple[int, int, int]], id: str
) -> None:
    with raises_error(id):
        make(name).positions(sequence(*pieces)[0], grids)


# ------------------------------------------------------------------------------------- RoPE-TV, MCG-RoPE


@settings(max_examples=200, deadline=None)
@given(
    before=st.integers(1, 40), h=side, w=side, after=st.integers(1, 9), alpha=st.floats(0, 9), count=st.integers(1, 3)
)
def test_equal_gaps_before_and_after_every_image(
    before: int, h: int, w: int, after: int, alpha: float, count: int
) -> None:
    """Eq. 3, on both axes, for any alpha, w != h, several images, text on both sides."""
    pieces = (before, (1, h, w)) * count + (after,)
    modality, grids = sequence(*pieces)
    positions = make("mcg-rope", alpha=alpha).positions(modality, grids)
    for number in range(count):
        first = (number + 1) * before + number * h * w
        last_text, next_text = positions[0, first - 1], positions[0, first + h * w]
        for axis, n in ((1, h), (2, w)):
            image = positions[axis, first : first + h * w]
            gap = (h * w + 1 - alpha * (n - 1)) / 2
            assert abs(float(image.min() - last_text) - gap) < 1e-9
            assert abs(float(next_text - image.max()) - gap) < 1e-9
            rows = image.reshape(h, w) if axis == 1 else image.reshape(h, w).T
            assert bool((rows == rows[:, :1]).all()), "one position per row, or column"
            steps = rows[:, 0].diff()
            assert torch.allclose(steps, torch.full_like(steps, alpha), atol=1e-9)


@given(
    pieces=st.lists(st.one_of(st.integers(1, 5), st.tuples(st.just(1), side, side)), max_size=6), alpha=st.floats(0, 3)
)
@settings(max_examples=60, deadline=None)
def test_text_is_at_its_index(pieces: list[Piece], alpha: float) -> None:
    """The paper's delta = 0: an image of n tokens takes n places, on every axis."""
    modality, grids = sequence(*pieces)
    positions = make("rope-tv", alpha=alpha).positions(modality, grids)
    text = modality == 0
    assert torch.equal(positions[:, text], torch.arange(len(modality)).expand(3, -1)[:, text].double())


def test_positions_of_worked_examples() -> None:
    """Square images, alpha = 1: gaps of 29 for 8 x 8, 121 for 16 x 16; 12 x 20: 115 on rows, 111 on columns."""
    for h, w, gaps in ((8, 8, (29, 29)), (16, 16, (121, 121)), (12, 20, (115, 111))):
        modality, grids = sequence(1, (1, h, w), 1)
        image = make("mcg-rope").positions(modality, grids)[:, 1:-1]
        assert tuple(float(image[axis].min()) for axis in (1, 2)) == gaps
    modality, grids = sequence(4, (1, 3, 3), 1)
    filled = make("mcg-rope", alpha=4).positions(modality, grids)
    assert filled[1, 4:13].tolist() == [4] * 3 + [8] * 3 + [12] * 3, "alpha = n + 1 fills the block"


def test_alpha_per_axis() -> None:
    modality, grids = sequence(1, (3, 3, 3), 1)
    image = make("mcg-rope", alpha=[0, 1, 2]).positions(modality, grids)[:, 1:-1]
    assert [float(axis.max() - axis.min()) for axis in image] == [0, 2, 4]
    assert {float(axis.mean()) for axis in image} == {14.0}


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), [1.0, 2.0], [1.0, 1.0, float("inf")]])
def test_invalid_alpha_is_refused(alpha: Any) -> None:
    with raises_error("KD-ROPE-012", mentions=("alpha",)):
        make("mcg-rope", alpha=alpha)


# ------------------------------------------------------------------------------------- the others


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.integers(1, 7), min_size=2, max_size=4), h=side, w=side)
def test_clinkd_repo_equals_the_released_code(texts: list[int], h: int, w: int) -> None:
    pieces: list[Piece] = []
    for number, text in enumerate(texts):
        pieces += [text] if number == len(texts) - 1 else [text, (1, h, w)]
    modality, grids = sequence(*pieces)
    assert torch.equal(make("clinkd-repo").positions(modality, grids), released_clinkd(pieces))
    plain = make("mrope").positions(modality, grids)
    assert torch.equal(make("clinkd-repo", gap=1).positions(modality, grids), plain)


def test_clinkd_repo_in_cases_that_crash_the_released_code() -> None:
    modality, grids = sequence((1, 2, 2), (1, 1, 1), 1)
    assert make("clinkd-repo").positions(modality, grids)[1].tolist() == [0, 0, 1, 1, 3, 5]


def test_positions_written_out() -> None:
    modality, grids = sequence(2, (2, 2, 3), 1)
    mrope = make("mrope").positions(modality, grids)
    assert mrope[0].tolist() == [0, 1, *[2] * 6, *[3] * 6, 5]
    assert mrope[1].tolist() == [0, 1, *[2, 2, 2, 3, 3, 3] * 2, 5]
    assert mrope[2].tolist() == [0, 1, *[2, 3, 4] * 4, 5]
    assert make("rope-1d").positions(modality, grids).tolist() == [list(range(15))] * 3
    video = make("videorope").positions(modality, grids)
    assert video[0].tolist() == [0, 1, *[2] * 6, *[4] * 6, 5]
    assert video[1].tolist() == [0, 1, *[2, 2, 2, 3, 3, 3], *[4, 4, 4, 5, 5, 5], 5]
    assert video[2].tolist() == [0, 1, *[1, 2, 3] * 2, *[3, 4, 5] * 2, 5]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mrope", (16, 24, 24)),
        ("mrope-interleaved", (24, 20, 20)),
        ("videorope", (16, 24, 24)),
        ("rope-2d", (0, 32, 32)),
        ("mcg-rope", (16, 24, 24)),
        ("clinkd-repo", (16, 24, 24)),
    ],
)
def test_shares_of_64_frequencies(name: str, counts: tuple[int, int, int]) -> None:
    assert tuple((make(name).frequencies(INVERSE) > 0).sum(1).tolist()) == counts


def test_order_of_frequencies() -> None:
    def axes(name: str, planes: int, **options: Any) -> list[int]:
        return (make(name, **options).frequencies(INVERSE[:planes]) > 0).int().argmax(0).tolist()

    assert axes("mrope", 8) == [0, 0, 1, 1, 1, 2, 2, 2]
    assert axes("mrope", 8, section=[4, 2, 2]) == [0, 0, 0, 0, 1, 1, 2, 2]
    assert axes("mrope-interleaved", 8) == [0, 1, 2, 0, 1, 2, 0, 0]
    assert axes("videorope", 8) == [1, 2, 1, 2, 1, 2, 0, 0]
    assert axes("rope-2d", 4) == [1, 2, 1, 2]
    assert axes("mcg-rope", 4, layout="axial") == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("name", "options", "id"),
    [
        ("mrope", {"layout": "sectoins"}, "KD-ROPE-002"),
        ("mrope", {"layout": "axial", "section": [1, 1, 1]}, "KD-ROPE-009"),
        ("videorope", {"delta": 0}, "KD-ROPE-010"),
        ("clinkd-repo", {"gap": 0}, "KD-ROPE-011"),
        ("rope-mixed", {"theta": 0}, "KD-ROPE-003"),
    ],
)
def test_invalid_options_are_refused(name: str, options: dict[str, Any], id: str) -> None:
    with raises_error(id):
        make(name, **options)


@pytest.mark.parametrize("section", [[1, 2, 3], [4, 4], [9, 9, -2]])
def test_sections_must_fit_the_head(section: list[int]) -> None:
    with raises_error("KD-ROPE-001", mentions=("16",)):
        make("mrope", section=section).frequencies(INVERSE[:16])


# ------------------------------------------------------------------------------------- RoPE-Mixed


def test_mixed_starts_where_qwens_tower_is() -> None:
    frequencies = make("rope-mixed").frequencies(torch.ones(8), heads=3)
    magnitude = 10_000.0 ** (-torch.arange(0, 16, 4)[:4] / 16)
    assert frequencies.shape == (2, 3, 8)
    assert torch.equal(frequencies[0], torch.cat([magnitude, torch.zeros(4)]).expand(3, -1))
    assert torch.equal(frequencies[1], torch.cat([torch.zeros(4), magnitude]).expand(3, -1))


def test_mixed_as_published() -> None:
    """Magnitudes theta ** (-4 i / d) for both halves, at right angles, and one orientation per head."""
    torch.manual_seed(0)
    frequencies = make("rope-mixed", theta=10.0, rotate=True).frequencies(torch.ones(8), heads=5)
    first, second = frequencies[..., :4], frequencies[..., 4:]
    magnitude = 10.0 ** (-torch.arange(0, 16, 4)[:4] / 16)
    assert torch.allclose(first.norm(dim=0), magnitude.expand(5, -1))
    assert torch.allclose((first * second).sum(0), torch.zeros(5, 4), atol=1e-6)
    angles = torch.atan2(first[1], first[0])
    assert torch.allclose(angles, angles[:, :1].expand(-1, 4), atol=1e-5)
    assert len(set(angles[:, 0].tolist())) == 5


def test_mixed_rotates_only_patches() -> None:
    modality, grids = sequence(1, (1, 2, 2), (2, 1, 2))
    positions = make("rope-mixed").positions(modality, grids)
    assert positions.tolist() == [[0, 0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0, 1, 0, 1]]
    with raises_error("KD-ROPE-004", mentions=("7",)):
        make("rope-mixed").frequencies(torch.ones(7))
