"""Trust by captions: the closed form against enumeration, the interval against simulation, the store against loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import SPLITS, Sample
from kdkit.core.data.index import SampleIndex
from kdkit.core.evaluation.evaluator import make_evaluator
from kdkit.core.evaluation.metrics import wilson
from kdkit.core.evaluation.trust.measure import measure_trust
from kdkit.core.evaluation.trust.measurements import SCORES, load_measurements, trust_file
from kdkit.core.evaluation.trust.retrieval import (
    CHANCE,
    LEAST,
    OTHERS,
    evidence,
    hits,
    hits_without_one,
    jackknife_variance,
)
from kdkit.core.features import Column, FeatureStore
from kdkit.core.project.project import Project
from kdkit.core.project.registry.lock import Lock
from tests.core.evaluation.trust.synthetic import Warned, add_teacher, direction, make_project, table_of

Array = np.ndarray[Any, Any]


def pairs(per_split: int = 30, domains: tuple[str, ...] = ("ct", "oct"), repeat: int = 1) -> SampleIndex:
    """Unlabeled samples; ``repeat`` of them in a row share a caption."""
    return table_of(
        [
            Sample(
                id=f"{domain}-{split}-{number}",
                image=Path("/nowhere.png"),
                text=f"finding {number // repeat} of {domain}",
                domain=domain,
                split=split,
            )
            for domain in domains
            for split in SPLITS
            for number in range(per_split)
        ]
    )


def see(table: SampleIndex, noise: dict[str, float], seed: int = 0) -> Array:
    """Image features near the text features of the own caption."""
    rng = np.random.default_rng(seed)
    rows = [3 * direction(s.text) + noise.get(s.domain, 100.0) * rng.normal(size=16) for s in table.samples]
    return np.stack(rows) / 100


def teacher(project: Project, table: SampleIndex, name: str = "radio", seed: int = 0, **noise: float) -> Column:
    return add_teacher(project, table, name, noise={}, image=see(table, noise, seed))


def measure(project: Project, table: SampleIndex, names: tuple[str, ...] = ("radio",), **options: Any) -> Any:
    evaluator = make_evaluator(project.registry, project.catalogue, table)
    store, lock = FeatureStore(project.features), Lock.load(project.lock_path)
    return measure_trust(evaluator, store, lock, names, by="caption", **options)


def test_the_score_is_the_mean_over_all_draws() -> None:
    n = 9
    for r in range(n + 1):
        better = np.arange(n) < r
        draws = [not better[list(chosen)].any() for chosen in combinations(range(n), OTHERS)]
        assert hits(np.array([r]), np.array([n]))[0] == pytest.approx(np.mean(draws))


def test_chance_is_exact() -> None:
    """All ranks are equally likely for a teacher that guesses."""
    for n in (OTHERS + 1, 10, 57):
        assert hits(np.arange(n + 1), np.full(n + 1, n)).mean() == pytest.approx(CHANCE)
    assert np.isnan(hits(np.array([0]), np.array([OTHERS]))).all()


def test_leaving_a_caption_out_equals_counting_again() -> None:
    rng = np.random.default_rng(0)
    others = rng.random((12, 12)) < 0.9
    beaten = others & (rng.random((12, 12)) < 0.3)
    found = hits_without_one(beaten, others)
    for gone in range(12):
        stay = np.arange(12) != gone
        again = hits(beaten[:, stay].sum(1), others[:, stay].sum(1))
        np.testing.assert_allclose(found[:, gone], again)


def test_jackknife_variance_of_a_mean_is_the_usual_one() -> None:
    values = np.random.default_rng(0).random(30)
    assert jackknife_variance(values.sum() - values, np.full(30, 29)) == pytest.approx(values.var(ddof=1) / 30)
    assert evidence(1.0, 0.0, 20, 40) == 0.5  # no more certain than so many captions


@pytest.mark.parametrize(("noise", "hub"), [(1.0, 0.0), (4.0, 0.0), (100.0, 2.0), (2.0, 1.0)])
def test_interval_covers_the_truth(noise: float, hub: float) -> None:
    """Images and captions are drawn anew 200 times; ``hub``: captions that are near to every image."""
    rng = np.random.default_rng(0)

    def scores(n: int) -> tuple[float, float]:
        meant = rng.normal(size=(n, 16))
        image = meant + noise * rng.normal(size=(n, 16))
        similarity = image @ (meant + 0.3 * rng.normal(size=(n, 16))).T / 16 + hub * rng.normal(size=n)
        others = ~np.eye(n, dtype=bool)
        beaten = others & (similarity >= np.diag(similarity)[:, None])
        left = np.where(others, hits_without_one(beaten, others), 0)
        return float(hits(beaten.sum(1), others.sum(1)).mean()), jackknife_variance(left.sum(0), others.sum(0))

    truth, n, inside = np.mean([scores(1000)[0] for _ in range(3)]), 40, 0
    for _ in range(200):
        mean, variance = scores(n)
        trials = n * evidence(mean, variance, n, n)
        low, high = wilson(np.array([mean * trials]), np.array([trials]))
        inside += int(low[0] <= truth <= high[0])
    assert inside >= 0.92 * 200


def test_accuracy_and_scores_equal_plain_loops(tmp_path: Path) -> None:
    project, table = make_project(tmp_path), pairs(repeat=2)
    column = teacher(project, table, ct=1.0, oct=100.0)
    found = measure(project, table, every_sample=True)
    places, scores = column.locate(table), column.scores(SCORES["caption"])
    image, text = (column.gather(signal, places).astype(np.float64) for signal in ("image", "text"))
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    means: dict[str, list[float]] = {"ct": [], "oct": []}
    for row, sample in enumerate(table.samples):
        pool = {
            s.text: text[other]
            for other, s in reversed(list(enumerate(table.samples)))
            if s.split == "calibration" and s.domain == sample.domain and s.text != sample.text
        }
        better = [image[row] @ other >= image[row] @ text[row] for other in pool.values()]
        draws = [not np.array(chosen).any() for chosen in combinations(better, OTHERS)]
        assert scores[places[row]] == pytest.approx(np.mean(draws), abs=1e-6)
        if sample.split == "calibration":
            means[sample.domain].append(float(np.mean(draws)))
    assert found.accuracy[0] == pytest.approx([np.mean(means[domain]) for domain in found.domains])
    assert found.by == "caption"
    assert found.count.tolist() == [30, 30]
    assert found.chance.tolist() == [CHANCE, CHANCE]
    assert (found.lower <= found.accuracy).all()
    assert (found.accuracy <= found.upper).all()
    assert found.lower[0, 0] > CHANCE > found.lower[0, 1]


def test_labels_are_not_read(tmp_path: Path) -> None:
    project, table = make_project(tmp_path), pairs()
    teacher(project, table, ct=1.0)
    before = measure(project, table)
    labeled = table_of([replace(s, label=str(n % 2)) for n, s in enumerate(table.samples)])
    assert (measure(project, labeled).accuracy == before.accuracy).all()


def test_a_group_is_not_compared_with_itself(tmp_path: Path) -> None:
    """The captions of one figure are alike: a teacher that confuses only these is right."""
    table = table_of([replace(s, extra={"group": f"figure {n // 3}"}) for n, s in enumerate(pairs(30).samples)])
    project = make_project(tmp_path)
    for name, index in (("grouped", table), ("single", pairs(30))):
        column = add_teacher(project, index, name, noise={})
        image = column.gather("text", column.locate(index)).astype(np.float64)
        image = np.repeat(image.reshape(-1, 3, 16).mean(1), 3, axis=0)  # one picture for the three captions
        add_teacher(project, index, name, noise={}, image=image, seed=1)
    alone, grouped = measure(project, pairs(30), ("single",)), measure(project, table, ("grouped",))
    assert grouped.accuracy.min() > alone.accuracy.max()
    assert grouped.accuracy.min() > 0.9


def test_a_teacher_whose_features_are_all_equal_is_not_trusted(tmp_path: Path) -> None:
    project, table = make_project(tmp_path), pairs()
    add_teacher(project, table, "flat", noise={}, image=np.ones((len(table), 16)))
    column = FeatureStore(project.features).column("flat")
    assert column.scores("caption").shape == (len(table),)
    found = measure(project, table, ("flat",))
    assert not (found.lower > found.chance).any()


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    project, table, heard = make_project(tmp_path), pairs(), Warned([])
    add_teacher(project, table, "vision", noise={}, images_alone=True, image=see(table, {"ct": 0.1}))
    few = table.select(split="calibration", domains=["ct"])[: LEAST - 1]
    train = table.select(split="train")
    rows = np.sort(np.concatenate([few, table.select(split="calibration", domains=["oct"])[:-3], train]))
    add_teacher(project, table, "part", noise={}, rows=rows, image=see(table, {"oct": 0.5})[rows])
    found = measure(project, table, ("vision", "part"), reporter=heard)
    assert np.isnan(found.accuracy[0]).all()
    assert np.isnan(found.accuracy[1, 0])
    assert found.accuracy[1, 1] > 0.9
    for words in (
        "'vision' has no text features",
        "'part' has features of 9 of 30",
        "'part' lacks features of 3 of 30",
    ):
        assert sum(words in warning for warning in heard.warnings) == 1

    heard = Warned([])
    found = measure(project, pairs(per_split=6), ("part",), reporter=heard)
    assert np.isnan(found.accuracy).all()
    assert sum("6 different captions" in warning for warning in heard.warnings) == 2


def test_scores_are_saved_beside_those_by_labels(tmp_path: Path) -> None:
    project, table = make_project(tmp_path), pairs()
    column = teacher(project, table, ct=1.0)
    first = measure(project, table)
    file = trust_file(project.features)
    assert (load_measurements(file), list(load_measurements(file, "caption"))) == ({}, ["radio"])
    column.put_scores(SCORES["caption"], column.locate(table), np.zeros(len(table), dtype=np.float32))
    assert (measure(project, table).accuracy == first.accuracy).all()
    assert (column.scores(SCORES["caption"]) == 0).all()  # nothing was computed again

    other = table_of([replace(s, text="another " + s.text) if s.id == "ct-calibration-0" else s for s in table.samples])
    other = SampleIndex(other.samples, other.digests + (np.arange(len(other)) == 30).astype(np.uint64), other.may_skip)
    assert measure(project, other).count.tolist() == [29, 30]  # the column has the sample in its earlier state
