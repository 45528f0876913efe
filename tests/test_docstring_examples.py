"""The examples in docstrings run; these modules have some."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

EXPLAINED = [
    "kdkit.core.distill.plan.plan",
    "kdkit.core.distill.plan.targets",
    "kdkit.core.distill.model.projection",
    "kdkit.core.distill.model.student",
    "kdkit.core.distill.model.target_norm",
    "kdkit.core.distill.model.task",
    "kdkit.core.distill.loop.dataloader",
    "kdkit.core.distill.loop.sampler",
    "kdkit.core.distill.loop.train",
    "kdkit.core.evaluation.continual",
    "kdkit.core.evaluation.metrics",
    "kdkit.core.base.result",
    "kdkit.core.evaluation.zero_shot",
    "kdkit.plugins.aligners.matrix",
    "kdkit.plugins.losses.clip",
    "kdkit.plugins.losses.crd",
    "kdkit.plugins.losses.rows",
    "kdkit.plugins.losses.tokens.divergence",
    "kdkit.plugins.losses.vkd",
    "kdkit.plugins.policies.policies",
    "kdkit.plugins.rope.designs",
    "kdkit.plugins.rope.layouts",
]


@pytest.mark.parametrize("module", EXPLAINED)
def test_examples_run(module: str) -> None:
    found = doctest.testmod(import_module(module))
    assert found.attempted
    assert not found.failed
