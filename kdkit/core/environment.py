"""The running Python environment: what its distributions lack, and its plugins as requirements."""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, version


def unmet(dist: Distribution) -> dict[str, str]:
    """Requirements of ``dist`` that are not met here -> the version that is installed instead ("" if none is)."""
    from packaging.requirements import InvalidRequirement, Requirement

    lacking = {}
    for text in dist.requires or ():
        try:
            wanted = Requirement(text)
            if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
                continue
            found = version(wanted.name)
        except InvalidRequirement:
            continue
        except PackageNotFoundError:
            found = ""
        if not found or not wanted.specifier.contains(found, prereleases=True):
            wanted.marker = None
            lacking[str(wanted)] = found
    return lacking
