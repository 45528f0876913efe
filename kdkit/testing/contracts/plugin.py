"""Checks of a distribution: its plugin modules are light and quick, and their specs resolve."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, ClassVar

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.subprocesses import run_python
from kdkit.core.contracts import FactorySpec, RecipeSpec, Spec, StudentSpec, SuiteSpec
from kdkit.core.plugin_system.catalogue import Catalogue, Family, PluginRecord, resolve
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.plugin_system.installed import installed, normal
from kdkit.testing.contract import skip

HEAVY = ("torch", "transformers", "open_clip", "timm", "accelerate", "sklearn", "scipy", "pandas", "huggingface_hub")
"""Packages that a plugin module must not import: each costs every command a good part of a second, or seconds."""

_MEASURE = """
import json, sys
from importlib.metadata import EntryPoint
from time import process_time
import kdkit.core.contracts, kdkit.core.plugin_system.discovery, kdkit.core.base.errors
from kdkit import hookimpl
before, start = set(sys.modules), process_time()
for value in sys.argv[2:]:
    module = EntryPoint("plugin", value, "kdkit").load()
    for name in kdkit.core.plugin_system.discovery.HOOKS:
        if callable(hook := getattr(module, name, None)):
            list(hook())
seconds = process_time() - start
heavy = sorted(set(sys.argv[1].split(",")) & (set(sys.modules) - before))
print("\\n" + json.dumps({"seconds": seconds, "heavy": heavy}))
"""


class PluginContract:
    """Subclass with ``name``, the distribution.

    Attributes:
        name: of the distribution, as ``pip install`` knows it.
        import_seconds: limit of processor time for importing its plugin modules and calling their hooks.
    """

    name: ClassVar[str]
    import_seconds: ClassVar[float] = 0.15

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue of this process."""
        return load_catalogue()

    def records(self) -> list[PluginRecord]:
        """The load record of each plugin of the distribution."""
        found = [record for record in self.catalogue.records if record.distribution == normal(self.name)]
        known = sorted({record.distribution for record in self.catalogue.records})
        assert found, f"no plugin of '{self.name}' is installed (installed: {', '.join(known)}); run 'pip install -e .'"
        return found

    def loaded(self) -> list[PluginRecord]:
        """The plugins that loaded; the other checks run on these."""
        found = [record for record in self.records() if record.status == "ok"]
        if not found:
            raise skip("it does not load")
        return found

    def specs(self) -> Iterator[tuple[Family, Spec]]:
        """Everything that the distribution provides."""
        for record in self.loaded():
            for family, names in record.provides.items():
                for name in names:
                    yield family, self.catalogue.get(family, f"{normal(self.name)}:{name}").spec

    def test_loads(self) -> None:
        """Every entry point of the distribution loads, and what its hooks return is specs with valid, unique names."""
        for record in self.records():
            assert record.status == "ok", f"plugin '{record.name}' is {record.status}: {record.error or 'not loaded'}"

    def test_provides_something(self) -> None:
        """There is at least one spec."""
        hint = "is a hook misnamed, or without @hookimpl?"
        assert any(record.provides for record in self.loaded()), f"no hook returned a spec; {hint}"

    def test_light(self) -> None:
        """In a fresh interpreter the plugin modules import neither torch nor another heavy package."""
        heavy = self._measured()["heavy"]
        assert not heavy, f"importing the plugin imports {', '.join(heavy)}; name factories by import strings instead"

    def test_quick(self) -> None:
        """In a fresh interpreter the plugin modules are imported, and their hooks called, within ``import_seconds``."""
        took = float(self._measured()["seconds"])
        if took > self.import_seconds:  # once may be chance: a cold cache of files, compiling
            took = min(took, *(self._measured()["seconds"] for _ in range(2)))
        limit = f"{self.import_seconds * 1000:.0f} ms"
        assert took <= self.import_seconds, f"expected at most {limit}, took {took * 1000:.0f} ms: every command waits"

    def test_specs_are_plain_data(self) -> None:
        """Every spec is JSON, and its summary is one line."""
        for family, spec in self.specs():
            what = f"{family} '{spec.name}'"
            try:
                data = json.loads(json.dumps(dataclasses.asdict(spec)))
            except (TypeError, ValueError) as error:
                raise AssertionError(f"{what} is not plain data: {error}; keep to text, numbers, lists, maps") from None
            assert data["name"] == spec.name, f"{what} changes its name in JSON"
            one_line = spec.summary and spec.summary == " ".join(spec.summary.split())
            assert one_line, f"{what}: expected a summary of one line, got {spec.summary!r}"

    def test_import_strings_resolve(self) -> None:
        """Every ``factory``, ``loader`` and ``resource`` names something that exists."""
        for family, spec in self.specs():
            what = f"{family} '{spec.name}'"
            for text in _import_strings(spec):
                try:
                    found = resolve(text)
                except KdkitError as error:
                    raise AssertionError(f"{what}: '{text}' does not resolve: {error.why}") from None
                assert callable(found), f"{what}: '{text}' is a {type(found).__name__}, which cannot be called"
            if isinstance(spec, RecipeSpec | SuiteSpec):
                package, _, file = spec.resource.partition(":")
                there = files(package).joinpath(file).is_file()
                assert there, f"{what}: there is no file '{spec.resource}'; is it package data?"

    def test_options_fit_factories(self) -> None:
        """Every factory takes the options of its spec."""
        for family, spec in self.specs():
            if isinstance(spec, FactorySpec):
                signature = _signature(resolve(spec.factory))
                unknown = [] if signature is None else _unknown(signature, spec)
                assert not unknown, f"{family} '{spec.name}': '{spec.factory}' takes no option {', '.join(unknown)}"

    def _measured(self) -> dict[str, Any]:
        """Seconds of processor time, and the heavy packages, of importing the plugins and calling their hooks."""
        names = {record.name for record in self.loaded()}
        mine = [plugin.point for plugin in installed() if plugin.distribution == normal(self.name)]
        values = [point.value for point in mine if point.name in names]
        here = {"", os.getcwd()}
        done = run_python(
            ["-c", _MEASURE, ",".join(HEAVY), *values],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path not in here)},
            capture_output=True,
            timeout=300,
        )
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 0, f"the plugin cannot be imported: {lines[-1] if lines else 'no message'}"
        measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return measured


def _import_strings(spec: Spec) -> Iterator[str]:
    if isinstance(spec, FactorySpec):
        yield spec.factory
    if isinstance(spec, StudentSpec):
        yield spec.loader


def _signature(factory: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(factory)
    except ValueError:  # written in C
        return None


def _unknown(signature: inspect.Signature, spec: FactorySpec) -> list[str]:
    parameters = signature.parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return []
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return [option for option in spec.options if option not in named]
