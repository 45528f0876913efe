"""Installed plugins as requirements (pip freeze), and unmet requirements of a distribution."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from typing import Any
from urllib.parse import unquote, urlsplit

from kdkit.core.plugin_system.installed import BUILT_IN, installed, normal


@dataclass(frozen=True)
class Frozen:
    """An installed distribution.

    Attributes:
        name: normalized.
        version: as installed.
        requirement: a line as ``pip freeze`` writes it.
        local: it was installed from a folder or file of this machine.
    """

    name: str
    version: str
    requirement: str
    local: bool


def freeze() -> tuple[Frozen, ...]:
    """kdkit first, then the distributions with plugins by name; imports none of them."""
    wanted = {BUILT_IN, *(plugin.distribution for plugin in installed())}
    found: dict[str, Frozen] = {}
    for dist in distributions():
        try:
            name = dist.metadata["Name"]
            if normal(name) in wanted:
                found.setdefault(normal(name), _frozen(name, dist))
        except Exception:  # a damaged installation, for pip to report
            continue
    return tuple(sorted(found.values(), key=lambda frozen: (frozen.name != BUILT_IN, frozen.name)))


def _frozen(name: str, dist: Distribution) -> Frozen:
    origin = _origin(dist)
    line = f"{name}=={dist.version}"
    if origin.get("dir_info", {}).get("editable"):
        line = f"-e {unquote(urlsplit(origin['url']).path)}"
    elif origin:
        line = f"{name} @ {_reference(origin)}"
    return Frozen(normal(name), dist.version, line, local=origin.get("url", "").startswith("file:"))


def _origin(dist: Distribution) -> dict[str, Any]:
    """``direct_url.json`` (PEP 610); empty for what came from an index."""
    try:
        origin = json.loads(dist.read_text("direct_url.json") or "{}")
    except (ValueError, RecursionError):
        return {}
    return origin if isinstance(origin, dict) and isinstance(origin.get("url"), str) else {}


def _reference(origin: dict[str, Any]) -> str:
    """The URL of a direct reference (PEP 508), at the commit or with the hash that was installed."""
    url, fragments = without_credentials(origin["url"]), []
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    elif "archive_info" in origin:
        fragments += [f"{kind}={value}" for kind, value in origin["archive_info"].get("hashes", {}).items()]
    if origin.get("subdirectory"):
        fragments.append(f"subdirectory={origin['subdirectory']}")
    return "#".join([url, "&".join(fragments)] if fragments else [url])


def without_credentials(text: str) -> str:
    """``text`` without passwords and tokens in its URLs; keeps ``git@`` and ``${VARIABLE}``."""
    return re.sub(r"(?<=://)(?!git@|\$\{\w+\}(:\$\{\w+\})?@)[^/@\s]+@", "", text)


def unmet(dist: Distribution) -> dict[str, str]:
    """Unmet requirements of ``dist`` -> installed version ("" if none)."""
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
