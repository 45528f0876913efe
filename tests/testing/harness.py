"""Runs a contract on something that no plugin provides: what these tests get wrong on purpose."""

from __future__ import annotations

from typing import Any

from kdkit.core.plugin_system.catalogue import FAMILIES, FAMILY_OF, Catalogue, Entry
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.testing import Contract
from kdkit.testing.verify import Check, run_checks

PROVIDER = "tests"


def found_by(
    base: type[Contract], factory: str = "", /, *, spec: dict[str, Any] | None = None, **given: Any
) -> list[Check]:
    """The checks of ``base``, with the attributes ``given``, on an entry with ``factory`` and the fields ``spec``."""
    kind = next(kind for kind, family in FAMILY_OF.items() if family == base.family)
    fields = {"name": "it", "summary": "on purpose", **({"factory": factory} if factory else {}), **(spec or {})}
    entry = Entry(kind(**fields), PROVIDER, "1.0")
    contract = type("Subject", (base,), {"name": "tests:it", "catalogue": with_entry(base, entry), **given})
    return list(run_checks(contract, "it"))


def with_entry(base: type[Contract], entry: Entry) -> Catalogue:
    """The catalogue, and one entry more."""
    catalogue = load_catalogue()
    contents = {family: catalogue.entries(family) for family in FAMILIES}
    return Catalogue(catalogue.records, {**contents, base.family: (*contents[base.family], entry)})


def failed(checks: list[Check]) -> dict[str, str]:
    """Name of each check that failed -> its message."""
    return {check.name: check.message for check in checks if check.status == "failed"}


def skipped(checks: list[Check]) -> set[str]:
    """Names of the checks that were skipped."""
    return {check.name for check in checks if check.status == "skipped"}
