"""Boxes in answers: the published rule with its quirks beside the one-to-one rule."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.plugins.answers.boxes.scoring import overlap, score_boxes, written_boxes


def box(*corners: float) -> str:
    x1, y1, x2, y2 = (f"{value:g}" for value in corners)
    return f"<box>({x1},{y1}),({x2},{y2})</box>"


TWO = box(0, 0, 100, 100) + box(10, 0, 110, 100)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("<ref>a</ref><box>(1,2),(3,4)</box> and <box>(5, 6), (7.5, 8)</box>", [(1, 2, 3, 4), (5, 6, 7.5, 8)]),
        ("<|box_start|>(1,2),(3,4)<|box_end|>", [(1, 2, 3, 4)]),
        ("<box_start>(1,2),(3,4)<box_end>", [(1, 2, 3, 4)]),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5,6,7,8]}]', [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("it is at (587,126),(789,217).", [(587, 126, 789, 217)]),
        ("it is at (587, 126), (789, 217).", []),  # the published fallback takes no spaces
        ("<box>(1,2),(3,4),(9,9),(9,9)</box>", [(1, 2, 3, 4)]),
        ("<box>somewhere</box> (1,2),(3,4)", [None]),
        ("<box>(1,2),(3)</box>", [None]),
        ("nothing", []),
    ],
)
def test_boxes_in_answers(text: str, boxes: list[tuple[float, ...] | None]) -> None:
    assert written_boxes(text) == boxes


def test_overlaps() -> None:
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0
    unit = (0.0, 0.0, 1.0, 1.0)
    for odd in ((0, 0, 0, 1), (1, 1, 0, 0), (1, 0, 0, 1), (math.nan, 0, 1, 1), (0, 0, math.inf, 1), None):
        assert overlap(odd, unit) == overlap(unit, odd) == overlap(odd, odd) == 0


corner = st.integers(0, 20)
corners = st.tuples(corner, corner, corner, corner)


@given(st.tuples(corner, corner, corner, corner), st.tuples(corner, corner, corner, corner))
def test_overlap_counts_cells(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> None:
    def cells(c: tuple[int, int, int, int]) -> set[tuple[int, int]]:
        return set(itertools.product(range(c[0], c[2]), range(c[1], c[3])))

    both = cells(a) & cells(b)
    wanted = len(both) / len(cells(a) | cells(b)) if both else 0
    assert overlap(a, b) == pytest.approx(wanted) == overlap(b, a)


def test_one_box_serves_two_targets_as_published_and_one_strictly() -> None:
    hits = score_boxes(box(5, 0, 105, 100), TWO)
    assert (hits.targets, hits.found, hits.published, hits.strict) == (2, 1, 2, 1)
    both = score_boxes(box(5, 0, 105, 100) + box(0, 0, 100, 100), TWO)
    assert (both.published, both.strict) == (2, 2)
    assert both.overlap == pytest.approx(1 + 95 / 105)


def test_the_strict_rule_finds_the_best_matching() -> None:
    """The first box fits both targets, the second the first alone: taking the first greedily would lose one."""
    targets = box(0, 0, 10, 10) + box(3, 0, 13, 10)
    answer = box(1.5, 0, 11.5, 10) + box(-2, 0, 8, 10)
    assert score_boxes(answer, targets).strict == 2


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (box(0, 0, 100, 100), 0.5),  # one of two
        (box(10, 0, 110, 100), 0.5),  # the other one
        (TWO, 1.0),
        (box(10, 0, 110, 100) + box(0, 0, 100, 100), 1.0),  # in any order
        (TWO + box(500, 500, 600, 600), 2 / 3),  # extra boxes lower the score
        (box(0, 0, 100, 50), 0.25),  # half of one of two
        (box(5, 0, 105, 100) + box(5, 0, 105, 100), 95 / 105),  # each for one target
        ("nowhere", 0.0),
        (box(100, 100, 0, 0), 0.0),
    ],
)
def test_likeness_is_continuous_and_one_to_one(answer: str, wanted: float) -> None:
    """Two boxes whose left edges are 10 apart, 100 wide and high."""
    assert score_boxes(answer, TWO).alike == pytest.approx(wanted)


@given(st.lists(corners, max_size=3), st.lists(corners, min_size=1, max_size=3))
def test_likeness_is_that_of_the_best_pairs(
    found: list[tuple[int, int, int, int]], targets: list[tuple[int, int, int, int]]
) -> None:
    """Against all ways to pair them."""
    few, many = sorted((found, targets), key=len)
    best = max(
        sum(overlap(a, b) for a, b in zip(few, order, strict=True)) for order in itertools.permutations(many, len(few))
    )
    got = score_boxes("".join(box(*c) for c in found), "".join(box(*c) for c in targets)).alike
    assert got == pytest.approx(best / len(many))


def as_published(answer: str, reference: str) -> int:
    """What BiRD's ``eval_VG`` counts, by its own steps: no guard, any box, more than one half."""
    tag = "<box>(.*?)</box>"
    found = re.findall(tag, answer) or re.findall(r"\(\d+,\d+\),\(\d+,\d+\)", answer)

    def numbers(text: str) -> np.ndarray[Any, Any]:
        return np.array([float(part) for part in re.sub("[()]", "", text).split(",")])

    def hit(target: np.ndarray[Any, Any], box: np.ndarray[Any, Any]) -> bool:
        sides = np.clip(np.minimum(target[2:], box[2:]) - np.maximum(target[:2], box[:2]), 0, None)
        areas = np.prod(target[2:] - target[:2]) + np.prod(box[2:] - box[:2])
        with np.errstate(all="ignore"):
            return bool(sides.prod() / (areas - sides.prod()) > 0.5)

    targets = [numbers(text) for text in re.findall(tag, reference)]
    return sum(any(hit(target, numbers(text)) for text in found) for target in targets)


@given(st.lists(corners, max_size=4), st.lists(corners, min_size=1, max_size=4), st.booleans())
def test_the_published_rule_equals_bird(
    found: list[tuple[int, int, int, int]], targets: list[tuple[int, int, int, int]], tagged: bool
) -> None:
    answer = "".join(box(*c) if tagged else f"({c[0]},{c[1]}),({c[2]},{c[3]})" for c in found)
    reference = "".join(box(*c) for c in targets)
    hits = score_boxes(answer, reference)
    assert hits.published == as_published(answer, reference)
    assert 0 <= hits.strict <= min(hits.published, hits.found)
    assert hits.targets == len(targets)


def test_an_overlap_of_one_half_is_a_miss() -> None:
    assert score_boxes(box(0, 0, 50, 100), box(0, 0, 100, 100)).published == 0
    assert score_boxes(box(0, 0, 51, 100), box(0, 0, 100, 100)).published == 1
    assert score_boxes(box(0, 0, 50, 100), box(0, 0, 100, 100), threshold=0.4).published == 1
    nothing = score_boxes("no lesion", box(0, 0, 1, 1))
    assert (nothing.targets, nothing.found, nothing.published, nothing.overlap) == (1, 0, 0, 0.0)
    assert score_boxes(box(0, 0, 1, 1), "no lesion").targets == 0
