"""Rules on made candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from kdkit.core.contracts import Sample
from kdkit.core.evaluation.answering.candidates import CandidateSet
from kdkit.core.evaluation.answering.names import AGREEMENT, NEAREST
from kdkit.core.evaluation.answering.rerank import Reranker
from kdkit.core.evaluation.answering.rules import MostAgreed, NearestText, rules_for
from kdkit.plugins.answers.task import Answers

PICTURE = Image.new("RGB", (4, 4), (255, 0, 0))


class Colors:
    """A dual encoder that knows one color: a text is near if it begins with ``red``, further with every word."""

    embed_dim = 3

    def identity(self) -> Mapping[str, str]:
        return {}

    def preprocess(self, image: Image.Image) -> Tensor:
        return torch.tensor(image.getpixel((0, 0))).float() / 255

    def encode_image(self, pixels: Tensor) -> Tensor:
        return pixels

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(t.startswith("red")), 0.1 * len(t.split()), 0.0] for t in texts])


def sample(domain: str, **extra: str) -> Sample:
    return Sample("s", Path("x.png"), "", domain, extra=extra)


def box(*corners: int) -> str:
    return "<|box_start|>({},{}),({},{})<|box_end|>".format(*corners)


def chosen(rule: MostAgreed | NearestText, question: Sample, answers: Sequence[str]) -> str:
    """What the rule takes among candidates."""
    scores, truncated = rule.score([question], [PICTURE], [answers])
    assert not truncated
    candidates = CandidateSet("s", question.domain, "", tuple((a, None) for a in answers), {"x": tuple(scores[0])})
    return candidates.chosen_by("x").text


def test_the_medoid_of_boxes_is_chosen() -> None:
    """Two boxes near each other and two elsewhere: the one with the highest mean IoU with all others."""
    agreed = MostAgreed(Answers())
    near = [box(100, 100, 300, 300), box(100, 100, 300, 320), box(100, 100, 300, 360)]
    answers = [box(700, 700, 900, 900), near[0], near[1], near[2], "nothing to see"]
    (scores,), _ = agreed.score([sample("vg/ct")], [PICTURE], [answers])
    first = (0 + 200 / 220 + 200 / 260 + 0) / 4
    middle = (0 + 200 / 220 + 220 / 260 + 0) / 4
    last = (0 + 200 / 260 + 220 / 260 + 0) / 4
    assert scores == pytest.approx([0, first, middle, last, 0])
    assert chosen(agreed, sample("vg/ct"), answers) == near[1]


def test_the_majority_wins_and_ties_keep_the_plain_answer() -> None:
    agreed, closed = MostAgreed(Answers()), sample("vqa/ct", answer_type="CLOSED")
    assert chosen(agreed, closed, ["no", "yes", "Yes.", "no", "yes, it is"]) == "yes"
    assert chosen(agreed, closed, ["no", "yes", "yes", "no"]) == "no"
    assert chosen(agreed, closed, ["a", "b"]) == "a"
    assert chosen(agreed, closed, ["alone"]) == "alone"
    assert chosen(agreed, sample("vg/ct"), ["none", "no box", "neither"]) == "none"


def test_a_dual_encoder_chooses_texts_and_no_boxes() -> None:
    nearest = NearestText(Answers(), Reranker("colors", Colors()))
    assert chosen(nearest, sample("mia/ct"), ["blue", "red is it", "red", "blue"]) == "red"
    assert chosen(nearest, sample("vqa/ct", answer_type="CLOSED"), ["red", "no", "no"]) == "no"
    boxes = [box(1, 1, 9, 9), box(500, 500, 600, 600), box(500, 500, 600, 601)]
    assert chosen(nearest, sample("vg/ct"), ["red " + boxes[0], *boxes[1:]]) == boxes[1]
    mixed = [sample("vg/ct"), sample("mia/ct")]
    scores, _ = nearest.score(mixed, [PICTURE] * 2, [boxes, ["blue", "red"]])
    assert scores[0] == MostAgreed(Answers()).score(mixed[:1], [PICTURE], [boxes])[0][0]
    assert scores[1][1] > scores[1][0]


def test_rules_that_a_task_allows() -> None:
    reranker = Reranker("colors", Colors())
    assert [rule.name for rule in rules_for(Answers(), reranker)] == [NEAREST, AGREEMENT]
    assert [rule.name for rule in rules_for(Answers(), None)] == [AGREEMENT]
    assert [rule.name for rule in rules_for(object(), reranker)] == [NEAREST]
    assert rules_for(object(), None) == []
