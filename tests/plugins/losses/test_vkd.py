"""V_kD's losses against loops in float64, written from the released code's formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdkit.core.contracts import LossInput, TeacherView
from kdkit.plugins.losses.vkd import NORMALIZATIONS, AnswerOrthogonalDistillation, OrthogonalDistillation
from tests.errors import raises_error
from tests.plugins.losses import reference
from tests.plugins.losses.test_tokens import B, random, tokens
from tests.plugins.test_losses import make_batch, views_of

WIDTHS = {"a": 6, "b": 9}
Array = np.ndarray[Any, Any]


def smooth_l1(s: Array, t: Array, normalize: str) -> float:
    """Mean over features of d^2 / 2 below 1, |d| - 1/2 beyond; rows standardized with epsilon 1e-5."""

    def standard(row: Array) -> Array:
        return np.asarray((row - row.mean()) / np.sqrt(row.var() + 1e-5))

    t = t if normalize == "none" else standard(t)
    s = standard(s) if normalize == "both" else s
    return float(np.mean([d * d / 2 if abs(d) < 1 else abs(d) - 0.5 for d in s - t]))


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("over", ["pairs", "samples", "teachers"])
def test_of_dual_encoders(normalize: Any, over: Any) -> None:
    for seed in range(3):
        batch = make_batch(seed)
        views = views_of(batch)
        values = np.zeros((len(views), len(views[0].weight)))
        for t, view in enumerate(views):
            for b in reference.places(view.weight):
                values[t, b] = sum(smooth_l1(view.student[s][b], view.target[s][b], normalize) for s in view.target)
        expected = reference.average(values, np.stack([view.weight for view in views]), over)
        found = OrthogonalDistillation(normalize=normalize, average_over=over)(batch)
        assert float(found.detach()) == pytest.approx(expected, rel=1e-6)


def answers(weights: Tensor | None = None) -> LossInput:
    """Two teachers of other widths; the second one's store has fewer places."""
    ids = tokens()
    drawn = torch.rand(2, B, generator=torch.Generator().manual_seed(3)).double() if weights is None else weights
    views = []
    for (name, width), weight in zip(WIDTHS.items(), drawn, strict=True):
        places = 5 if name == "a" else 3
        spoken = ((ids >= 0) & (weight > 0)[:, None])[:, :places]
        states = torch.where(spoken[..., None], random(B, places, width, seed=width), torch.nan)
        target = {"tokens": torch.where(spoken, ids[:, :places], -100).int(), "answer_hidden": states}
        student = {"answer_hidden": (3 * random(B, 5, width, seed=20 + width)).requires_grad_()}
        views.append(TeacherView(name, weight, target, student))
    outputs = {"answer_ids": ids, "answer_hidden": random(B, 5, 6).requires_grad_()}
    return LossInput(outputs, tuple(views), torch.zeros(B, dtype=torch.int64))


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_of_answers_is_a_mean_per_token_by_trust(normalize: Any) -> None:
    batch, total, mass = answers(), 0.0, 0.0
    for view in batch.teachers:
        for b in range(B):
            for place, token in enumerate(view.target["tokens"][b].tolist()):
                if token >= 0:
                    s, t = (x["answer_hidden"][b, place].detach().numpy() for x in (view.student, view.target))
                    total += float(view.weight[b]) * smooth_l1(s, t, normalize)
                    mass += float(view.weight[b])
    found = AnswerOrthogonalDistillation(normalize=normalize)(batch)
    assert float(found.detach()) == pytest.approx(total / mass, rel=1e-6)
    torch.autograd.backward(found)
    for view in batch.teachers:
        grad = view.student["answer_hidden"].grad
        assert grad is not None
        assert bool(grad.isfinite().all())
        told = torch.zeros(B, 5, dtype=torch.bool)
        told[:, : view.target["tokens"].shape[1]] = view.target["tokens"] >= 0
        assert not bool(grad[~told].any())


def test_nobody_speaks() -> None:
    found = AnswerOrthogonalDistillation()(answers(torch.zeros(2, B).double()))
    assert (float(found.detach()), found.requires_grad) == (0.0, True)


def test_invalid_input_is_refused() -> None:
    batch = answers()
    batch.teachers[0].target["tokens"][0, 0] += 1
    with raises_error("KD-LOSS-007"):
        AnswerOrthogonalDistillation()(batch)
    for make in (OrthogonalDistillation, AnswerOrthogonalDistillation):
        with raises_error("KD-LOSS-008", mentions=("'batch'",)):
            make(normalize="batch")  # type: ignore[arg-type]
