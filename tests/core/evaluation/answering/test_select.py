"""Selection among several answers with real models: a tiny student and a tiny CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from torch.nn import functional as F

from kdkit.core.base.journal import Journal
from kdkit.core.contracts import Answer, Answering, Decoding, DualEncoder, Sample, Silent
from kdkit.core.evaluation.answering.candidates import SelectedAnswer
from kdkit.core.evaluation.answering.rerank import Reranker
from kdkit.core.evaluation.answering.select import select_answers
from kdkit.core.evaluation.answers import StudentAnswers
from kdkit.core.plugin_system.discovery import load_catalogue
from tests.plugins.students.clinkd.tiny import PICTURES, make, samples
from tests.tiny_models import make_transformers_clip_folder


class Silenced:
    """A model that must not be asked."""

    def answer(self, *_: object) -> Sequence[Sequence[Answer]]:
        raise AssertionError("answered again")


def select(
    model: Answering, samples: list[Sample], decoding: Decoding, reranker: Reranker | None = None
) -> list[SelectedAnswer]:
    """Without resuming: the journal is a new one."""
    keyed = [((sample.id, number), sample) for number, sample in enumerate(samples)]
    with TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "answers.jsonl")
        selected = select_answers(model, keyed, decoding, journal, reranker, Silent())
        assert select_answers(Silenced(), keyed, decoding, journal, reranker, Silent()) == selected
    return selected


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    folder = make_transformers_clip_folder(tmp_path_factory.mktemp("clip") / "model")
    model = load_catalogue().make("loader", "transformers", folder=folder)
    assert isinstance(model, DualEncoder)
    return model


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(PICTURES):
        picture.save(folder / f"{number}.png")
    return [replace(s, image=folder / f"{n}.png") for n, s in enumerate(samples(folder))]


def test_scores_are_the_cosines_of_the_dual_encoder(clip: DualEncoder, asked: list[Sample]) -> None:
    found = select(make(), asked, Decoding(samples=3, seed=1, max_new=8), Reranker("clip", clip))
    assert [one.id for one in found] == [sample.id for sample in asked]
    for one, picture in zip(found, PICTURES, strict=True):
        image = F.normalize(clip.encode_image(clip.preprocess(picture)[None]).float())
        text = F.normalize(clip.encode_text([choice.text for choice in one.answers]).float())
        wanted = (text @ image[0]).tolist()
        assert [choice.score for choice in one.answers] == pytest.approx(wanted, abs=1e-5)
        assert one.chosen == max(range(3), key=wanted.__getitem__)
        assert one.text == one.answers[one.chosen].text


def test_one_answer_equals_greedy_answering(clip: DualEncoder, asked: list[Sample]) -> None:
    student = make()
    plain = StudentAnswers("student", student).answer(asked)
    for reranker in (None, Reranker("clip", clip)):
        found = select(student, asked, Decoding(scored=True), reranker)
        assert [one.text for one in found] == plain
        assert [len(one.answers) for one in found] == [1, 1, 1]
        assert all(one.answers[0].confidence is not None for one in found)


def test_the_seed_determines_drawn_answers(clip: DualEncoder, asked: list[Sample]) -> None:
    def drawn(seed: int) -> list[object]:
        return list(select(make(), asked, Decoding(samples=2, seed=seed, max_new=6), Reranker("clip", clip)))

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)
    beams = select(make(), asked, Decoding(beams=3, max_new=6))
    assert [(one.chosen, len(one.answers), one.answers[0].score) for one in beams] == [(0, 3, None)] * 3
