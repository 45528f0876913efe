"""Notices that a server has another model behind the same name, by its scores of one fixed answer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from kdkit.core.contracts import Sample
from kdkit.plugins.loaders.endpoint_prompt import AnswerScores

LARGEST_CHANGE = 0.1
"""Mean change of log-probabilities, in nats, that still is the same model: servers in bfloat16 round differently from
batch to batch."""
LEAST_COMMON = 0.5
"""Share of the likeliest tokens that remain."""


@dataclass(frozen=True)
class Canary:
    """What a server said of the fixed answer.

    Attributes:
        model: the reply's name of the model; ``system``: its ``system_fingerprint``, if any.
        scores: of the answer.
    """

    model: str
    system: str
    scores: AnswerScores

    @classmethod
    def of(cls, reply: Mapping[str, Any], scores: AnswerScores) -> Canary:
        return cls(str(reply.get("model")), str(reply.get("system_fingerprint") or ""), scores)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Canary:
        """Raises: KeyError, TypeError, ValueError: another content."""
        scores = document["scores"]
        ids, rows = tuple(scores["ids"]), {name: tuple(map(tuple, scores[name])) for name in ("top_ids", "top")}
        if [len(row) for row in rows["top_ids"]] != [len(row) for row in rows["top"]] or len(rows["top"]) != len(ids):
            raise ValueError("scores of unequal lengths")
        return cls(document["model"], document["system"], AnswerScores(ids, prompt=int(scores["prompt"]), **rows))

    def difference(self, now: Canary) -> str:
        """What tells the models of two canaries apart; empty for the same one."""
        for name in ("model", "system"):
            before, after = getattr(self, name), getattr(now, name)
            if before != after:
                return f"the server's {name} was '{before}' and is '{after}'"
        if (self.scores.ids, self.scores.prompt) != (now.scores.ids, now.scores.prompt):
            return "the fixed prompt has other tokens"
        return self._moved(now)

    def _moved(self, now: Canary) -> str:
        changes, total = [], 0
        for ids, top, later_ids, later in zip(
            self.scores.top_ids, self.scores.top, now.scores.top_ids, now.scores.top, strict=True
        ):
            known = dict(zip(later_ids, later, strict=True))
            changes += [abs(value - known[id]) for id, value in zip(ids, top, strict=True) if id in known]
            total += len(ids)
        if len(changes) < LEAST_COMMON * total:
            return f"{len(changes)} of {total} likeliest tokens of the fixed answer remain"
        mean = sum(changes) / len(changes)
        return f"log-probabilities of the fixed answer moved by {mean:.2f} on average" if mean > LARGEST_CHANGE else ""


def canary_sample() -> Sample:
    """The fixed question and answer."""
    return Sample("canary", Path("canary.png"), "the left lung is clear", "canary")


def canary_image(seed: int) -> Image.Image:
    """Coarse noise: two of them differ for every model that reads images."""
    noise = Image.frombytes("RGB", (8, 8), random.Random(seed).randbytes(8 * 8 * 3))
    return noise.resize((224, 224), Image.Resampling.NEAREST)
