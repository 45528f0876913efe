"""Requirements of a bundled project besides its files: its plugins, and the hosts that its teachers contact."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from kdkit.core.contracts import LoaderSpec
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.plugin_system.installed import installed
from kdkit.core.sharing.bundle.manifest import Manifest


def plugin_pins() -> tuple[str, ...]:
    """``distribution==version`` of every installed plugin.

    Unlike :mod:`kdkit.core.plugin_system.requirements`, they name no folder and no address of this machine.
    """
    return tuple(sorted({f"{p.distribution}=={p.version}" for p in installed() if not p.built_in}))


def missing_here(required: Iterable[str]) -> tuple[str, ...]:
    """The pip requirements that no installed distribution meets."""

    def here(name: str) -> list[str]:
        try:
            return [version(name)]
        except PackageNotFoundError:
            return []

    return _unmet(required, here)


def senders(manifest: Manifest) -> tuple[str, ...]:
    """Files, in any folder, that make a teacher send images and questions to the address that they contain.

    The marks of the installed loaders identify them, case-insensitively as on some disks.
    """
    marks = {m.casefold() for spec in load_catalogue().specs(LoaderSpec) if spec.asks_network for m in spec.marks}
    return tuple(file.path for file in manifest.files if file.path.rpartition("/")[2].casefold() in marks)


def without_wheel(required: Iterable[str], wheels: Iterable[str]) -> tuple[str, ...]:
    """The pip requirements that none of ``wheels`` (``a-1-py3-none-any.whl``) meets."""
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

    there: list[tuple[str, str]] = []
    for wheel in wheels:
        with suppress(InvalidWheelFilename):
            name, number, _, _ = parse_wheel_filename(wheel)
            there.append((name, str(number)))
    return _unmet(required, lambda name: [number for own, number in there if own == canonicalize_name(name)])


def _unmet(required: Iterable[str], versions: Callable[[str], Iterable[str]]) -> tuple[str, ...]:
    """Requirements that none of the ``versions`` of their distribution satisfies; comments and options are skipped."""
    from packaging.requirements import InvalidRequirement, Requirement

    lacking = []
    for line in required:
        with suppress(InvalidRequirement):
            wanted = Requirement(line)
            if not any(wanted.specifier.contains(number, prereleases=True) for number in versions(wanted.name)):
                lacking.append(line)
    return tuple(lacking)
