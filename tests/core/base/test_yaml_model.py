"""YAML files with a model."""

from __future__ import annotations

import pytest

from kdkit.core.base.yaml_model import read_model
from kdkit.core.project.registry.schema import Registry
from tests.errors import raises_error


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("? student: {family: x}\n", "KD-BASE-006"),  # the parser raises TypeError
        ("? a: b\n: c\n", "KD-BASE-007"),
        ("version: 1\nversion: 2\n", "KD-BASE-004"),
        ("version: [1\n", "KD-BASE-005"),
    ],
)
def test_odd_documents_are_refused(text: str, id: str) -> None:
    with raises_error(id) as caught:
        read_model(Registry, text, "registry.yaml")
    assert caught.value.where.startswith("registry.yaml")
