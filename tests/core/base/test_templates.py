"""Templates of texts."""

from __future__ import annotations

import pytest

from kdkit.core.base.templates import fill


def test_templates_take_names_alone() -> None:
    assert fill("a {domain} of {{x}}", {"domain": "c{t}"}) == "a c{t} of {x}"
    for template in ("{domain:>999999999}", "{domain!r}"):
        with pytest.raises(ValueError, match="format"):
            fill(template, {"domain": "ct"})
    for template in ("{domain.__class__}", "{domain[0]}", "{}", "{x}"):
        with pytest.raises(KeyError):
            fill(template, {"domain": "ct"})
