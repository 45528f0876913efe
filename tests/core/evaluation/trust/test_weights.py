"""From a policy to weights, and what is said about gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import TrustTable
from kdkit.core.evaluation.metrics import wilson
from kdkit.core.evaluation.trust import (
    domains_without_teacher,
    policy_weights,
    teachers_without_domain,
    trusted_domains,
    warn_about_gaps,
)
from kdkit.plugins.policies.policies import All, Threshold, TopK
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
    weights = policy_weights(found, Threshold())
    assert weights.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert trusted_domains(found, weights) == {"t0": ("ct",), "t1": ("ct",)}


def test_a_teacher_limited_to_domains_leaves_the_choice_to_others() -> None:
    found = table([[95, 50, 80], [92, 60, 70]])
    assert policy_weights(found, TopK()).tolist() == [[1, 0, 1], [0, 1, 0]]
    assert policy_weights(found, TopK(), limits={"t0": ["oct"]}).tolist() == [[0, 0, 0], [1, 1, 1]]
    everywhere = policy_weights(found, All(unmeasured=True), limits={"t0": ["oct"]})
    assert everywhere.tolist() == [[0, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize("answer", [np.ones((1, 2)), np.full((2, 1), NAN), np.full((2, 1), 1.5), np.full((2, 1), -0.1)])
def test_a_policy_that_breaks_its_contract_is_named(answer: np.ndarray[Any, Any]) -> None:
    def broken(_: TrustTable) -> np.ndarray[Any, Any]:
        return answer

    with raises_error("KD-TRUST-003", where="function") as caught:
        policy_weights(table([[90], [80]]), broken)
    assert caught.value.code is ExitCode.PLUGIN


def test_an_uncovered_domain_says_what_would_change_it() -> None:
    found = table([[95, 86, 20], [92, 60, 10]])
    ct_only = policy_weights(found, Threshold())
    oct_, skin = domains_without_teacher(found, ct_only)
    assert (oct_.domain, oct_.best, oct_.accuracy) == ("oct", "t0", 0.86)
    assert oct_.message == (
        "domain 'oct': no teacher may teach it; the best is t0 with 0.86 (0.78-0.91, chance 0.25). "
        "Policy 'threshold' with value 0.86 would admit it (0.77 on the lower bound), "
        "as would fallback: best, or policy 'top-k'"
    )
    assert "not clearly better than guessing: add a teacher that knows this domain" in skin.message


@pytest.mark.parametrize("correct", range(44, 100, 7))
@pytest.mark.parametrize("on", ["estimate", "lower"])
def test_the_named_threshold_does_admit(correct: int, on: str) -> None:
    found = table([[correct]], count=113)
    (gap,) = domains_without_teacher(found, np.zeros((1, 1)))
    words = gap.message.replace("(", " ").split()
    value = float(words[words.index("value") + 1]) if on == "estimate" else float(words[words.index("on") - 1])
    assert policy_weights(found, Threshold(value=value, on=on)).tolist() == [[1]]


def test_where_only_the_registry_stands_in_the_way_that_is_said() -> None:
    found, limits = table([[95, 96, 20]]), {"t0": ["ct"]}
    weights = policy_weights(found, Threshold(), limits=limits)
    oct_, skin = domains_without_teacher(found, weights, limits)
    assert oct_.message == (
        "domain 'oct': no teacher may teach it; t0 with 0.96 (0.90-0.98, chance 0.25) is limited to other domains "
        "in registry.yaml: change its 'domains', or add a teacher"
    )
    assert "not clearly better than guessing" in skin.message
    nowhere = {"t0": ["dermoscopy"]}
    (idle,) = teachers_without_domain(found, policy_weights(found, Threshold(), limits=nowhere), nowhere)
    assert idle.message.endswith("it was measured in none that the registry lets it teach")


def test_an_unmeasured_domain_is_uncovered() -> None:
    found = table([[95, NAN]])
    (gap,) = domains_without_teacher(found, policy_weights(found, Threshold()))
    assert (gap.domain, gap.best) == ("oct", None)
    assert "could not be measured" in gap.message


def test_a_teacher_that_passes_nowhere_is_named_with_its_best() -> None:
    found = table([[95, 96], [NAN, 70], [NAN, NAN]])
    idle = teachers_without_domain(found, policy_weights(found, Threshold()))
    assert [item.message for item in idle] == [
        "teacher 't1' passes the trust policy in no domain and will teach nothing; its best is 0.70 in 'oct'",
        "teacher 't2' passes the trust policy in no domain and will teach nothing: it was measured in none",
    ]


def test_all_gaps_are_warned_of() -> None:
    found, reporter = table([[95, 50], [40, 50]]), Warned([])
    weights = policy_weights(found, Threshold())
    gaps, idle = domains_without_teacher(found, weights), teachers_without_domain(found, weights)
    warn_about_gaps(gaps, idle, reporter)
    assert reporter.warnings == [gaps[0].message, idle[0].message]
    assert reporter.warnings[0].startswith("domain 'oct': no teacher may teach it; the best is t0 with 0.50")
    assert reporter.warnings[1].startswith("teacher 't1' passes")


def test_many_uncovered_domains_are_one_warning() -> None:
    found, reporter = table([[NAN, 50, NAN]]), Warned([])
    warn_about_gaps(domains_without_teacher(found, np.zeros((1, 3))), (), reporter)
    (warning,) = reporter.warnings
    assert warning.splitlines() == [
        "domains 'ct', 'oct', 'skin': no teacher may teach them",
        "  ct, skin: trust could not be measured there: label or answer some calibration samples",
        "  oct: the best is t0 with 0.50 (0.40-0.60, chance 0.25). Policy 'threshold' with value 0.5 would admit it "
        "(0.4 on the lower bound), as would fallback: best, or policy 'top-k'",
    ]
