"""The generating family in miniature: a student with token logits, a teacher of top-k answer logits, their loss.

It shows that one engine serves both families: the contracts are those of dual encoders, only names and shapes
differ. The answer of a sample is the first ``TOKENS`` words of its text; unknown places are ``PADDING``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from kdkit.core.contracts import Answer, Decoding, DomainScore, LossInput, ModelAnswers, Sample, SignalSpec

TOKENS, VOCABULARY, TOP = 5, 23, 3
PADDING = -1
SIDE = 4


def answer_tokens(text: str) -> Tensor:
    """(TOKENS,) int64 ids in [0, VOCABULARY), ``PADDING`` after the last word."""
    ids = [zlib.crc32(word.encode()) % VOCABULARY for word in text.lower().split()[:TOKENS]]
    return torch.tensor(ids + [PADDING] * (TOKENS - len(ids)))


def pixels_of(image: Image) -> Tensor:
    """(3 * SIDE * SIDE,) float32 in [0, 1]."""
    return torch.from_numpy(np.asarray(image.resize((SIDE, SIDE)), dtype=np.float32).ravel() / 255)


class ToyVlm(nn.Module):
    """A generating student; fulfils ``contracts.Student``. Logits are teacher-forced on the sample's own answer."""

    def __init__(self, hidden: int = 24) -> None:
        super().__init__()
        self.hidden = hidden
        self.see = nn.Linear(3 * SIDE * SIDE, hidden)
        self.read = nn.Embedding(VOCABULARY + 1, hidden)
        self.place = nn.Embedding(TOKENS, hidden)
        self.say = nn.Linear(hidden, VOCABULARY)

    @property
    def outputs(self) -> Mapping[str, int]:
        return {"logits": VOCABULARY}

    @property
    def config(self) -> Mapping[str, Any]:
        return {"hidden": self.hidden}

    def identity(self) -> Mapping[str, str]:
        return {"preprocessing": f"{SIDE}x{SIDE}", "tokenizer": f"crc32 {VOCABULARY}"}

    def prepare(self, image: Image, sample: Sample) -> Mapping[str, Tensor]:
        """``pixels`` (48,) float32 and ``tokens`` (TOKENS,) int64."""
        return {"pixels": pixels_of(image), "tokens": answer_tokens(sample.text)}

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``logits`` (B, TOKENS, VOCABULARY): place t has seen the image and the answer's tokens before t."""
        before = F.pad(inputs["tokens"][:, :-1] + 1, (1, 0))  # id 0 stands for the start and for padding
        state = self.see(inputs["pixels"])[:, None] + self.read(before) + self.place.weight
        return {"logits": self.say(F.gelu(state)), "logit_scale": torch.ones((), device=state.device)}

    def answer(
        self, images: Sequence[Image], samples: Sequence[Sample], decoding: Decoding | None = None
    ) -> list[list[Answer]]:
        """Token by token, greedily; ``contracts.Answering``."""
        assert decoding is None or (decoding.beams, decoding.samples) == (1, 0)
        assert not self.training
        tokens = torch.full((len(samples), TOKENS), PADDING)
        pixels = torch.stack([pixels_of(image) for image in images])
        with torch.no_grad():
            for place in range(TOKENS):
                logits = self({"pixels": pixels, "tokens": tokens})["logits"]
                tokens[:, place] = logits[:, place].argmax(-1)
        return [[Answer(caption_of(row))] for row in tokens]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(self.state_dict()), folder / "toy_vlm.safetensors")
        (folder / "toy_vlm.json").write_text(json.dumps(dict(self.config)), encoding="utf-8")


def make_toy_vlm(**config: Any) -> ToyVlm:
    """Student factory."""
    return ToyVlm(**config)


def load_toy_vlm(folder: Path) -> ToyVlm:
    """Student loader."""
    model = ToyVlm(**json.loads((folder / "toy_vlm.json").read_text(encoding="utf-8")))
    model.load_state_dict(load_file(folder / "toy_vlm.safetensors"))
    return model.eval()


def caption_of(tokens: Tensor) -> str:
    """An answer as text: the numbers of its tokens."""
    return " ".join(str(token) for token in tokens.tolist() if token != PADDING)


