"""Examples in docstrings of built-in losses, aligners, RoPE variants and policies run and give what they show."""

from __future__ import annotations

from doctest import DocTestFinder, DocTestRunner
from importlib import import_module

import pytest

MODULES = (
    "aligners.matrix",
    "losses.clip",
    "losses.crd",
    "losses.rows",
    "losses.tokens.divergence",
    "losses.vkd",
    "policies.policies",
    "rope.designs",
    "rope.layouts",
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    module = import_module(f"kdkit.plugins.{name}")
    runner = DocTestRunner()
    for test in DocTestFinder().find(module):
        runner.run(test)
    assert (runner.failures, runner.tries > 0) == (0, True)
