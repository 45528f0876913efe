"""The plugins that a bundle's project was made with, and which of them are missing here."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from kdkit.core.discovery import installed


def requirements() -> tuple[str, ...]:
    """For a moment: see kdkit.core.environment."""
    return tuple(sorted({f"{p.distribution}=={p.version}" for p in installed() if not p.built_in}))


def missing_here(required: Iterable[str]) -> tuple[str, ...]:
    """Of requirements as pip reads them, those that no installed distribution meets."""
    from packaging.requirements import InvalidRequirement, Requirement

    lacking = []
    for line in required:
        try:
            wanted = Requirement(line)
            met = wanted.specifier.contains(version(wanted.name), prereleases=True)
        except InvalidRequirement:
            continue
        except PackageNotFoundError:
            met = False
        if not met:
            lacking.append(line)
    return tuple(lacking)
