"""Templates of texts, which take names alone."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter


def fill(template: str, fields: Mapping[str, str]) -> str:
    """``template`` with ``{name}`` filled in; a template of another project may neither pad nor look into values.

    Raises:
        KeyError: an unknown name.
        ValueError: braces that do not match, or more than a name in them.
    """
    parts = []
    for text, name, form, conversion in Formatter().parse(template):
        if form or conversion:
            raise ValueError(f"'{name}' is followed by a format")
        parts += [text, "" if name is None else fields[name]]
    return "".join(parts)
