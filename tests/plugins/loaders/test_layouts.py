"""Known layouts of weights are told apart by names."""

from __future__ import annotations

import pytest

from kdkit.plugins.loaders.layouts import LAYOUTS, describe_mismatch, has_layout, nearest_layout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_nearest_to_itself_even_if_a_weight_is_missing(layout: str) -> None:
    keys = LAYOUTS[layout]
    assert nearest_layout({*keys, "another.weight"}) == layout
    if len(keys) > 2:
        assert nearest_layout(keys[1:]) == layout
    assert [name for name, own in LAYOUTS.items() if has_layout(keys, own)] == [layout]


def test_unknown_weights_are_near_nothing() -> None:
    assert nearest_layout({"encoder.0.weight", "logit_scale"}) == ""


def test_a_mismatch_names_the_first_of_each_kind() -> None:
    expected = {f"a{i}": (2, 2) for i in range(6)} | {"b": (1,), "c": (3,)}
    found = {"a0": (2, 2), "b": (4,), "c": (3,), "x": ()}
    assert describe_mismatch(expected, found) == (
        "missing: a1, a2, a3 and 2 more; unexpected: x; of another shape: b (4,) for (1,)"
    )
    assert describe_mismatch(found, found) == ""
