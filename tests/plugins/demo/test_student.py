"""The students of the demo."""

from __future__ import annotations

import open_clip
import torch

from kdkit.plugins.demo.questions import question_words
from kdkit.plugins.demo.student import create_answerer, model_config


def test_dual_encoder_has_no_batch_statistics() -> None:
    model = open_clip.CLIP(**model_config(128))
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())


def test_answerer_takes_the_options_of_clinkd() -> None:
    student = create_answerer(rope="mcg-rope", max_answer=20)
    again = create_answerer(**student.config)
    assert again.identity() == student.identity()
    assert "mcg-rope" in student.identity()["rope"]


def test_every_word_of_the_answerer_is_one_token() -> None:
    tokens = create_answerer().preparation.tokens
    assert [word for word in question_words() if len(tokens.encode(word)) > 1] == []
    assert len(tokens.encode("<|box_start|>(100,250),(500,750)<|box_end|>")) == 11
