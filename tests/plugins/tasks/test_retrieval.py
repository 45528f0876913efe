"""The retrieval task, against plain matrices."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from kdkit.core.contracts import Sample
from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.retention import measure_retention
from kdkit.core.evaluation.scores import Evaluation
from kdkit.plugins.tasks.retrieval import Retrieval
from tests.errors import raises_error
from tests.plugins.tasks.views import Array, Noisy, sample


def distinct(count: int, domain: str = "ct") -> list[Sample]:
    return [sample(f"{domain}{n}", f"finding {n} of {domain}", domain) for n in range(count)]


def test_recall_and_median_rank_are_those_of_a_plain_matrix() -> None:
    samples, view = distinct(120), Noisy(1.6)
    (score,) = Retrieval(resamples=50).evaluate(view, samples)
    cosine = view.image(samples).astype(np.float64) @ view.captions(samples).astype(np.float64).T
    for way, table in (("image-to-text", cosine), ("text-to-image", cosine.T)):
        rank = 1 + (table > np.diag(table)[:, None]).sum(axis=1)
        for k in (1, 5, 10):
            assert score.metrics[f"{way}@{k}"] == (rank <= k).mean()
        assert score.figures[f"median rank {way}"][0] == np.median(rank)
    both = (score.metrics["image-to-text@1"] + score.metrics["text-to-image@1"]) / 2
    assert score.metrics["recall@1"] == pytest.approx(both)
    assert 0.2 < both < 0.95
    assert score.ids == tuple(s.id for s in samples)
    low, high = score.intervals["recall@1"]
    assert low < both < high


def test_over_all_domains_the_candidates_are_more() -> None:
    samples, view = [*distinct(40), *distinct(30, "mri")], Noisy(1.6)
    ct, mri = Retrieval(resamples=20).evaluate(view, samples)
    (alone,) = Retrieval(resamples=20).evaluate(view, samples[:40])
    assert ct.metrics["recall@1"] == alone.metrics["recall@1"]
    assert not alone.pooled
    cosine = view.image(samples).astype(np.float64) @ view.captions(samples).astype(np.float64).T
    rank = 1 + (cosine > np.diag(cosine)[:, None]).sum(axis=1)
    assert ct.metrics["image-to-text@1/all"] == (rank[:40] == 1).mean()
    assert mri.figures["median rank image-to-text/all"][0] == np.median(rank[40:])
    assert set(ct.pooled) == {name for name in (*ct.metrics, *ct.figures) if name.endswith("/all")}


def test_equal_captions_and_several_captions_of_an_image_are_right() -> None:
    one = [sample(f"a{n}", "A nodule." if n % 2 else "a nodule") for n in range(3)]
    two = [sample("b1", "round", image="b.png"), sample("b2", "smooth", image="b.png")]
    samples = [*one, *two, sample("c", "clear")]
    (score,) = Retrieval(resamples=10).evaluate(Noisy(0.05), samples)
    # 'b.png' looks like its first caption; all six are found but 'smooth'
    assert score.metrics["text-to-image@1"] == pytest.approx(5 / 6)
    assert score.count == 6
    assert score.notes[0].startswith("5 images and 4 captions are distinct, of 6 samples")


def test_what_cannot_be_retrieved_is_skipped_with_the_reason() -> None:
    task = Retrieval(resamples=10)
    equal = [sample(f"e{n}", "no finding", "xray") for n in range(5)]
    single = [sample(f"s{n}", f"text {n}", "oct", image="one.png") for n in range(3)]
    blank = [sample("blank", " ", "mri")]
    assert [score.domain for score in task.evaluate(Noisy(1.0), [*equal, *distinct(4), *single, *blank])] == ["ct"]
    assert task.evaluate(Noisy(1.0), equal) == []
    for samples, words in ((equal, "'no finding'"), (single, "one image"), (blank, "has a caption")):
        assert words in task.why_skipped(samples)
    assert task.why_skipped(distinct(4)) == ""


def test_the_interval_is_over_groups() -> None:
    """Samples of a patient are found or not together: the interval is that of the patients."""
    free = distinct(200)
    grouped = [sample(s.id, s.text, group=f"p{n // 20}") for n, s in enumerate(free)]
    widths = []
    for samples in (free, grouped):
        (score,) = Retrieval(resamples=300).evaluate(_ByPatient(), samples)
        low, high = score.intervals["recall@1"]
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


class _ByPatient(Noisy):
    """It knows the images of every other twenty samples."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def image(self, samples: Sequence[Sample]) -> Array:
        rows = super().image(samples)
        lost = np.array([int(s.id[2:]) // 20 % 2 == 1 for s in samples])
        rows[lost] = np.roll(rows[lost], 1, axis=1)
        return rows


def test_a_rank_below_one_is_refused() -> None:
    with raises_error("KD-EVAL-015"):
        Retrieval(at=[0, 5])
    assert Retrieval(at=[20]).at == (1, 20)


def test_comparisons_draw_images_with_all_their_captions() -> None:
    samples = [sample(f"s{n}", f"caption {n}", image=f"{n // 5}.png") for n in range(60)]
    found = compare_models(Retrieval(resamples=50), [Noisy(0.5)], [], samples)
    assert found.groups == {"ct": tuple(n // 5 for n in range(60))}
    back = Evaluation.from_json(json.loads(json.dumps(found.to_json())))
    change = measure_retention(back, back, metric="recall@1").domains["ct"]
    assert (change.count, change.groups) == (60, 12)
