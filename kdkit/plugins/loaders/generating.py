"""Vision-language models as teachers: next-token distributions along a sample's answer, and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import MAX_ANSWER, Answer, Decoding, Sample, SignalSpec
from kdkit.core.contracts.token_signals import HIDDEN, NAMED, token_signals, token_specs
from kdkit.plugins.students.clinkd.create import create_student
from kdkit.plugins.students.clinkd.folder import SAVED
from kdkit.plugins.students.clinkd.settings import WHERE
from kdkit.plugins.students.clinkd.student import ClinkdStudent


class GeneratingTeacher(nn.Module):
    """Fulfils ``contracts.SignalSource`` and ``contracts.Answering``.

    Signals per sample, with A = ``max_answer``: ``tokens`` (A,), the ids of its answer, then -100; ``topk_ids`` and
    ``topk`` (A, k), the most likely tokens and their log-probabilities; ``tail`` (A, 10), the log mass of all others
    and its slope at five temperatures. A token takes 4 + 6 k + 20 bytes: 408 for k = 64.

    With ``hidden``, also ``answer_hidden`` (A, H), the states that predict these tokens, then zeros: 2 H bytes per
    token, 7 KB for Qwen2-VL-7B.

    Args:
        model: reads prompts and images.
        k: tokens of the top-k.
        hidden: whether to give the states.
    """

    def __init__(self, model: ClinkdStudent, *, k: int, hidden: bool = False) -> None:
        super().__init__()
        self.model, self.hidden = model, hidden
        self.k = min(k, model.head.out_features)

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        places = self.model.settings.max_answer
        states = (SignalSpec(HIDDEN, (places, self.model.outputs[HIDDEN])),) if self.hidden else ()
        return (*token_specs(places, self.k), *states)

    def identity(self) -> Mapping[str, str]:
        answer = f"{self.k} named, mass of others at 5 temperatures{', states' * self.hidden}"
        return {**self.model.identity(), "answer": answer}

    def check_answer(self, sample: Sample) -> None:
        """``contracts.ChecksAnswers``."""
        self.model.check_answer(sample)

    def answer_tokens(self, sample: Sample) -> list[int] | None:
        """``core.token_signals.SplitsAnswers``."""
        return self.model.answer_tokens(sample)

    def prepare(self, image: Image, sample: Sample) -> Mapping[str, Tensor]:
        return self.model.prepare(image, sample)

    def compute(self, items: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """B items -> the signals, (B, *shape), on the CPU."""
        device = self.model.head.weight.device
        inputs = {name: torch.stack([item[name] for item in items]).to(device) for name in items[0]}
        with torch.inference_mode():
            outputs = self.model(inputs)
            states = {HIDDEN: outputs[HIDDEN].cpu()} if self.hidden else {}
            return {**token_signals(outputs, self.k), **states}

    def answer(
        self, images: Sequence[Image], samples: Sequence[Sample], decoding: Decoding | None = None
    ) -> list[list[Answer]]:
        """See the contract."""
        return self.model.answer(images, samples, decoding)


def load_generating(
    folder: Path,
    *,
    k: int = NAMED,
    hidden: bool = False,
    max_answer: int | None = None,
    max_tokens: int | None = None,
    **settings: Any,
) -> GeneratingTeacher:
    """A teacher from a folder of a model of a known family, or of a student of family ``clinkd``.

    Args:
        folder: with ``config.json``, weights, tokenizer and, for a published model, its image settings.
        k: most likely tokens to store per answer token, at least 1.
        hidden: also give the states at the answer's tokens, for ``answer-vkd``; they are large.
        max_answer, max_tokens: limits of the answer, and of prompt with image and answer; by default those of a saved
            student, else 128 and 2048.
        settings: other settings of a ``clinkd`` student that change the model's input (``question``, ``system``,
            ``min_pixels``, ``max_pixels``, ``max_images``, ``dtype``, ``boxes``, ``attn_implementation``).

    Raises:
        KdkitError: k is below 1; errors of the student's factory.
    """
    if k < 1:
        raise KdkitError("KD-LOAD-019", "k must be at least 1", where="options.k", fix="remove it for the default")
    saved = (folder / SAVED).is_file()
    for name, given, default in (("max_answer", max_answer, MAX_ANSWER), ("max_tokens", max_tokens, 2048)):
        if given is not None or not saved:
            settings[name] = default if given is None else given
    try:
        model = create_student(init=str(folder), **settings)
    except KdkitError as error:
        if not error.where.startswith(WHERE):
            raise
        raise error.at(error.where.replace(WHERE, "options", 1)) from error  # of this teacher, not of the student
    return GeneratingTeacher(model.eval(), k=k, hidden=hidden)
