"""BoxCodec: what families write is read, written again within half a unit, and refused where it makes no sense."""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.answers.boxes.codec import FAMILIES, Box, BoxCodec
from kdkit.plugins.answers.boxes.scoring import written_boxes
from tests.errors import raises_error

SIZE = (420, 308)
UNIT: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("qwen-vl", "qwen2-vl", "qwen3-vl", "internvl"), (1e-3, 1e-3)),
    "qwen2.5-vl": (1 / SIZE[0], 1 / SIZE[1]),
    "json": (1e-4, 1e-4),
}


def codec(family: str) -> BoxCodec:
    return BoxCodec(family, SIZE if family == "qwen2.5-vl" else None)


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("qwen-vl", "<ref>liver</ref><box>(100,250),(500,750)</box>"),
        ("qwen2-vl", "<|object_ref_start|>liver<|object_ref_end|><|box_start|>(100,250),(500,750)<|box_end|>"),
        ("qwen2.5-vl", '[{"bbox_2d": [42, 77, 210, 231], "label": "liver"}]'),
        ("qwen3-vl", '[{"bbox_2d": [100, 250, 500, 750], "label": "liver"}]'),
        ("internvl", "<ref>liver</ref><box>[[100, 250, 500, 750]]</box>"),
        ("json", '[{"box": [0.1, 0.25, 0.5, 0.75], "label": "liver"}]'),
    ],
)
def test_notation_of_each_family(family: str, text: str) -> None:
    wanted = Box(0.1, 0.25, 0.5, 0.75, "liver")
    assert codec(family).emit([wanted]) == text
    (found,) = codec(family).parse(text)
    assert found.corners == pytest.approx(wanted.corners)
    assert found.label == "liver"


fraction = st.floats(0, 1, allow_nan=False)


@st.composite
def boxes(draw: Any) -> Box:
    (x1, x2), (y1, y2) = (sorted(draw(st.tuples(fraction, fraction))) for _ in range(2))
    width = 0.01  # wider than any unit, so that rounding leaves an area
    x1, y1 = min(x1, 1 - width), min(y1, 1 - width)
    return Box(x1, y1, max(x2, x1 + width), max(y2, y1 + width), draw(st.sampled_from(["", "left lung", "Tumour 2"])))


@pytest.mark.parametrize("family", FAMILIES)
@given(given_boxes=st.lists(boxes(), min_size=1, max_size=4))
def test_written_and_read_again_a_box_is_within_half_a_unit(family: str, given_boxes: list[Box]) -> None:
    found = codec(family).parse(f"It is here: {codec(family).emit(given_boxes)}.")
    assert len(found) == len(given_boxes)
    for before, after in zip(given_boxes, found, strict=True):
        for number, (a, b) in enumerate(zip(before.corners, after.corners, strict=True)):
            assert abs(a - b) <= UNIT[family][number % 2] / 2 + 1e-9


@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(FAMILIES, 2)))
def test_from_family_to_family(old: str, new: str) -> None:
    wanted = [Box(0.1, 0.25, 0.5, 0.75, "liver"), Box(0.2, 0.5, 0.6, 1.0, "liver")]
    text = f"The liver {codec(old).emit(wanted)} is enlarged; (see) [also] {{this}}."
    made = codec(old).reencode(text, codec(new))
    assert made.startswith("The liver ")
    assert made.endswith(" is enlarged; (see) [also] {this}.")
    for before, after in zip(wanted, codec(new).parse(made), strict=True):
        assert after.corners == pytest.approx(before.corners, abs=0.004)
        assert after.label == "liver"


def test_a_text_without_boxes_is_unchanged() -> None:
    for family in FAMILIES:
        assert codec(family).parse("No [lesion] (at all), {really} 3,4") == []
        assert codec(family).reencode("No lesion", codec("json")) == "No lesion"


def test_labels_belong_to_the_boxes_behind_them() -> None:
    text = "<ref>cyst</ref><box>(1,2),(3,4)</box><box>(5,6),(7,8)</box> and <box>(1,1),(2,2)</box>"
    assert [box.label for box in codec("qwen-vl").parse(text)] == ["cyst", "cyst", ""]
    assert codec("qwen-vl").reencode(text, codec("qwen-vl")) == text


