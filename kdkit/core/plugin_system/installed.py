"""The plugins that are installed: entry points of group ``kdkit``. Imports none of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions

BUILT_IN = "kdkit"
"""The distribution whose plugins are always loaded, and whose names other plugins cannot take."""
GROUP = "kdkit"
"""The entry-point group."""


@dataclass(frozen=True)
class Installed:
    """A plugin on disk: an entry point, and the distribution (by its normalized name) that it belongs to."""

    point: EntryPoint
    distribution: str
    version: str

    @property
    def built_in(self) -> bool:
        """It is part of kdkit, not another distribution of that name."""
        return self.distribution == BUILT_IN and self.point.module.startswith("kdkit.plugins.")

    def allowed_by(self, allowed: frozenset[str] | None) -> bool:
        """Built-ins always are."""
        return self.built_in or allowed is None or bool({self.distribution, normal(self.point.name)} & allowed)


def installed() -> tuple[Installed, ...]:
    """The plugins on ``sys.path``, built-ins first, then by distribution and name.

    Distributions with unreadable metadata are skipped. Of two copies of a distribution the first on the path counts, as
    for imports.
    """
    found: dict[tuple[str, str, bool], Installed] = {}
    seen: set[str] = set()
    for dist in distributions():
        try:
            if f"[{GROUP}]" not in (dist.read_text("entry_points.txt") or ""):
                continue
            name, version = normal(dist.metadata["Name"]), dist.version
            points = [point for point in dist.entry_points if point.group == GROUP]
        except Exception:  # a damaged installation, for pip to report
            continue
        if name in seen and name != BUILT_IN:
            continue
        seen.add(name)
        for point in points:
            plugin = Installed(point, name, version)
            found.setdefault((name, point.name, plugin.built_in), plugin)
    return tuple(sorted(found.values(), key=lambda p: (not p.built_in, p.distribution, p.point.name)))


def normal(name: str) -> str:
    """The normalized name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
