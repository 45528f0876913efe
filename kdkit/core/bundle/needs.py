"""The plugins that a bundle's project was made with, and which of them are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from kdkit.core.discovery import installed


def plugin_pins() -> tuple[str, ...]:
    """``distribution==version`` of every installed plugin, whatever it was installed from.

    Unlike those of :mod:`kdkit.core.environment`, they name no folder and no address of this machine's world.
    """
    return tuple(sorted({f"{p.distribution}=={p.version}" for p in installed() if not p.built_in}))


def missing_here(required: Iterable[str]) -> tuple[str, ...]:
    """Of requirements as pip reads them, those that no installed distribution meets."""

    def here(name: str) -> list[str]:
        try:
            return [version(name)]
        except PackageNotFoundError:
            return []

    return _unmet(required, here)


def without_wheel(required: Iterable[str], wheels: Iterable[str]) -> tuple[str, ...]:
    """Of requirements as pip reads them, those that none of ``wheels`` (``a-1-py3-none-any.whl``) meets."""
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

    there: list[tuple[str, str]] = []
    for wheel in wheels:
        with suppress(InvalidWheelFilename):
            name, number, _, _ = parse_wheel_filename(wheel)
            there.append((name, str(number)))
    return _unmet(required, lambda name: [number for own, number in there if own == canonicalize_name(name)])


def _unmet(required: Iterable[str], versions: Callable[[str], Iterable[str]]) -> tuple[str, ...]:
    """Requirements for which none of the ``versions`` of their distribution would do; comments and options are none."""
    from packaging.requirements import InvalidRequirement, Requirement

    lacking = []
    for line in required:
        with suppress(InvalidRequirement):
            wanted = Requirement(line)
            if not any(wanted.specifier.contains(number, prereleases=True) for number in versions(wanted.name)):
                lacking.append(line)
    return tuple(lacking)
