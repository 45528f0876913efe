"""A sample's boxes in a model's own coordinates, and back: each conversion moves a corner by at most half a unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.core.contracts import AS_IS, Sample
from kdkit.plugins.answers.boxes.codec import FAMILIES, Box, BoxCodec
from kdkit.plugins.answers.boxes.own import OwnBoxes
from tests.errors import raises_error
from tests.plugins.answers.test_boxes import boxes

GIVEN = tuple(name for name in FAMILIES if name != "qwen2.5-vl")
BOX = "<ref>liver</ref><box>(100,250),(500,750)</box>"
sides = st.integers(2, 40).map(lambda units: 28 * units)


def sample(text: str = "", family: str | None = "qwen-vl", **extra: Any) -> Sample:
    named = {} if family is None else {"box_family": family}
    return Sample(id="s1", image=Path("x.png"), text=text, domain="vg/ct", origin="a.json:7", extra={**named, **extra})


@pytest.mark.parametrize("own", FAMILIES)
@given(st.lists(boxes(), min_size=1, max_size=3), st.sampled_from(GIVEN), st.tuples(sides, sides))
def test_there_and_back(own: str, wanted: list[Box], family: str, size: tuple[int, int]) -> None:
    wanted = [Box(b.x1 / 2, b.y1 / 2, b.x2 / 2 + 0.4, b.y2 / 2 + 0.4, "left lung") for b in wanted]
    before = sample(f"It is {BoxCodec(family).emit(wanted)} here.", family)
    model = OwnBoxes(own)
    written = model.answer(before, [size])
    back = model.from_model(before, written, [size])
    assert (back.startswith("It is "), back.endswith(" here.")) == (True, True)
    found = BoxCodec(family).parse(back)
    units = {"thousand": (1000, 1000), "fractions": (10_000, 10_000), "pixels": size}
    for box, again in zip(wanted, found, strict=True):
        assert again.label == box.label
        for number, (a, b) in enumerate(zip(box.corners, again.corners, strict=True)):
            steps = [units[FAMILIES[name][1]][number % 2] for name in (family, own, family)]
            assert abs(a - b) <= sum(0.5 / step for step in steps) + 1e-9
    if family == own:
        assert written == before.text


def test_questions_and_answers_are_converted() -> None:
    asked = sample(messages=[{"role": "user", "content": f"<image>Here {BOX} and <image>there {BOX}?"}])
    wide, tall = (560, 280), (280, 560)
    (message,) = OwnBoxes("qwen2.5-vl").question(asked, [wide, tall]).extra["messages"]
    first = '[{"bbox_2d": [56, 70, 280, 210], "label": "liver"}]'
    second = '[{"bbox_2d": [28, 140, 140, 420], "label": "liver"}]'
    assert message == {"role": "user", "content": f"<image>Here {first} and <image>there {second}?"}
    assert OwnBoxes("qwen2.5-vl").from_model(asked, second, [wide, tall]) == BOX
    chosen = sample(BOX, box_image=0)
    assert OwnBoxes("qwen2.5-vl").answer(chosen, [wide, tall]) == first
    assert OwnBoxes("qwen2.5-vl").from_model(chosen, first, [wide, tall]) == BOX


def test_undeclared_boxes_are_not_converted() -> None:
    undeclared = sample(BOX, None, messages=[{"role": "user", "content": BOX}])
    for own, declared in (("qwen2.5-vl", undeclared), (AS_IS, sample(BOX, messages=undeclared.extra["messages"]))):
        model = OwnBoxes(own)
        assert model.question(declared, [(56, 56)]) is declared
        assert model.answer(declared, [(56, 56)]) == BOX
        assert model.from_model(declared, '[{"bbox_2d": [1, 2, 3, 4]}]', [(56, 56)]) == '[{"bbox_2d": [1, 2, 3, 4]}]'


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ('[{"bbox_2d": [600, -28, 300, 140]}]', "<box>(2143,-100),(1071,500)</box>"),  # as wrong as before
        ('[{"bbox_2d": [1, 2, 3]}]', '[{"bbox_2d": [1, 2, 3]}]'),
        ('[{"bbox_2d": [NaN, 2, 3, 4]}]', '[{"bbox_2d": [NaN, 2, 3, 4]}]'),
        ('[{"bbox_2d": [1e999, 2, 3, 4]}]', '[{"bbox_2d": [1e999, 2, 3, 4]}]'),
        ('[{"bbox_2d": [1', '[{"bbox_2d": [1'),
        ("<box>(1,2),(3,4)</box>", "<box>(1,2),(3,4)</box>"),
        ("nothing", "nothing"),
    ],
)
def test_malformed_model_output_is_not_refused(said: str, read: str) -> None:
    assert OwnBoxes("qwen2.5-vl").from_model(sample(), said, [(280, 280)]) == read


def test_invalid_boxes_are_refused() -> None:
    model = OwnBoxes("qwen2.5-vl")
    cases = [
        (sample("<box>(100,250),(500,1750)</box>"), "KD-ANS-009"),
        (sample('[{"bbox_2d": [1, 2, 3, 4]}]'), "KD-ANS-009"),
        (sample(BOX, box_image=2), "KD-ANS-009"),
        (sample(BOX, "qwen2.5-vl"), "KD-ANS-011"),
    ]
    for wrong, id in cases:
        with raises_error(id, mentions=("s1",) if id == "KD-ANS-009" else ()) as caught:
            model.answer(wrong, [(280, 280)])
        assert caught.value.where.startswith("a.json:7")
    with raises_error("KD-ANS-009", where="a.json:7"):
        OwnBoxes("qwen-vl").answer(sample("<box>(100,250),(500,1750)</box>"), [(280, 280)])
    with raises_error("KD-ANS-008", mentions=("'qwen9'",)):
        OwnBoxes("qwen9")
