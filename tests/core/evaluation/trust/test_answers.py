"""Trust of teachers that answer: strict scores of their stored answers, against a model that ignores the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from kdkit.core.base.journal import JournalEntry
from kdkit.core.contracts import Decoding, Sample
from kdkit.core.data.index import SampleIndex
from kdkit.core.evaluation.trust.answers import blind_score, evidence
from kdkit.core.features import FeatureStore, Header
from kdkit.core.features.extract.answers import ANSWERS, answer_journal
from kdkit.core.project.project import Project
from kdkit.plugins.answers.task import Answers
from kdkit.plugins.policies.policies import Soft, Threshold, TopK
from tests.core.evaluation.trust.synthetic import make_project, measure, table_of

CLOSED, OPEN = {"answer_type": "CLOSED"}, {"answer_type": "OPEN"}
NAMES = ("lung", "liver", "left kidney", "spleen")


def question(number: int, text: str, domain: str, extra: Mapping[str, str] | None = None) -> Sample:
    return Sample(f"{domain} {number}", Path("no.png"), text, domain, None, "calibration", extra=dict(extra or {}))


def closed(count: int, share: float) -> list[Sample]:
    """``count`` yes-or-no questions; ``share`` of them have the answer yes."""
    return [question(n, "yes" if n < share * count else "no", "vqa/ct", CLOSED) for n in range(count)]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path, "version: 1\nstudent: {family: clinkd}\n")


def add_answering(project: Project, table: SampleIndex, name: str, reply: Callable[[Sample], str]) -> None:
    column = FeatureStore(project.features).create(Header(name, f"{len(name):064x}", {}, ()))
    journal = answer_journal(column.folder / ANSWERS, Decoding())
    entries = [JournalEntry(key, {"answer": reply(sample)}) for key, sample in table.keyed(range(len(table)))]
    journal.append(entries)


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_a_teacher_that_always_says_yes_may_not_teach(project: Project, share: float) -> None:
    table = table_of(closed(40, share))
    add_answering(project, table, "parrot", lambda _: "Yes, it is.")
    add_answering(project, table, "reader", lambda sample: f"{sample.text}.\n\nNo other finding.\nNormal.")
    found = measure(project, table, ["parrot", "reader"])
    assert found.accuracy[:, 0].tolist() == [pytest.approx(share), 1.0]
    assert found.chance.tolist() == [pytest.approx(share)]
    for policy in (Soft(), Soft(floor=0.0), TopK(k=2), Threshold(value=share)):
        assert policy(found)[:, 0].tolist() == [0, 1], policy


def test_chance_is_that_of_the_type_of_each_question() -> None:
    """Half of the domain is closed, 3 of 4 with yes; of the open half, half have the answer lung."""
    samples = closed(8, 0.75) + [question(9 + n, NAMES[n % 8 // 4 * (n % 4)], "vqa/ct", OPEN) for n in range(8)]
    assert [s.text for s in samples[8:]].count("lung") == 5
    found = blind_score(Answers(resamples=10), samples, {s.id: s.text for s in samples})
    assert found == pytest.approx((0.75 + 5 / 8) / 2)


def test_yes_or_no_is_a_type_without_a_mark() -> None:
    plain = [Sample(s.id, s.image, s.text, s.domain, None, "calibration") for s in closed(8, 0.75)]
    samples = plain + [question(9 + n, NAMES[n % 2], "vqa/ct") for n in range(8)]
    assert blind_score(Answers(), samples, {s.id: s.text for s in samples}) == pytest.approx((0.75 + 0.5) / 2)


def test_an_answer_of_one_question_is_not_scored_on_it() -> None:
    samples = [question(n, name, "roc/ct") for n, name in enumerate(NAMES)]
    assert blind_score(Answers(resamples=10), samples, {s.id: s.text for s in samples}) == 0.0
    all_names = dict.fromkeys((s.id for s in samples), " ".join(NAMES))
    assert blind_score(Answers(resamples=10), samples, all_names) == 1.0
    assert blind_score(Answers(resamples=10), samples[:1], {samples[0].id: "lung"}) == 1.0  # nothing to compare with


def test_a_fixed_box_is_chance() -> None:
    near = "<box>(100,100),(900,900)</box>"
    boxes = [near, "<box>(100,100),(900,890)</box>", "<box>(0,0),(50,50)</box>", "<box>(120,100),(900,900)</box>"]
    samples = [question(n, box, "vg/ct") for n, box in enumerate(boxes)]
    found = blind_score(Answers(resamples=10), samples, dict.fromkeys((s.id for s in samples), near))
    assert found == pytest.approx(0.75)
    assert np.isfinite(found)


def test_graded_scores_are_more_evidence_than_right_and_wrong() -> None:
    assert evidence(np.array([1, 1, 0, 1])) == pytest.approx(1.0)
    assert evidence(np.ones(5)) == evidence(np.zeros(5)) == 1.0
    graded = np.array([0.8, 0.9, 1.0] * 20)
    assert evidence(graded) == pytest.approx(0.09 / ((60 * 0.02 / 3 + 0.09) / 61))
    assert evidence(np.array([0.9, 0.9])) == pytest.approx(3.0)  # two equal scores are not certain
