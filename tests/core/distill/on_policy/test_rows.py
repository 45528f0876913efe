"""Which samples have own answers, and whose trust counts there."""

from __future__ import annotations

import numpy as np

from kdkit.core.distill.on_policy.rows import OwnRows
from kdkit.core.distill.plan.types import Floats


def trust(*values: float) -> Floats:
    return np.array(values, dtype=np.float32)


def test_every_weight_counts_for_one_kind_of_answer() -> None:
    rng = np.random.default_rng(0)
    weights = {name: (rng.random(400) * (rng.random(400) < 0.7)).astype(np.float32) for name in ("live", "old", "mine")}
    given, own = OwnRows(0.4, frozenset({"live", "mine"}), seed=3).split(weights, 7)
    chosen = (own["live"] > 0) | (own["mine"] > 0)
    able = (weights["live"] > 0) | (weights["mine"] > 0)
    assert 0.3 < chosen[able].mean() < 0.5
    assert not chosen[~able].any()
    assert not own["old"].any()
    for name, weight in weights.items():
        assert np.array_equal(given[name], np.where(chosen, 0, weight))
        assert np.array_equal(own[name], np.where(chosen & (name != "old"), weight, 0))


def test_the_draw_is_that_of_the_share_and_a_function_of_the_step() -> None:
    weights = {"live": np.ones(5000, dtype=np.float32)}

    def drawn(share: float, step: int = 0, seed: int = 0) -> Floats:
        return OwnRows(share, frozenset({"live"}), seed).split(weights, step)[1]["live"]

    assert [drawn(share).mean() for share in (0.0, 1.0)] == [0.0, 1.0]
    assert abs(drawn(0.25).mean() - 0.25) < 0.02
    assert np.array_equal(drawn(0.5), drawn(0.5))
    assert not np.array_equal(drawn(0.5), drawn(0.5, step=1))
    assert not np.array_equal(drawn(0.5), drawn(0.5, seed=1))
    assert ((drawn(0.2) > 0) <= (drawn(0.5) > 0)).all()


def test_without_a_scorer_every_answer_is_given() -> None:
    given, own = OwnRows(1.0, frozenset({"gone"}), seed=0).split({"old": trust(1, 0.5)}, 0)
    assert given["old"].tolist() == [1, 0.5]
    assert not own["old"].any()
