"""The names of a new plugin: distribution, package and entry point."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kdkit.core.base.errors import KdkitError
from kdkit.core.plugin_system.catalogue import Catalogue, Family
from kdkit.core.plugin_system.installed import BUILT_IN, normal

LONGEST = 30
_SHAPE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Names:
    """``kdkit-two-words`` (distribution), ``kdkit_two_words`` (package) and ``two-words`` (entry point)."""

    short: str
    """In the catalogue, and of the entry point."""

    @property
    def distribution(self) -> str:
        """On PyPI."""
        return f"{BUILT_IN}-{self.short}"

    @property
    def module(self) -> str:
        """The importable package."""
        return self.distribution.replace("-", "_")


def names_for(name: str, kind: Family, catalogue: Catalogue) -> Names:
    """Normalize ``name`` (PEP 503), with or without the prefix ``kdkit-``.

    Raises:
        KdkitError: an invalid name, or the name of a built-in of this kind.
    """
    short = normal(name).removeprefix(f"{BUILT_IN}-")
    if short == BUILT_IN or not _SHAPE.fullmatch(short) or len(short) > LONGEST:
        raise KdkitError(
            "KD-PLUG-016",
            f"'{name}' is not a name for a plugin",
            why=f"a name has ASCII letters, digits and '-', begins with a letter, and has at most {LONGEST} characters",
            fix="for example: kdkit new-plugin stain-teacher --kind teacher",
        )
    for entry in catalogue.entries(kind):
        if entry.provider == BUILT_IN and normal(entry.spec.name) == short:
            raise KdkitError(
                "KD-PLUG-017",
                f"'{entry.spec.name}' is a built-in {kind}",
                why="a built-in keeps its short name",
                fix=f"choose another name, such as 'my-{short}'",
            )
    return Names(short)
