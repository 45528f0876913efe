"""What is lost without a source, sample by sample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student_t

from kdkit.core.contracts import DomainScore
from kdkit.core.evaluation.leave_one_out import Explanation, measure_effects
from kdkit.core.evaluation.metrics import mean_interval, paired_difference
from kdkit.core.evaluation.run_comparison import training_noise
from kdkit.core.evaluation.scores import Evaluation, ModelScores

SAMPLES = 40


def evaluation(**right: Any) -> Evaluation:
    """A student's evaluation; ``right`` maps a domain to the outcomes of its samples."""
    scores = {
        domain: DomainScore(
            domain=domain,
            count=SAMPLES,
            metrics={"accuracy": float(np.mean(values))},
            intervals={"accuracy": (0.0, 1.0)},
            ids=tuple(f"{domain}-{number}" for number in range(SAMPLES)),
            outcomes={"accuracy": np.asarray(values, dtype=np.float64)},
        )
        for domain, values in right.items()
    }
    return Evaluation("calibration", tuple(right), (ModelScores("student", "student", scores, {}, {}),))


def first(count: int) -> np.ndarray[Any, Any]:
    """The first ``count`` of all samples are right."""
    return (np.arange(SAMPLES) < count).astype(np.float64)


def test_the_change_is_that_of_the_same_samples() -> None:
    everything, without = evaluation(ct=first(36), mri=first(30)), evaluation(ct=first(16), mri=first(30))
    (effect,) = measure_effects([everything], {("radio", "teacher"): [without]}, ["ct", "mri"])
    ct, mri = effect.domains["ct"], effect.domains["mri"]
    assert (ct.everything, ct.without, ct.count) == (0.9, 0.4, SAMPLES)
    assert (ct.points, ct.low, ct.high) == pytest.approx([100 * x for x in paired_difference(first(36), first(16))])
    assert (ct.distinguishable, mri.distinguishable) == (True, False)
    assert (mri.points, mri.low, mri.high) == (0, 0, 0)
    mean = mean_interval(np.array([ct.points, 0]), np.array([ct.low, 0]), np.array([ct.high, 0]))
    assert (effect.mean.points, effect.mean.low, effect.mean.high) == pytest.approx(mean)
    assert effect.mean.count == 2 * SAMPLES


def test_seeds_are_averaged_per_sample_and_their_noise_widens_the_interval() -> None:
    everything = [evaluation(ct=first(30)), evaluation(ct=first(20))]
    radio = [evaluation(ct=first(10)), evaluation(ct=first(20))]
    xr = [evaluation(ct=first(30)), evaluation(ct=first(20))]
    found = measure_effects(everything, {("radio", "teacher"): radio, ("xr", "teacher"): xr}, ["ct"])
    ct = found[0].domains["ct"]
    assert (ct.everything, ct.without, ct.points) == pytest.approx((0.625, 0.375, -25))
    noise, _ = training_noise([np.array([-50.0, 0.0]), np.array([0.0, 0.0])])
    assert noise == pytest.approx(student_t.ppf(0.975, 2) * np.sqrt((50**2 / 2 + 0) / 2 / 2))
    images = 100 * np.array(paired_difference((first(30) + first(20)) / 2, (first(10) + first(20)) / 2))
    assert ct.low == pytest.approx(-25 - np.hypot(-25 - images[1], noise))
    assert ct.high == pytest.approx(-25 + np.hypot(images[2] + 25, noise))
    assert (found[1].domains["ct"].low, found[1].domains["ct"].high) == pytest.approx((-noise, noise))
    assert (found[0].mean.low, found[0].mean.high) == pytest.approx((ct.low, ct.high)), "of one domain"


def test_an_explanation_as_a_table_and_as_json() -> None:
    everything = [evaluation(ct=first(36), mri=first(30))]
    without = {
        ("radio", "teacher"): [evaluation(ct=first(16), mri=first(30))],
        ("captions", "texts"): [evaluation(ct=first(36), mri=first(31))],
    }
    effects = measure_effects(everything, without, ["ct", "mri"])  # type: ignore[arg-type]  # kinds are literals
    found = Explanation("v3", "kdkit", 0.25, 30, (0,), effects, "zero-shot")
    table = [line.split() for line in str(found).splitlines()]
    assert [line[0] for line in table[3:6]] == ["ct", "mri", "mean"]
    assert table[1] == ["domain", "without", "radio", "without", "captions", "with", "all,", "%", "images"]
    assert table[3][:1] + table[3][-2:] == ["ct", "90.0", "40"]
    assert table[3].count("~") == 1
    assert table[4].count("~") == 2
    assert (found.too_short, replace(found, version_accuracy=1.0).too_short) == (False, False)
    short = replace(found, version_accuracy=1.1)
    assert short.too_short
    assert "--length" in str(short).splitlines()[-2]
    assert "--seeds" in str(found).splitlines()[-1]
    assert "--seeds" not in str(replace(found, seeds=(0, 1)))
    data = found.to_json()
    assert [source["source"] for source in data["sources"]] == ["radio", "captions"]
    assert [source["kind"] for source in data["sources"]] == ["teacher", "texts"]
    assert data["sources"][0]["domains"][0]["domain"] == "ct"
    assert data["sources"][0]["domains"][0]["points"] == pytest.approx(-50)
    assert set(data["sources"][0]["mean"]) == {
        *("everything", "without", "points", "low", "high", "count", "distinguishable")
    }  # fmt: skip
