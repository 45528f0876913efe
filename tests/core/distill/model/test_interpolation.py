"""Weights between two states: exact, with buffers, without what only one of them has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kdkit.core.distill.loop.checkpoint_state import load_task_tensors
from kdkit.core.distill.model.interpolation import interpolate, save_state


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    made(torch.randn(8, 3))
    return made


@pytest.mark.parametrize("a", [0.25, 0.3, 0.9])
def test_every_weight_and_statistic_is_the_closed_form(a: float) -> None:
    start, trained = save_state(network(0)), save_state(network(1))
    for name, mixed in interpolate(start, trained, a).items():
        p, c = start[name].numpy(), trained[name].numpy()
        expected = c
        if mixed.is_floating_point():
            expected = ((1 - a) * p.astype(np.float64) + a * c.astype(np.float64)).astype(np.float32)
        np.testing.assert_array_equal(mixed.numpy(), expected, err_msg=name)


def test_what_did_not_change_stays_bit_for_bit() -> None:
    state = save_state(network(0))
    assert all(torch.equal(x, state[name]) for name, x in interpolate(state, state, 0.3).items())


def test_heads_that_only_one_has_are_the_trained_ones() -> None:
    trained = {"head": torch.ones(2), "wider": torch.ones(3)}
    mixed = interpolate({"wider": torch.zeros(2), "gone": torch.zeros(1)}, trained, 0.5)
    assert {name: x.tolist() for name, x in mixed.items()} == {"head": [1, 1], "wider": [1, 1, 1]}


def test_a_saved_state_is_a_copy_without_frozen_weights() -> None:
    task = nn.ModuleDict({"student": network(0), "head": nn.Linear(2, 2)})
    task["student"].get_submodule("0").requires_grad_(False)
    state = save_state(task)
    assert not [name for name in state if name.startswith("student.0.")]
    before = {name: x.clone() for name, x in state.items()}
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(1)
    assert all(torch.equal(x, before[name]) for name, x in state.items())
    load_task_tensors(task, state)
    assert torch.equal(task["head"].state_dict()["weight"], before["head.weight"])
