"""Plugins that did not finish importing, remembered so that the next command need not wait for them.

One small file per plugin in the user's cache folder. It counts for a day, until the plugin's files change, and
only as long as the limit of time is not raised. That it cannot be read or written costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError

if TYPE_CHECKING:
    from kdkit.core.plugin_system.installed import Installed

DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Hang:
    """When a plugin was given up (seconds since the epoch), after how many seconds, and at which ``file:line``."""

    when: float
    seconds: float
    place: str

    def __str__(self) -> str:
        place = f" ({self.place})" if self.place else ""
        return f"did not finish importing in {self.seconds:g} s{place}"


def recall(plugin: Installed, seconds: float) -> Hang | None:
    """The hang that makes another attempt with this limit pointless."""
    path = _path(plugin)
    if path is None:
        return None
    try:
        told = json.loads(path.read_bytes())
        hang = Hang(float(told["when"]), float(told["seconds"]), str(told["place"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    recent = 0 <= time.time() - hang.when < DAY
    return hang if recent and seconds <= hang.seconds and told.get("stamp") == _stamp(plugin) else None


def remember(plugin: Installed, hang: Hang) -> None:
    """Write it down."""
    from kdkit.core.base.atomic import write_atomically

    path = _path(plugin)
    if path is None:
        return
    told = {
        "distribution": plugin.distribution,
        "when": hang.when,
        "seconds": hang.seconds,
        "place": hang.place,
        "stamp": _stamp(plugin),
    }
    with suppress(OSError, KdkitError):
        write_atomically(path, json.dumps(told).encode())


def forgive(plugin: Installed) -> None:
    """It has loaded: what is remembered of it counts no longer."""
    path = _path(plugin)
    if path is not None:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def forget(distribution: str) -> None:
    """Let the next command try the plugins of ``distribution`` (its normalized name) again."""
    for path in _folder().glob("*.json"):
        try:
            if json.loads(path.read_bytes()).get("distribution") == distribution:
                path.unlink()
        except (OSError, ValueError, AttributeError):
            continue


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "kdkit", "hung-plugins")


def _path(plugin: Installed) -> Path | None:
    """None for a plugin that is not installed as a distribution."""
    dist: Distribution | None = plugin.point.dist
    if dist is None:
        return None
    point = plugin.point
    key = [str(dist.locate_file("")), plugin.distribution, plugin.version, point.name, point.value]
    return _folder() / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"


def _stamp(plugin: Installed) -> str:
    """Changes whenever a source file beside the module that the entry point names does; imports nothing."""
    try:
        spec = find_spec(plugin.point.module.partition(".")[0])
    except Exception:  # import hooks are code of strangers too
        return ""
    if spec is None:
        return ""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [path for folder in folders for path in folder.rglob("*.py")] or [Path(spec.origin or "")]
    try:
        facts = sorted((str(path), (found := path.stat()).st_size, found.st_mtime_ns) for path in files)
    except OSError:
        return ""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
