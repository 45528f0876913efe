"""The picture of the architecture page: which room imports which, counted from the source with ``ast``."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path

import kdkit

SOURCE = Path(kdkit.__file__).parent
ROOMS = {
    "base": "errors, files, journal, typed YAML, Hub access",
    "contracts": "specs, protocols, hooks: all that a plugin imports",
    "plugin_system": "entry points, catalogue, new plugins",
    "project": "registry, lock, recipe, versions, lineage",
    "data": "sources to samples",
    "teachers": "fetch, verify, probe, open",
    "features": "extraction, the store",
    "evaluation": "trust, metrics, retention, reports",
    "distill": "plan, model, loop, promotion",
    "sharing": "Hub, releases, shared features, bundles",
    "plugins": "everything concrete",
    "testing": "the conformance kit",
    "api": "the Python interface: one method per command",
    "cli": "parse, call the interface, print",
}
"""Rooms in the order of the arrows, each with its content. The first ten are those of ``kdkit/core``."""
CORE = tuple(ROOMS)[:10]
ROW, LEFT, TOP, TEXT = 30, 130, 100, 420


def arrows() -> Counter[tuple[str, str]]:
    """(room, imported room) -> number of importing modules; lazy and typing imports count."""
    found: Counter[tuple[str, str]] = Counter()
    for path in sorted(SOURCE.rglob("*.py")):
        room = _room(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts))
        if not room or "templates" in path.parts:
            continue
        modules = _imported(ast.parse(path.read_text(encoding="utf-8")))
        found.update({(room, other) for module in modules if (other := _room(module)) and other != room})
    return found


def picture() -> str:
    """The dependency matrix as SVG: a dot where the room of a row imports the room of a column."""
    counts = arrows()
    names = list(ROOMS)
    width, height = LEFT + ROW * len(names) + TEXT, TOP + ROW * len(names) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-size="13" '
        'font-family="system-ui, sans-serif">',
        "<title>Which room imports which: every dot lies below the diagonal</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<rect x="{LEFT}" y="{TOP}" width="{ROW * 10}" height="{ROW * 10}" fill="#eef3fa"/>',
    ]
    for row, name in enumerate(names):
        x, y = LEFT + ROW * row + ROW / 2, TOP + ROW * row + ROW / 2
        parts += [
            f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end" font-weight="600" fill="#1b2733">{name}</text>',
            f'<text transform="translate({x + 4} {TOP - 8}) rotate(-55)" fill="#1b2733">{name}</text>',
            f'<text x="{LEFT + ROW * len(names) + 12}" y="{y + 4}" fill="#4a5866">{escape(ROOMS[name])}</text>',
            f'<rect x="{x - 4}" y="{y - 4}" width="8" height="8" fill="#c3ccd6"/>',
        ]
        parts += [
            _dot(LEFT + ROW * names.index(other) + ROW / 2, y, counts[name, other], f"{name} imports {other}")
            for other in names
            if counts[name, other]
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _dot(x: float, y: float, count: int, title: str) -> str:
    radius = min(4 + count**0.5, 12)
    return (
        f'<circle cx="{x}" cy="{y}" r="{radius:.1f}" fill="#2463a8"><title>{title} ({count} modules)</title></circle>'
    )


def _room(module: str) -> str:
    """The room of a module, or nothing where it is in none."""
    parts = module.split(".")
    name = parts[2] if parts[:2] == ["kdkit", "core"] and len(parts) > 2 else parts[1] if len(parts) > 1 else ""
    return name if parts[0] == "kdkit" and name in ROOMS else ""


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
