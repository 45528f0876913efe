"""Models side by side, the oracle, JSON, and retention."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import DomainScore, ModelFeatures, Sample, TrustTable
from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.retention import measure_retention
from kdkit.core.evaluation.scores import Evaluation
from tests.core.evaluation.trust.synthetic import Warned
from tests.errors import raises_error

DOMAINS = ("ct", "oct", "skin")
COUNT = 100


class Named:
    """A view without features: :class:`Fixed` knows its scores."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def image(self, samples: Sequence[Sample]) -> np.ndarray[Any, Any]:
        raise AssertionError(len(samples))

    def text(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        raise AssertionError(len(texts))

    def captions(self, samples: Sequence[Sample]) -> np.ndarray[Any, Any]:
        raise AssertionError(len(samples))


class Fixed:
    """A task that returns how many of 100 samples each model gets right."""

    def __init__(self, right: dict[str, dict[str, int]]) -> None:
        self.right = right

    def evaluate(self, view: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        return [
            DomainScore(
                domain=domain,
                count=COUNT,
                metrics={"accuracy": n / COUNT, "auc": 0.5 + n / COUNT / 2},
                intervals={"accuracy": (n / COUNT - 0.05, n / COUNT + 0.05), "auc": (0.5, 1.0)},
                ids=tuple(s.id for s in samples if s.domain == domain),
                outcomes={"accuracy": np.arange(COUNT) < n},
            )
            for domain, n in self.right[view.name].items()
        ]


def data(domains: Sequence[str] = DOMAINS) -> list[Sample]:
    return [
        Sample(f"{domain}{n}", Path("/nowhere.png"), "", domain, "ab"[n % 2], "test")
        for domain in domains
        for n in range(COUNT)
    ]


def trust(accuracy: Any) -> TrustTable:
    values = np.asarray(accuracy, dtype=np.float64)
    count, chance = np.full(3, COUNT), np.full(3, 0.5)
    return TrustTable(("radio", "eye"), DOMAINS, values, values, values, count, chance)


RIGHT = {
    "v1": {"ct": 80, "oct": 90, "skin": 70},
    "radio": {"ct": 95, "oct": 50, "skin": 60},
    "eye": {"ct": 50, "oct": 94, "skin": 62},
}


def evaluation(right: dict[str, dict[str, int]] = RIGHT, **options: Any) -> Evaluation:
    views = [Named(name) for name in right]
    return compare_models(Fixed(right), views[:1], views[1:], data(), **options)


def test_means_and_intervals_over_domains() -> None:
    found = evaluation().model("v1")
    assert found.means["accuracy"] == pytest.approx(0.8)
    assert found.intervals["accuracy"] == pytest.approx((0.8 - 0.05 / 3**0.5, 0.8 + 0.05 / 3**0.5))


def test_the_oracle_is_chosen_on_the_calibration_split() -> None:
    found = evaluation(trust=trust([[0.9, 0.5, 0.7], [0.5, 0.9, 0.6]]))  # skin: radio, though eye tests better
    honest, lucky = found.of_role("oracle")
    assert honest.chosen == {"ct": "radio", "oct": "eye", "skin": "radio"}
    assert honest.means["accuracy"] == pytest.approx((0.95 + 0.94 + 0.60) / 3)
    assert lucky.chosen == {"ct": "radio", "oct": "eye", "skin": "eye"}
    assert found.ratios["v1"]["accuracy"] == pytest.approx(2.4 / (0.95 + 0.94 + 0.60))


def test_the_oracle_and_ratios_skip_unmeasured_domains() -> None:
    nan = float("nan")
    found = evaluation(trust=trust([[0.9, 0.5, nan], [0.5, 0.9, nan]]))
    assert set(found.model("oracle").chosen) == {"ct", "oct"}
    assert found.ratios["v1"]["accuracy"] == pytest.approx((0.8 + 0.9) / (0.95 + 0.94))


def test_a_student_alone_has_no_oracle() -> None:
    found = compare_models(Fixed(RIGHT), [Named("v1")], [], data())
    assert (found.of_role("oracle"), found.ratios) == ((), {})


def test_a_domain_that_cannot_be_scored_is_reported() -> None:
    samples = [
        *data(("ct",)),
        Sample("a", Path("/nowhere.png"), "", "oct", "drusen", "test"),
        Sample("b", Path("/nowhere.png"), "", "skin", None, "test"),
    ]
    reporter = Warned([])
    found = compare_models(Fixed({"v1": {"ct": 80}}), [Named("v1")], [], samples, reporter=reporter)
    assert found.domains == ("ct",)
    oct, skin = reporter.warnings
    assert "'oct'" in oct
    assert "'drusen'" in oct
    assert "'skin'" in skin
    assert set(found.skipped) == {"oct", "skin"}


def test_models_without_a_score_stay() -> None:
    found = compare_models(Fixed({"v1": {}}), [Named("v1")], [], data())
    assert (found.domains, found.model("v1").means, set(found.skipped)) == ((), {}, set(DOMAINS))


def test_json_there_and_back(tmp_path: Path) -> None:
    found = evaluation(trust=trust([[0.9, 0.5, 0.7], [0.5, 0.9, 0.6]]), settings={"logit_scale": 100.0})
    found.save(tmp_path / "evaluation.json")
    text = (tmp_path / "evaluation.json").read_text()
    back = Evaluation.load(tmp_path / "evaluation.json")
    assert json.dumps(back.to_json()) + "\n" == text
    assert back.model("oracle").chosen == found.model("oracle").chosen
    assert back.model("v1").domains["ct"].ids == found.model("v1").domains["ct"].ids
    assert (back.model("v1").domains["ct"].outcomes["accuracy"] == (np.arange(COUNT) < 80)).all()
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


@pytest.mark.parametrize("text", ["", "[]", '{"format": 99}', '{"format": 1, "split": "test"}'])
def test_a_foreign_file_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with raises_error("KD-EVAL-009"):
        Evaluation.load(tmp_path / "evaluation.json")


def test_an_unknown_model_is_an_error() -> None:
    with raises_error("KD-EVAL-008", mentions=("'v9'",)):
        evaluation().model("v9")


# ------------------------------------------------------------------------------ retention


def after(**student: int) -> Evaluation:
    return evaluation({**RIGHT, "v1": student})


def test_an_unchanged_student_keeps_everything() -> None:
    kept = measure_retention(evaluation(), evaluation(), trusted={"radio": ["ct"], "eye": ["oct", "skin"]})
    assert kept.over_tolerance == ()
    assert all((c.points, c.low, c.high) == (0, 0, 0) for c in kept.domains.values())
    assert kept.teachers["radio"].before == kept.teachers["radio"].after == pytest.approx(80 / 95)
    assert kept.teachers["eye"].before == pytest.approx((90 + 70) / (94 + 62))


def test_what_breaks_the_tolerance() -> None:
    kept = measure_retention(evaluation(), after(ct=79, oct=88, skin=60), tolerances={"oct": 3.0})
    assert kept.over_tolerance == ("skin",)  # ct lost exactly the point that it may, oct has a tolerance of its own
    assert kept.domains["ct"].points == pytest.approx(-1)
    assert kept.domains["skin"].significant
    assert kept.mean == pytest.approx(-13 / 3)
    assert kept.worst is kept.domains["skin"]
    both = measure_retention(evaluation(), after(ct=75, oct=88, skin=60))
    assert both.over_tolerance == ("skin", "ct", "oct")
    assert both.domains["oct"].over_tolerance
    assert not both.domains["oct"].significant


def test_domains_that_come_and_go() -> None:
    kept = measure_retention(evaluation(), after(ct=80, oct=90))
    assert (set(kept.domains), kept.not_compared, kept.new_domains) == ({"ct", "oct"}, ("skin",), ())
    grown = measure_retention(after(ct=80), evaluation())
    assert (set(grown.domains), grown.new_domains) == ({"ct"}, ("oct", "skin"))


def test_samples_are_matched_by_id() -> None:
    def with_ids(ids: Sequence[str], right: Sequence[float]) -> Evaluation:
        score = DomainScore("ct", len(ids), {"accuracy": 0.5}, {"accuracy": (0.0, 1.0)}, 0.95, tuple(ids))
        values = {"accuracy": np.array(right)}

        class Task:
            def evaluate(self, view: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
                assert view.name == "v1"
                assert samples
                return [DomainScore(**{**vars(score), "outcomes": values})]

        return compare_models(Task(), [Named("v1")], [], data(("ct",)))

    kept = measure_retention(with_ids("abc", [1, 1, 0]), with_ids("cbz", [1, 0, 0]))
    change = kept.domains["ct"]
    assert (change.count, change.before, change.after, change.points) == (2, 0.5, 0.5, 0.0)
    assert measure_retention(with_ids("ab", [1, 0]), with_ids("cd", [1, 0])).not_compared == ("ct",)


def test_a_teacher_without_a_shared_trusted_domain_is_left_out() -> None:
    kept = measure_retention(evaluation(), after(ct=70), trusted={"radio": ["ct"], "eye": ["oct"], "gone": ["ct"]})
    assert set(kept.teachers) == {"radio"}
    held = kept.teachers["radio"]
    assert held.change == pytest.approx(-10 / 95)
    assert held.low < held.change < held.high


def test_retention_is_json() -> None:
    kept = measure_retention(evaluation(), after(ct=70), trusted={"radio": ["ct"]})
    assert json.loads(json.dumps(kept.to_json(), allow_nan=False))["domains"]["ct"]["points"] == pytest.approx(-10)
    nothing = measure_retention(after(ct=1), after(oct=1))
    assert json.loads(json.dumps(nothing.to_json(), allow_nan=False))["mean"] is None
    assert nothing.worst is None


class Undefined(Fixed):
    """Accuracy has no value on ``ct``, as a c-index without comparable pairs."""

    def evaluate(self, view: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        scores = super().evaluate(view, samples)
        return [replace(s, metrics={}, intervals={}, outcomes={}) if s.domain == "ct" else s for s in scores]


def test_a_domain_where_the_headline_is_undefined_leaves_the_others() -> None:
    views = [Named(name) for name in RIGHT]
    table = trust([[0.9, 0.5, 0.7], [0.5, 0.9, 0.6]])
    found = compare_models(Undefined(RIGHT), views[:1], views[1:], data(), trust=table)
    assert found.model("oracle-on-test").chosen == {"oct": "eye", "skin": "eye"}
    assert found.ratios["v1"]["accuracy"] == pytest.approx((0.9 + 0.7) / (0.94 + 0.60))
    kept = measure_retention(evaluation(), evaluation(), trusted={"radio": DOMAINS})
    assert measure_retention(found, found, trusted={"radio": DOMAINS}).not_compared == ("ct",)
    mixed = measure_retention(
        evaluation(),
        replace(evaluation(), models=(evaluation().models[0], *found.models[1:])),
        trusted={"radio": DOMAINS},
    )
    assert kept.teachers["radio"].domains == DOMAINS
    assert mixed.teachers["radio"].domains == ("oct", "skin")
