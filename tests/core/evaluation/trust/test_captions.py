"""Trust in captions: what they say about the classes, with the teachers' features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import CAPTIONS, Sample, TrustTable
from kdkit.core.data.index import SampleIndex
from kdkit.core.evaluation.evaluator import FeatureEvaluator, make_evaluator
from kdkit.core.evaluation.trust.captions import CaptionTrust
from kdkit.core.evaluation.trust.measure import measure_trust
from kdkit.core.evaluation.trust.measurements import DomainCount
from kdkit.core.features import FeatureStore
from kdkit.core.project.project import Project
from kdkit.core.project.registry.lock import Lock
from tests.core.evaluation.trust.synthetic import CLASSES, add_teacher, make_project, make_table, table_of

NOISE = {"ct": 0.3, "oct": 0.3, "skin": 0.3}


def captioned(caption: Callable[[int, Sample], str]) -> SampleIndex:
    """Sixty training samples a class, with texts by (number, sample)."""
    samples = make_table(per_class=60).samples
    return table_of([replace(s, text=caption(n, s)) if s.split == "train" else s for n, s in enumerate(samples)])


def measured(project: Project, table: SampleIndex) -> TrustTable:
    evaluator = make_evaluator(project.registry, project.catalogue, table)
    store, lock = FeatureStore(project.features), Lock.load(project.lock_path)
    return measure_trust(evaluator, store, lock, ["radio"], captions=True)


def captions_of(root: Path, caption: Callable[[int, Sample], str]) -> dict[str, float]:
    project, table = make_project(root), captioned(caption)
    add_teacher(project, table, "radio", noise=NOISE)
    found = measured(project, table)
    assert found.teachers == ("radio", CAPTIONS)
    return dict(zip(found.domains, found.accuracy[-1].tolist(), strict=True))


def wrong_third(number: int, sample: Sample) -> str:
    labels = CLASSES[sample.domain]
    other = labels[(labels.index(str(sample.label)) + 1) % len(labels)]
    return f"{other if number % 3 == 0 else sample.label} in {sample.domain}"


def test_captions_that_name_the_class(tmp_path: Path) -> None:
    found = captions_of(tmp_path, lambda _, sample: f"a {sample.domain} image that shows {sample.label}, as expected")
    assert min(found.values()) > 0.9


@pytest.mark.parametrize("caption", ["{domain} image number {number}", "-"])
def test_captions_that_name_nothing_do_not_beat_chance(tmp_path: Path, caption: str) -> None:
    """Four of five calibration samples of a domain are of its first class, so a constant answer is often right."""

    def frequent(sample: Sample) -> bool:
        labels = CLASSES[sample.domain]
        return sample.split != "calibration" or sample.label == labels[0] or int(sample.id.split("-")[-1]) < 5

    whole = captioned(lambda number, sample: caption.format(domain=sample.domain, number=number % 7))
    project, table = make_project(tmp_path), table_of([sample for sample in whole.samples if frequent(sample)])
    add_teacher(project, table, "radio", noise=NOISE)
    found = measured(project, table)
    assert found.chance.min() > 0.8
    assert not (found.lower[-1] > found.chance).any()


def test_wrong_captions_average_out(tmp_path: Path) -> None:
    assert min(captions_of(tmp_path, wrong_third).values()) > 0.8


def test_captions_are_measured_once_and_again_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, table = make_project(tmp_path), captioned(lambda _, sample: f"{sample.label}")
    add_teacher(project, table, "radio", noise=NOISE)
    first, calls, measure = measured(project, table), list[int](), CaptionTrust.measure

    def counted(self: CaptionTrust) -> dict[str, DomainCount]:
        calls.append(1)
        return measure(self)

    monkeypatch.setattr(CaptionTrust, "measure", counted)
    assert np.array_equal(measured(project, table).accuracy, first.accuracy)
    assert not calls
    changed = SampleIndex(table.samples, table.digests + np.uint64(1), table.may_skip)
    add_teacher(project, changed, "radio", noise=NOISE, seed=1)
    measured(project, changed)
    assert calls


def test_captions_without_features_of_training_samples_are_not_measured(tmp_path: Path) -> None:
    project, table = make_project(tmp_path), make_table()
    add_teacher(project, table, "radio", noise=NOISE, rows=table.select(split="calibration"))
    assert np.isnan(measured(project, table).accuracy[-1]).all()


def test_captions_are_measured_again_when_vectors_of_prompts_change(tmp_path: Path) -> None:
    """The vectors of a teacher's prompts change under the same fingerprint when an import replaces them."""
    project, table = make_project(tmp_path), captioned(lambda _, sample: f"{sample.label}")
    column = add_teacher(project, table, "radio", noise=NOISE)
    evaluator, store = make_evaluator(project.registry, project.catalogue, table), FeatureStore(project.features)
    assert isinstance(evaluator, FeatureEvaluator)
    domains = {domain: evaluator.prompts[domain] for domain in CLASSES}
    before = CaptionTrust(table, domains, [column]).fingerprint()
    store.put_texts("radio", column.fingerprint, {"of no class": np.ones(16)})
    assert CaptionTrust(table, domains, [store.column("radio")]).fingerprint() == before
    store.put_texts("radio", column.fingerprint, {text: -values for text, values in column.texts.items()})
    assert CaptionTrust(table, domains, [store.column("radio")]).fingerprint() != before
