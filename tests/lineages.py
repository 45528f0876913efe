"""Made-up lineages, complete and valid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdkit.core.project.lineage import EarlierHistory, Lineage
from kdkit.core.project.manifest import write_manifest
from kdkit.core.project.versions import HISTORY, LINEAGE


def lineage(name: str = "v1", parent: str | None = None, **more: Any) -> Lineage:
    """A lineage; ``more`` replaces fields, given as JSON, and updates those that are mappings."""
    plain = _plain(name, parent)
    for key, value in more.items():
        before = plain.get(key)
        plain[key] = {**before, **value} if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return Lineage.from_json(plain)


def write_version(folder: Path, own: Lineage, earlier: EarlierHistory | None = None) -> None:
    """Write the records of a version beside what ``folder`` holds; last, its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LINEAGE).write_bytes(own.to_bytes())
    if earlier is not None:
        (folder / HISTORY).write_bytes(earlier.to_bytes())
    write_manifest(folder)


def teacher(
    name: str, source: str, domains: Mapping[str, float], *, license: str | None = "mit", **more: Any
) -> dict[str, Any]:
    """A teacher's record as JSON; its accuracy is 0.9 in all its domains."""
    return {
        "name": name,
        "fingerprint": f"{name}-fingerprint",
        "source": source,
        "commit": "abcdef0123456789" if source.startswith("hf:") else None,
        "provider": "registry",
        "license_facts": {"seen": license},
        "domains": dict(domains),
        "samples": 36,
        "signals": "stored",
        "trust": {domain: {"accuracy": 0.9, "lower": 0.85, "upper": 0.94} for domain in domains},
        "since": "v1",
        **more,
    }


def retention(*changes: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A comparison with the parent as JSON; a change needs ``domain`` and ``points``."""
    return {
        "domains": {change["domain"]: _change(**change) for change in changes},
        "teachers": {},
        "over_tolerance": [],
        "new_domains": [],
        "not_compared": [],
        "mean": 2.0,
        "low": -0.5,
        "high": 4.5,
        "metric": "accuracy",
        "guard": guard(),
        **more,
    }


def guard(*failed: str, promoted: bool = True) -> dict[str, Any]:
    """A verdict as JSON."""
    return {"promoted": promoted, "failed": list(failed), "uncertain": [], "mean_failed": False}


def _change(domain: str, points: float, low: float = -0.5, high: float = 4.5) -> dict[str, Any]:
    return {
        "domain": domain,
        "before": 0.88,
        "after": 0.88 + points / 100,
        "points": points,
        "low": low,
        "high": high,
        "count": 200,
        "tolerance": 1.0,
        "over_tolerance": False,
        "significant": False,
    }


def _plain(name: str, parent: str | None) -> dict[str, Any]:
    losses = [{"name": "fd", "weight": 1.0, "options": {}}, {"name": "crd", "weight": 0.5, "options": {}}]
    return {
        "format": Lineage.FORMAT,
        "version": name,
        "parent": parent,
        "created": "2026-03-01T12:00:00+00:00",
        "student": {"family": "open_clip", "config": {}, "identity": {}},
        "teachers": [],
        "recipe": {
            "name": "mine",
            "summary": "short",
            "losses": losses,
            "trust": {"policy": "threshold", "options": {"value": 0.5}},
            "optimizer": {"lr": 1e-3, "batch_size": 24, "steps": 40},
        },
        "data": {
            "samples": {"ct": 36},
            "known": ["ct"],
            "fresh": 36,
            "replayed": 0,
            "skipped_samples": 0,
            "domains_without_teacher": [],
            "domains_without_rehearsal": [],
        },
        "training": {
            "steps": 40,
            "batch_size": 24,
            "lr": 1e-3,
            "seed": 0,
            "previous": None,
            "seconds": 12.3,
            "machine": {"processes": 1, "device": "cpu", "precision": "no", "building_seconds": 0.5},
            "log": [],
            "digest": name,
        },
        "environment": {
            "kdkit": "0.1.0",
            "python": "3.11.7",
            "torch": "2.15.0",
            "platform": "Linux",
            "plugins": {"kdkit": "0.1.0"},
        },
        "scores": {"split": "calibration", "mean": {"accuracy": 0.9}, "domains": {}},
    }
