"""What losses see of own answers."""

from __future__ import annotations

import torch

from kdkit.core.contracts import LossInput
from kdkit.core.distill.on_policy.losses import own_figures, without_own
from kdkit.plugins.losses.tokens.losses import AnswerCrossEntropy

IDS = torch.tensor([[1, 2, -100], [2, -100, -100], [0, 1, 2]])


def outputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    hidden, embedding = torch.randn(3, 3, 4), torch.nn.Parameter(torch.randn(5, 4))
    return {"answer_hidden": hidden, "answer_ids": IDS, "output_embedding": embedding}


def test_cross_entropy_is_that_of_the_given_answers_alone() -> None:
    made, domain = outputs(), torch.zeros(3, dtype=torch.int64)
    own = torch.tensor([False, True, True])
    found = AnswerCrossEntropy()(LossInput(without_own(made, own), (), domain))
    first = {name: x if name == "output_embedding" else x[:1] for name, x in made.items()}
    assert torch.equal(found, AnswerCrossEntropy()(LossInput(first, (), domain[:1])))
    assert float(AnswerCrossEntropy()(LossInput(without_own(made, torch.ones(3, dtype=torch.bool)), (), domain))) == 0
    assert torch.equal(made["answer_ids"], IDS)


def test_the_log_counts_own_answers() -> None:
    weights = {"a": torch.tensor([1.0, 0.0, 0.0]), "b": torch.tensor([1.0, 0.5, 0.0])}
    found = own_figures(outputs(), torch.tensor([False, True, True]), weights)
    assert {name: float(x) for name, x in found.items()} == {"own/answers": 2, "own/tokens": 2, "own/unscored": 0.5}
    none = own_figures(outputs(), torch.zeros(3, dtype=torch.bool), weights)
    assert {float(x) for x in none.values()} == {0}
