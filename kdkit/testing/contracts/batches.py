"""Small example batches for losses: outputs of a student and two teachers, some rows without weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdkit.core.contracts import LossInput, TeacherView

POOLED = ("image", "text")
TOKENS = ("tokens", "topk_ids", "topk", "tail")
STATES = ("tokens", "answer_hidden")
SIZE = 7
ABSENT = {"a": (1, 4), "b": (4, 6)}
"""Teacher -> samples that it has no weight for."""
LENGTHS = (5, 2, 0, 4, 3, 5, 1)
"""Answer tokens of each sample."""
VOCABULARY, LIKELIEST = 17, 4


class Drawn:
    """Numbers from one seeded generator, in ``dtype``."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self._generator = dtype, torch.Generator().manual_seed(0)

    def rows(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, dtype=torch.float64).to(self.dtype)

    def weight(self, teacher: str) -> Tensor:
        """(SIZE,) between 0.1 and 1.1, and 0 where the teacher is absent."""
        weight = torch.rand(SIZE, generator=self._generator, dtype=torch.float64) + 0.1
        weight[list(ABSENT[teacher])] = 0
        return weight.to(self.dtype)


def example_batch(signals: Sequence[str], dtype: torch.dtype) -> LossInput | None:
    """Seven samples of three domains and two teachers with ``signals``; None for unknown signals.

    The student's outputs want gradients, the targets do not, as in training.
    """
    drawn = Drawn(dtype)
    if set(signals) <= set(POOLED):
        widths = {"a": 5, "b": 6}
        views = tuple(_pooled_view(drawn, name, width, signals or POOLED) for name, width in widths.items())
    elif set(signals) <= set(TOKENS):
        views = tuple(_token_view(drawn, name) for name in ABSENT)
    elif set(signals) <= set(STATES):
        views = tuple(_states_view(drawn, name, width) for name, width in {"a": 6, "b": 9}.items())
    else:
        return None
    return LossInput(_student(drawn), views, torch.arange(SIZE) % 3)


def _student(drawn: Drawn) -> dict[str, Tensor]:
    """Outputs of a dual encoder and of a generating student together; a loss takes what it knows."""
    outputs = {signal: drawn.rows(SIZE, 8) for signal in POOLED}
    outputs["logit_scale"] = torch.tensor(3.0, dtype=drawn.dtype)
    outputs["answer_hidden"] = drawn.rows(SIZE, max(LENGTHS), 6)
    outputs["output_embedding"] = drawn.rows(VOCABULARY, 6)
    return {name: x.requires_grad_() for name, x in outputs.items()} | {"answer_ids": _answers()}


def _pooled_view(drawn: Drawn, name: str, width: int, signals: Sequence[str]) -> TeacherView:
    weight = drawn.weight(name)
    target = {signal: torch.where(weight[:, None] > 0, drawn.rows(SIZE, width), 0) for signal in signals}
    student = {signal: drawn.rows(SIZE, width).requires_grad_() for signal in signals}
    return TeacherView(name, weight, target, student)


def _token_view(drawn: Drawn, name: str) -> TeacherView:
    """The k likeliest tokens of random distributions, and the log mass of the others at temperatures 0.5, 1, 2."""
    weight = drawn.weight(name)
    log_p = drawn.rows(SIZE, max(LENGTHS), VOCABULARY).log_softmax(-1)
    top = log_p.topk(LIKELIEST, dim=-1)
    rest = log_p.scatter(-1, top.indices, -torch.inf)
    tail = torch.stack([(rest / temperature).logsumexp(-1) for temperature in (0.5, 1.0, 2.0)], dim=-1)
    tokens = _answers()
    covered = ((weight > 0)[:, None] & (tokens >= 0))[..., None]
    target = {
        "tokens": torch.where(weight[:, None] > 0, tokens, 0).to(torch.int32),
        "topk_ids": torch.where(covered, top.indices, 0).to(torch.int32),
        "topk": torch.where(covered, top.values, 0),
        "tail": torch.where(covered, tail, 0),
    }
    return TeacherView(name, weight, target, {})


def _states_view(drawn: Drawn, name: str, width: int) -> TeacherView:
    """The states at an answer's tokens, and the student's through this teacher's heads."""
    weight, tokens = drawn.weight(name), _answers()
    covered = ((weight > 0)[:, None] & (tokens >= 0))[..., None]
    target = {
        "tokens": torch.where(weight[:, None] > 0, tokens, 0).to(torch.int32),
        "answer_hidden": torch.where(covered, drawn.rows(SIZE, max(LENGTHS), width), 0),
    }
    return TeacherView(name, weight, target, {"answer_hidden": drawn.rows(SIZE, max(LENGTHS), width).requires_grad_()})


def _answers() -> Tensor:
    """(SIZE, A) int64 token ids, -100 after the end of an answer."""
    places = torch.arange(max(LENGTHS))
    ids = (torch.arange(SIZE)[:, None] * 5 + places * 3) % VOCABULARY
    return torch.where(places < torch.tensor(LENGTHS)[:, None], ids, -100)
