"""Every spec of every built-in plugin is complete and leads to something."""

from __future__ import annotations

import dataclasses
import inspect
import json
from importlib.resources import files

import pytest

from kdkit.core.contracts import FactorySpec, RecipeSpec, StudentSpec, TeacherSpec
from kdkit.core.plugin_system.catalogue import FAMILIES, Entry, resolve
from kdkit.core.plugin_system.discovery import discover
from kdkit.core.plugin_system.installed import BUILT_IN, installed

CATALOGUE = discover(plugin for plugin in installed() if plugin.built_in)
ENTRIES = [(family, entry) for family in FAMILIES for entry in CATALOGUE.entries(family)]
IDS = [f"{family}-{entry.spec.name}" for family, entry in ENTRIES]
MADE = [(e.spec, name) for (_, e), name in zip(ENTRIES, IDS, strict=True) if isinstance(e.spec, FactorySpec)]


def test_every_built_in_plugin_works() -> None:
    assert CATALOGUE.records
    assert [(record.name, record.error) for record in CATALOGUE.records if record.status != "ok"] == []


def test_families_are_there() -> None:
    """RoPE variants come with the vision-language students."""
    assert {family for family in FAMILIES if not CATALOGUE.entries(family)} <= {"rope"}


@pytest.mark.parametrize(("family", "entry"), ENTRIES, ids=IDS)
def test_a_spec_is_complete_plain_data(family: str, entry: Entry) -> None:
    spec = entry.spec
    assert entry.provider == BUILT_IN
    assert spec.summary.strip() == spec.summary != ""
    assert "\n" not in spec.summary
    assert json.loads(json.dumps(dataclasses.asdict(spec)))["name"] == spec.name
    if isinstance(spec, TeacherSpec):
        assert family == "teacher"
        assert spec.source.partition(":")[0] in ("hf", "https", "local", "package") or spec.unavailable
        assert spec.loader in CATALOGUE.names("loader") or (spec.loader == "" and spec.unavailable)
    elif isinstance(spec, RecipeSpec):
        package, _, name = spec.resource.partition(":")
        assert files(package).joinpath(name).is_file()


@pytest.mark.parametrize("spec", [pytest.param(s, id=name) for s, name in MADE])
def test_what_a_spec_names_exists_and_takes_the_options(spec: FactorySpec) -> None:
    factory = resolve(spec.factory)
    inspect.signature(factory).bind_partial(**spec.options)
    if isinstance(spec, StudentSpec):
        inspect.signature(resolve(spec.loader)).bind("folder")