class ToyVlmTeacher:
    """A ``contracts.SignalSource``: logits and ids of the TOP likeliest tokens at each place of the answer.

    In the domains that it knows (None: all) it favors the true token, by ``sureness``; the rest depends on the
    image. Logits fall along the last axis; places after the end of the answer have the id ``PADDING``.
    """

    def __init__(self, seed: int = 0, sureness: float = 4.0, knows: Sequence[str] | None = None) -> None:
        self.seed, self.sureness, self.knows = seed, sureness, knows
        rng = torch.Generator().manual_seed(seed)
        self._taste = torch.randn(3 * SIDE * SIDE, TOKENS * VOCABULARY, generator=rng) / SIDE

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        shape = (TOKENS, TOP)
        return (
            SignalSpec("answer", shape),
            SignalSpec("answer_ids", shape, "int32"),
            SignalSpec("tokens", (TOKENS,), "int32"),
        )

    def identity(self) -> Mapping[str, str]:
        return {"preprocessing": f"{SIDE}x{SIDE}", "tokenizer": f"crc32 {VOCABULARY}", "seed": str(self.seed)}

    def prepare(self, image: Image, sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
        sure = self.sureness if self.knows is None or sample.domain in self.knows else 0.0
        return pixels_of(image), answer_tokens(sample.text), torch.tensor(sure)

    def compute(self, items: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Mapping[str, Tensor]:
        pixels, tokens, sure = (torch.stack(part) for part in zip(*items, strict=True))
        logits = (pixels @ self._taste).reshape(-1, TOKENS, VOCABULARY)
        known = tokens != PADDING
        logits = logits + sure[:, None, None] * F.one_hot(tokens.clamp(min=0), VOCABULARY) * known[..., None]
        top = logits.topk(TOP, dim=-1)
        ids = top.indices.masked_fill(~known[..., None], PADDING)
        return {"answer": top.values, "answer_ids": ids.to(torch.int32), "tokens": tokens.to(torch.int32)}

    def answer(
        self, images: Sequence[Image], samples: Sequence[Sample], decoding: Decoding | None = None
    ) -> list[list[Answer]]:
        """Its likeliest token at each place, with its probability among TOP if scored; ``contracts.Answering``.

        A question without an answer gets the answer to ``TOKENS`` words.
        """
        assert decoding is None or (decoding.beams, decoding.samples) == (1, 0)
        asked = [sample if sample.text else replace(sample, text=" ".join("abcde")) for sample in samples]
        items = [self.prepare(image, sample) for image, sample in zip(images, asked, strict=True)]
        found = self.compute(items)
        likeliest = found["answer"].log_softmax(-1)[..., 0]
        scores = likeliest if decoding is not None and decoding.scored else likeliest[:, :0]
        rows = zip(found["answer_ids"], scores, strict=True)
        return [[Answer(caption_of(ids[:, 0]), log_probs=tuple(row.tolist()))] for ids, row in rows]


class ToyAnswers:
    """An ``EvaluationTask`` that reads answers: the share of the reference's tokens that stand at their place."""

    def evaluate(self, view: ModelAnswers, samples: Sequence[Sample]) -> list[DomainScore]:
        scores = []
        for domain in dict.fromkeys(sample.domain for sample in samples):
            part = [sample for sample in samples if sample.domain == domain]
            pairs = zip(view.answer(part), part, strict=True)
            values = np.array([_right(answer, caption_of(answer_tokens(sample.text))) for answer, sample in pairs])
            mean = float(values.mean())
            ids = tuple(sample.id for sample in part)
            outcomes = {"accuracy": values}
            scores.append(
                DomainScore(
                    domain, len(part), {"accuracy": mean}, {"accuracy": (mean, mean)}, ids=ids, outcomes=outcomes
                )
            )
        return scores


def _right(answer: str, reference: str) -> float:
    found, wanted = answer.split(), reference.split()
    return sum(a == b for a, b in zip(found, wanted, strict=False)) / len(wanted)


def load_toy_vlm_teacher(folder: Path) -> ToyVlmTeacher:
    """Loader of a folder with ``toy_vlm_teacher.json``: ``{"seed": 0}``."""
    return ToyVlmTeacher(**json.loads((folder / "toy_vlm_teacher.json").read_text(encoding="utf-8")))


class TopKAnswerLoss(nn.Module):
    """Cross entropy of the student's tokens under each teacher's top-k distribution, renormalized to one.

    Per sample: mean over the answer's places of ``- sum_j p_j log q[id_j]`` with ``p = softmax(top-k logits)``
    and ``q`` the student's distribution over the whole vocabulary. Then the weighted mean over samples and
    teachers. Signals may come flattened, (B, TOKENS * TOP), or as (B, TOKENS, TOP); ids as any number type.
    """

    def forward(self, batch: LossInput) -> Tensor:
        log_q = batch.student["logits"].log_softmax(-1)
        total, weight = log_q.sum() * 0, log_q.new_zeros(())
        for view in batch.teachers:
            values = view.target["answer"].reshape(len(log_q), TOKENS, TOP)
            ids = view.target["answer_ids"].reshape(len(log_q), TOKENS, TOP).long()
            places = (ids[..., 0] != PADDING).float()
            cross = -(values.softmax(-1) * log_q.gather(-1, ids.clamp(min=0))).sum(-1)
            rows = (cross * places).sum(1) / places.sum(1).clamp(min=1)
            total = total + (rows * view.weight).sum()
            weight = weight + view.weight.sum()
        return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)
