"""Survival against scikit-survival, called directly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import Sample
from kdkit.core.evaluation.zero_shot import unit_rows
from kdkit.plugins.tasks.survival import Survival
from tests.errors import raises_error
from tests.plugins.tasks.views import Noisy, sample

pytest.importorskip("sksurv")
Array = np.ndarray[Any, Any]


class Graded(Noisy):
    """The first axis of a feature is the hazard of its sample."""

    def image(self, samples: Any) -> Array:
        rows = [self._direction(str(s.image)) * self.noise for s in samples]
        for row, one in zip(rows, samples, strict=True):
            row[0] = one.extra["hazard"]
            row[1] = 3.0
        return unit_rows(np.stack(rows), what="image features")


def patients(count: int, split: str, seed: int, images: int = 1, **more: Any) -> list[Sample]:
    rng = np.random.default_rng(seed)
    found = []
    for n in range(count):
        hazard = float(rng.standard_normal())
        died, left = rng.exponential(np.exp(-hazard)), rng.exponential(2.0)
        facts = {"time": round(float(min(died, left)) + 0.01, 2), "event": int(died <= left), **more}
        for image in range(images):
            name = f"{split}{n}-{image}"
            found.append(sample(name, split=split, group=f"{split}{n}", hazard=hazard, metadata=facts))
    return found


def test_figures_equal_scikit_survivals() -> None:
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.metrics import concordance_index_censored, cumulative_dynamic_auc
    from sksurv.nonparametric import kaplan_meier_estimator
    from sksurv.util import Surv

    train, test = patients(120, "train", 0), patients(90, "test", 1)
    model = Graded(0.5, width=6)
    task = Survival(training=train, components=0, strengths=(1.0,), resamples=50)
    (score,) = task.evaluate(model, test)

    def parts(samples: list[Sample]) -> tuple[Array, Array, Array]:
        facts = [s.extra["metadata"] for s in samples]
        return model.image(samples), np.array([f["event"] == 1 for f in facts]), np.array([f["time"] for f in facts])

    (x, event, time), (rows, died, at) = parts(train), parts(test)
    x, rows = x.astype(np.float64), rows.astype(np.float64)
    scale = np.sqrt(x.var(axis=0).sum() / np.linalg.matrix_rank(x - x.mean(axis=0)))
    direct = CoxPHSurvivalAnalysis(alpha=1.0, ties="efron")
    direct.fit((x - x.mean(axis=0)) / scale, Surv.from_arrays(event, time))
    risk = direct.predict((rows - x.mean(axis=0)) / scale)
    assert score.metrics["c-index"] == pytest.approx(concordance_index_censored(died, at, risk)[0], abs=1e-6)
    for share in (0.25, 0.5, 0.75):
        horizon = np.quantile(at[died], share)
        inside = at < time.max()  # scikit-survival refuses later times
        (expected,), _ = cumulative_dynamic_auc(
            Surv.from_arrays(event, time), Surv.from_arrays(died[inside], at[inside]), risk[inside], horizon
        )
        later = score.metrics[f"auc at {100 * share:g} % of events"]
        assert later == pytest.approx(expected, abs=0.02 if not inside.all() else 1e-6)
    high = risk > np.median(direct.predict((x - x.mean(axis=0)) / scale))
    curve = next(curve for curve in score.curves if curve.name == "high risk")
    own_time, survival, bounds = kaplan_meier_estimator(died[high], at[high], conf_type="log-log")
    assert (curve.x, curve.count) == (tuple(own_time), int(high.sum()))
    assert curve.y == pytest.approx(tuple(survival), abs=1e-6)
    assert curve.low == pytest.approx(tuple(bounds[0]), abs=1e-6)
    low, upper = score.intervals["c-index"]
    assert low < score.metrics["c-index"] < upper
    assert score.metrics["c-index"] > 0.65


def test_images_of_a_patient_are_one_and_the_penalty_is_chosen_on_calibration() -> None:
    training = [*patients(80, "train", 0, images=2), *patients(40, "calibration", 2, images=2)]
    task = Survival(training=training, resamples=20)
    (score,) = task.evaluate(Graded(0.5, width=6), patients(30, "test", 1, images=3))
    assert (score.count, len(score.ids), score.groups) == (30, 30, 0)
    assert not any("not chosen" in note for note in score.notes)


@pytest.mark.parametrize(
    ("facts", "id"), [({"time": -1}, "KD-EVAL-233"), ({"time": "soon"}, "KD-EVAL-233"), ({"event": 2}, "KD-EVAL-234")]
)
def test_what_is_no_follow_up_is_refused(facts: dict[str, Any], id: str) -> None:
    wrong = patients(3, "test", 1, **facts)
    with raises_error(id):
        Survival(training=patients(9, "train", 0)).evaluate(Graded(0.5), wrong)


def test_a_patient_with_two_times_or_in_two_splits_is_refused() -> None:
    train, test = patients(9, "train", 0, images=2), patients(9, "test", 1)
    train[1].extra["metadata"] = {**train[1].extra["metadata"], "time": 99}  # type: ignore[index]
    with raises_error("KD-EVAL-232"):
        Survival(training=train).evaluate(Graded(0.5), test)
    shared = [sample("x", split="test", group="train0", hazard=0.0, metadata={"time": 1, "event": 1})]
    with raises_error("KD-EVAL-014"):
        Survival(training=patients(9, "train", 0)).evaluate(Graded(0.5), [*test, *shared])


def test_without_an_event_nothing_can_be_fitted() -> None:
    task = Survival(training=patients(9, "train", 0, event=0))
    test = patients(5, "test", 1)
    assert task.evaluate(Graded(0.5), test) == []
    assert "event" in task.why_skipped(test)


def test_one_training_patient_or_equal_features_give_no_model() -> None:
    class Equal(Graded):
        def image(self, samples: Any) -> Array:
            return np.full((len(samples), self.width), self.width**-0.5, dtype=np.float32)

    train, test = patients(30, "train", 0), patients(30, "test", 1)
    one = next([s] for s in train if s.extra["metadata"]["event"])
    assert Survival(training=one).evaluate(Graded(0.5), test) == []
    assert "one training patient" in Survival(training=one).why_skipped(test)
    (score,) = Survival(training=train, resamples=20).evaluate(Equal(0.5), test)
    assert score.metrics["c-index"] == 0.5
