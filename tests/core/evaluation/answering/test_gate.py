"""The gate on made outcomes: closed forms, the bound on calibration, and how often it opens without a reason."""

from __future__ import annotations

import numpy as np
import pytest

from kdkit.core.evaluation.answering.gate import LEAST_GROUPS, cross_fit, judge_domain
from kdkit.core.evaluation.answering.names import PLAIN

ALONE = np.arange(40)


def test_a_rule_that_helps_is_used_and_one_that_harms_is_not() -> None:
    right, wrong = np.ones(40), np.zeros(40)
    opened = judge_domain("vg/ct", {PLAIN: wrong, "nearest": wrong, "agreement": right}, ALONE)
    assert (opened.rule, opened.best, opened.points, opened.low) == ("agreement", "agreement", 100, 100)
    assert (opened.before, opened.after, opened.why) == (0.0, 1.0, "helps")
    assert opened.scores == {PLAIN: 0.0, "nearest": 0.0, "agreement": 1.0}
    closed = judge_domain("vg/ct", {PLAIN: right, "nearest": wrong}, ALONE)
    assert (closed.rule, closed.best, closed.points, closed.after) == (PLAIN, PLAIN, 0, 1.0)
    same = judge_domain("vg/ct", {PLAIN: right, "nearest": right}, ALONE)
    assert (same.rule, same.best) == (PLAIN, PLAIN)


def test_few_groups_keep_the_gate_closed() -> None:
    outcomes = {PLAIN: np.zeros(40), "agreement": np.ones(40)}
    few = judge_domain("vg/ct", outcomes, ALONE % (LEAST_GROUPS - 1))
    assert (few.rule, few.groups, few.count) == (PLAIN, LEAST_GROUPS - 1, 40)
    assert few.why == f"too few images or patients: {LEAST_GROUPS - 1} of {LEAST_GROUPS}"
    assert judge_domain("vg/ct", outcomes, ALONE % LEAST_GROUPS).rule == "agreement"


def test_questions_about_one_image_are_one_piece_of_evidence() -> None:
    """Ten questions about each of 20 images: images alone show too little, questions alone would show enough."""
    rng, image = np.random.default_rng(0), np.arange(20)
    effect = (image % 4 == 0) - 0.75 * (image % 5 == 0)
    plain, images = np.full(200, 0.75), np.repeat(image, 10)
    outcomes = {PLAIN: plain, "agreement": plain + effect[images] + rng.normal(0, 1e-3, 200)}
    by_question, by_image = (judge_domain("vg/ct", outcomes, groups) for groups in (np.arange(200), images))
    assert by_question.low > 0 > by_image.low
    assert (by_question.rule, by_image.rule) == ("agreement", PLAIN)


def test_the_choice_of_a_rule_does_not_flatter_it() -> None:
    """Many rules without an effect: the best of them looks good on all samples, but not cross-fitted."""
    rng = np.random.default_rng(3)
    table = {PLAIN: rng.random(60)} | {f"rule {n}": rng.random(60) for n in range(30)}
    found = judge_domain("mia/ct", table, np.arange(60))
    assert found.scores[found.best] > found.before + 0.05
    assert abs(found.points) < 5
    assert found.rule == PLAIN


def test_cross_fitting_by_hand() -> None:
    """Two groups: each gets the rule that is best on the other one. One group gets the plain answer."""
    table = np.array([[0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.9, 0.9]])
    assert cross_fit(table, np.array([7, 7, 9, 9])).tolist() == [2, 2, 1, 1]
    assert cross_fit(table, np.zeros(4)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_the_gate_never_lowers_the_calibration_score(seed: int) -> None:
    """For any outcomes: an open gate gains at least its cross-fitted points there, which are above 0; a closed one
    changes nothing."""
    rng = np.random.default_rng(seed)
    for _ in range(150):
        count, rules = int(rng.integers(1, 120)), int(rng.integers(1, 4))
        groups = rng.integers(0, rng.integers(1, count + 1), count)
        effects = rng.normal(0, 0.3, rules)
        outcomes = {PLAIN: rng.random(count)}
        outcomes |= {f"r{n}": np.clip(rng.random(count) + effect, 0, 1) for n, effect in enumerate(effects)}
        found = judge_domain("vg/ct", outcomes, groups)
        gain = 100 * (outcomes[found.rule].mean() - outcomes[PLAIN].mean())
        assert gain >= (found.points - 1e-9 if found.rule != PLAIN else 0)
        assert gain >= min(found.low, 0)
        assert found.rule in (PLAIN, found.best)
        assert found.rule == PLAIN or found.low > 0


def test_without_an_effect_the_gate_rarely_opens() -> None:
    """Right and wrong answers swap at random: a one-sided test at 2.5 %, and somewhat more with few samples."""
    rng, opened, trials = np.random.default_rng(11), 0, 600
    for _ in range(trials):
        plain = (rng.random(60) < 0.6).astype(float)
        swapped = rng.random(60) < 0.3
        chosen = np.where(swapped, (rng.random(60) < 0.6).astype(float), plain)
        opened += judge_domain("vg/ct", {PLAIN: plain, "agreement": chosen}, np.arange(60)).rule != PLAIN
    assert opened / trials < 0.05