def test_json_in_a_code_fence_and_alone() -> None:
    fenced = 'Here:\n```json\n[\n\t{"bbox_2d": [0, 0, 500, 500], "label": "cyst"}\n]\n```'
    assert codec("qwen3-vl").parse(fenced) == [Box(0, 0, 0.5, 0.5, "cyst")]
    assert codec("qwen3-vl").reencode(fenced, codec("qwen-vl")) == ("Here:\n<ref>cyst</ref><box>(0,0),(500,500)</box>")
    assert codec("qwen3-vl").parse('{"bbox_2d": [0, 0, 500, 500]}') == [Box(0, 0, 0.5, 0.5)]


@pytest.mark.parametrize(
    ("family", "text", "id", "why"),
    [
        ("qwen-vl", "<box>(10,10),(1240,90)</box>", "KD-ANS-006", "1000 x 1000"),
        ("qwen-vl", "<box>(-1,10),(20,90)</box>", "KD-ANS-006", "1000 x 1000"),
        ("qwen2.5-vl", '[{"bbox_2d": [0, 0, 421, 30]}]', "KD-ANS-006", "420 x 308"),
        ("json", '[{"box": [0, 0, 421, 30]}]', "KD-ANS-006", "1 x 1"),
        ("qwen-vl", "<box>(20,20),(10,90)</box>", "KD-ANS-007", ""),
        ("qwen-vl", "<box>(20,20),(20,90)</box>", "KD-ANS-007", ""),
        ("qwen2-vl", "<box>(1,2),(3,4)</box>", "KD-ANS-005", "qwen-vl"),
        ("qwen-vl", "<|box_start|>(1,2),(3,4)<|box_end|>", "KD-ANS-005", "qwen2-vl"),
        ("qwen-vl", '{"bbox_2d": [1, 2, 3, 4]}', "KD-ANS-005", "qwen2.5-vl and qwen3-vl"),
        ("qwen3-vl", '[{"box": [0, 0, 1, 1]}]', "KD-ANS-005", "json"),
        ("qwen2-vl", "at (1,2),(3,4)", "KD-ANS-005", ""),
        ("qwen-vl", "<box>(1,2),(3)</box>", "KD-ANS-005", "four numbers"),
        ("qwen-vl", "<box>[[1, 2, 3, 4]]</box>", "KD-ANS-005", "internvl"),
        ("internvl", "<box>[[1, 2, 3]]</box>", "KD-ANS-005", "four numbers"),
        ("qwen3-vl", '[{"bbox_2d": [1, 2, 3]}]', "KD-ANS-005", "four numbers"),
    ],
)
def test_invalid_boxes_are_refused(family: str, text: str, id: str, why: str) -> None:
    with raises_error(id, where="train.json:7", mentions=(why,)):
        codec(family).parse(f"here: {text}", where="train.json:7")


def test_invalid_codecs_are_refused() -> None:
    with raises_error("KD-ANS-001", mentions=("'qwen4-vl'",)):
        BoxCodec("qwen4-vl")
    with raises_error("KD-ANS-002"):
        BoxCodec("qwen2.5-vl")
    with raises_error("KD-ANS-002"):
        BoxCodec("qwen3-vl", SIZE)
    with raises_error("KD-ANS-003", mentions=("0", "3")):
        BoxCodec("qwen2.5-vl", (0, 3))
    with raises_error("KD-ANS-006"):
        BoxCodec("qwen-vl").emit([Box(0, 0, 1.5, 1)])
    with raises_error("KD-ANS-004"):
        BoxCodec("qwen-vl").emit([Box(0.1, 0, 0.1004, 1)])


@pytest.mark.parametrize(
    "babble", ["<ref>", "<box>", "[{", "<|object_ref_start|>", '"bbox_2d": [', "(1,2),", "```json\n["]
)
def test_repeated_tags_are_read_in_linear_time(babble: str) -> None:
    """Models that loop write such texts; reading them must not take time that grows with their square."""
    started = time.process_time()
    for family in FAMILIES:
        with suppress(KdkitError):
            codec(family).parse(babble * 4000)
    written_boxes(babble * 4000)
    assert time.process_time() - started < 2
