"""Every built-in loss, aligner and RoPE variant is documented with its options."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from kdkit.core.plugin_system.catalogue import resolve
from kdkit.core.plugin_system.discovery import load_catalogue

DOCS = Path(__file__).parents[2] / "docs/reference"
PAGES = {"loss": "losses.md", "aligner": "aligners.md", "rope": "rope.md"}


@pytest.mark.parametrize(("family", "name"), [(f, e.spec.name) for f in PAGES for e in load_catalogue().entries(f)])
def test_it_is_documented_with_its_options(family: str, name: str) -> None:
    entry = load_catalogue().get(family, name)
    if entry.provider != "kdkit":
        pytest.skip("not built in")
    page = (DOCS / PAGES[family]).read_text(encoding="utf-8")
    assert f"`{name}`" in page
    parameters = inspect.signature(resolve(entry.spec.factory)).parameters.values()
    options = [parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY]
    assert [option for option in options if f"`{option}" not in page] == []
