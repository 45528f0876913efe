"""Weights of policies, and the gaps that they leave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import CAPTIONS, TrustTable
from kdkit.core.evaluation.metrics import wilson
from kdkit.core.evaluation.trust.weights import (
    SampleScores,
    TrustGate,
    domains_without_teacher,
    policy_weights,
    teachers_without_domain,
    warn_about_gaps,
)
from kdkit.plugins.policies.policies import All, Evidence, Threshold, TopK
from tests.core.evaluation.trust.synthetic import Warned
from tests.errors import raises_error

NAN = float("nan")


def table(correct: Any, count: int = 100) -> TrustTable:
    values = np.asarray(correct, dtype=np.float64)
    known = np.where(np.isnan(values), 0, count)
    lower, upper = wilson(np.nan_to_num(values), known)
    return TrustTable(
        teachers=tuple(f"t{row}" for row in range(values.shape[0])),
        domains=("ct", "oct", "skin")[: values.shape[1]],
        accuracy=values / count,
        lower=lower,
        upper=upper,
        count=known.max(axis=0),
        chance=np.full(values.shape[1], 0.25),
    )


def test_weights_of_a_policy() -> None:
    found = table([[95, 50, 20], [92, 60, 10]])
    weights = policy_weights(found, Threshold()).teachers
    assert weights.tolist() == [[1, 0, 0], [1, 0, 0]]


def test_a_teacher_limited_to_domains_leaves_the_choice_to_others() -> None:
    found = table([[95, 50, 80], [92, 60, 70]])
    assert policy_weights(found, TopK()).teachers.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert policy_weights(found, TopK(), limits={"t0": ["oct"]}).teachers.tolist() == [[0, 0, 0], [1, 1, 1]]
    everywhere = policy_weights(found, All(unmeasured=True), limits={"t0": ["oct"]})
    assert everywhere.teachers.tolist() == [[0, 1, 0], [1, 1, 1]]


def test_without_a_source_the_next_best_counts_as_the_best() -> None:
    gate = TrustGate(table([[95, 50, 80], [92, 60, 70]]), TopK(k=1), {"t1": ["ct", "oct"]})
    assert gate.weights().teachers.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert gate.weights({"t0"}).teachers.tolist() == [[0, 0, 0], [1, 1, 0]]
    assert gate.weights({CAPTIONS}).captions.tolist() == [0, 0, 0]
    assert gate.weights({CAPTIONS}).teachers.tolist() == gate.weights().teachers.tolist()


def test_without_captions_the_best_teacher_has_the_whole_weight() -> None:
    found = replace(table([[50, 60, 70], [95, 95, 95]]), teachers=("t0", CAPTIONS))
    gate = TrustGate(found, Evidence(), weighs_captions=True)
    assert (gate.weights().teachers < 1).all()
    assert gate.weights().captions.tolist() == [1, 1, 1]
    assert gate.weights({CAPTIONS}).teachers.tolist() == [[1, 1, 1]]
    assert gate.weights({CAPTIONS}).captions.tolist() == [0, 0, 0]
    assert gate.weights({"t0"}).captions.tolist() == [1, 1, 1]


@pytest.mark.parametrize("answer", [np.ones((1, 2)), np.full((2, 1), NAN), np.full((2, 1), 1.5), np.full((2, 1), -0.1)])
def test_a_policy_that_breaks_its_contract_is_named(answer: np.ndarray[Any, Any]) -> None:
    def broken(_: TrustTable) -> np.ndarray[Any, Any]:
        return answer

    with raises_error("KD-TRUST-003", where="function") as caught:
        policy_weights(table([[90], [80]]), broken)
    assert caught.value.code is ExitCode.PLUGIN


def test_a_domain_without_teacher_names_thresholds_that_admit_one() -> None:
    found = table([[95, 86, 20], [92, 60, 10]])
    ct_only = policy_weights(found, Threshold()).teachers
    oct_, skin = domains_without_teacher(found, ct_only)
    assert (oct_.domain, oct_.best, oct_.accuracy) == ("oct", "t0", 0.86)
    assert oct_.admitting_thresholds == (0.86, 0.77)
    assert all(word in oct_.message for word in ("'oct'", "0.86", "0.77", "'top-k'"))
    assert (oct_.beats_guessing, skin.beats_guessing) == (True, False)


@pytest.mark.parametrize("correct", range(44, 100, 7))
@pytest.mark.parametrize("on", ["estimate", "lower"])
def test_the_named_threshold_admits_the_best_teacher(correct: int, on: str) -> None:
    found = table([[correct]], count=113)
    (gap,) = domains_without_teacher(found, np.zeros((1, 1)))
    value = gap.admitting_thresholds[on == "lower"]
    assert policy_weights(found, Threshold(value=value, on=on)).teachers.tolist() == [[1]]


def test_a_teacher_that_the_registry_excludes_is_named() -> None:
    found, limits = table([[95, 96, 20]]), {"t0": ["ct"]}
    weights = policy_weights(found, Threshold(), limits=limits).teachers
    oct_, skin = domains_without_teacher(found, weights, limits)
    assert (oct_.best, oct_.limited, skin.beats_guessing) == ("t0", True, False)
    assert "'domains'" in oct_.message
    nowhere = {"t0": ["dermoscopy"]}
    (idle,) = teachers_without_domain(found, policy_weights(found, Threshold(), limits=nowhere).teachers, nowhere)
    assert (idle.best_domain, idle.limited) == (None, True)
    barred: dict[str, list[str]] = {"t0": []}
    assert not teachers_without_domain(found, policy_weights(found, Threshold(), limits=barred).teachers, barred)


def test_an_unmeasured_domain_has_no_teacher() -> None:
    found = table([[95, NAN]])
    (gap,) = domains_without_teacher(found, policy_weights(found, Threshold()).teachers)
    assert (gap.domain, gap.best) == ("oct", None)


def test_a_teacher_that_passes_nowhere_is_named_with_its_best() -> None:
    found = table([[95, 96], [NAN, 70], [NAN, NAN]])
    idle = teachers_without_domain(found, policy_weights(found, Threshold()).teachers)
    assert [(item.teacher, item.best_domain) for item in idle] == [("t1", "oct"), ("t2", None)]
    assert idle[0].accuracy == 0.7


def test_all_gaps_are_reported() -> None:
    found, reporter = table([[95, 50], [40, 50]]), Warned([])
    weights = policy_weights(found, Threshold()).teachers
    gaps, idle = domains_without_teacher(found, weights), teachers_without_domain(found, weights)
    warn_about_gaps(gaps, idle, reporter)
    assert reporter.warnings == [gaps[0].message, idle[0].message]


def test_many_domains_without_teacher_are_one_warning() -> None:
    found, reporter = table([[NAN, 50, NAN]]), Warned([])
    warn_about_gaps(domains_without_teacher(found, np.zeros((1, 3))), (), reporter)
    (warning,) = reporter.warnings
    named, unmeasured, measured = warning.splitlines()
    assert all(domain in named for domain in ("'ct'", "'oct'", "'skin'"))
    assert unmeasured.startswith("  ct, skin: ")
    assert measured.startswith("  oct: ")


def per_sample(found: TrustTable, values: Any, domain: Any, policy: Any, **options: Any) -> TrustGate:
    scores = SampleScores(np.asarray(values, dtype=np.float32), np.asarray(domain))
    return TrustGate(found, policy, samples=scores, **options)


def test_a_policy_weighs_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each sample were a domain; ``t2`` guesses in every domain, whatever it scores on a sample."""
    monkeypatch.setattr("kdkit.core.evaluation.trust.weights.SAMPLES", 2)
    found = table([[95, 50], [92, 60], [25, 25]])
    values, domain = [[0.95, 0.3, NAN, 0.91], [0.9, 0.99, 0.9, 0.2], [1.0, 1.0, 1.0, 1.0]], [0, 0, 1, 1]
    given = per_sample(found, values, domain, Threshold(value=0.9)).weights()
    assert given.samples is not None
    assert given.samples.tolist() == [[1, 0, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert given.teachers.tolist() == [[0.5, 1], [1, 0.5], [0, 0]]  # means over the samples with a score
    best = per_sample(found, values, domain, TopK(k=1)).weights().samples
    assert best is not None
    assert best.tolist() == [[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_limits_and_missing_sources_hold_per_sample() -> None:
    found, values = table([[95, 50], [92, 60]]), [[0.95, 0.99], [0.9, 0.98]]
    gate = per_sample(found, values, [0, 1], TopK(k=1), limits={"t0": ["ct"]})
    assert gate.weights().samples.tolist() == [[1, 0], [0, 1]]  # type: ignore[union-attr]
    assert gate.weights({"t0"}).samples.tolist() == [[0, 0], [1, 1]]  # type: ignore[union-attr]


def test_captions_weigh_by_domain_beside_teachers_per_sample() -> None:
    found = table([[95, 50], [70, 60]])
    found = replace(found, teachers=("t0", CAPTIONS))
    gate = per_sample(found, [[0.99, 0.1]], [0, 1], Evidence(), weighs_captions=True)
    given = gate.weights()
    assert given.captions.tolist() == TrustGate(found, Evidence(), {}, True).weights().captions.tolist()
    assert given.samples.tolist() == [[1, 0]]  # type: ignore[union-attr]
