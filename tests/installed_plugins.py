"""Texts of plugins for tests that install some, and what became of them."""

from __future__ import annotations

from kdkit.core.plugin_system.catalogue import Catalogue, PluginRecord

GOOD = """
from kdkit import LossSpec, hookimpl

@hookimpl
def kdkit_losses():
    yield LossSpec(name="{name}", summary="Of {name}.", factory="builtins:dict")
"""
IMPORTS = "from kdkit import AlignerSpec, LossSpec, hookimpl\n"


def record_of(catalogue: Catalogue, distribution: str) -> PluginRecord:
    (record,) = [record for record in catalogue.records if record.distribution == distribution]
    return record
