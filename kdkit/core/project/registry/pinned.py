"""A catalogue with the pins of ``registry.lock``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kdkit.core.plugin_system.catalogue import Catalogue
from kdkit.core.project.registry.lock import Lock

Pins = Mapping[str, Mapping[str, str]]
NO_PROVIDER = "registry"
"""Provider of a locked teacher without a catalogue entry."""


def pinned(catalogue: Catalogue, lock: Lock, without: Iterable[str] = ()) -> Catalogue:
    """``catalogue`` with the pins of ``lock``, except for the names ``without``."""
    models = {**lock.initial_weights, **lock.teachers}
    teachers = {name: facts.provider.partition("@")[0] for name, facts in models.items()}
    pins: Pins = {
        **lock.providers,
        "teacher": {name: provider for name, provider in teachers.items() if provider != NO_PROVIDER},
    }
    kept = {
        family: {name: provider for name, provider in names.items() if name not in without}
        for family, names in pins.items()
    }
    return replace(catalogue, pins=kept)
