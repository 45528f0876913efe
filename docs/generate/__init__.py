"""The generated pages of the documentation: what the code itself says, written at each build and not kept in git."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from docs.generate import checks, commands, errors, hooks, rooms, schema

FOLDER = Path(__file__).parents[1]
PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands.page,
    "reference/errors.md": errors.page,
    "reference/schema.md": schema.page,
    "reference/plugin-checks.md": checks.page,
    "reference/hooks/index.md": hooks.index,
    **{f"reference/hooks/{hook}.md": partial(hooks.page, hook) for hook in hooks.HOOKS},
    "explanation/rooms.svg": rooms.picture,
}
"""Path below ``docs/`` -> the function that makes the text."""


def generate() -> dict[str, str]:
    """Path below ``docs/`` -> text of every generated page."""
    return {name: make() for name, make in PAGES.items()}


def written_by_hand(folder: Path = FOLDER) -> list[Path]:
    """All pages that are not generated."""
    generated = {folder / name for name in PAGES}
    return [path for path in sorted(folder.rglob("*.md")) if path not in generated]


def write(folder: Path = FOLDER) -> None:
    """Write all pages; a page that has not changed keeps its time, so that Sphinx does not read it again."""
    for name, text in generate().items():
        path = folder / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        path.parent.mkdir(exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
