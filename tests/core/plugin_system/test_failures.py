"""Errors of a plugin name its distribution; others pass."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.plugin_system.catalogue import resolve
from kdkit.core.plugin_system.failures import plugin_errors
from tests.conftest import write_distribution
from tests.errors import raises_error

FAULTY = """
class Faulty:
    def fail(self):
        raise ValueError("two\\nlines")
    def leave(self):
        raise SystemExit(0)
    def lack(self):
        import einsums
"""


@pytest.fixture
def faulty(site: Path) -> Any:
    """An object of the plugin kdkit-faulty 2.5."""
    write_distribution(site, "kdkit-faulty", FAULTY, version="2.5")
    return import_module("kdkit_faulty").Faulty()


@pytest.mark.parametrize(("method", "reason"), [("fail", "ValueError: two lines"), ("leave", "SystemExit: 0")])
def test_the_plugin_is_named(method: str, reason: str, faulty: Any) -> None:
    with (
        raises_error("KD-PLUG-012", where="kdkit-faulty 2.5", mentions=("sample 's'", reason), code=ExitCode.PLUGIN),
        plugin_errors("sample 's'"),
    ):
        getattr(faulty, method)()


def test_a_missing_module_gets_its_command(faulty: Any, site: Path) -> None:
    with raises_error("KD-PLUG-012") as caught, plugin_errors("x"):
        faulty.lack()
    assert caught.value.fix.startswith("kdkit install einsums ")
    with (site / "kdkit_faulty-2.5.dist-info" / "METADATA").open("a") as metadata:
        metadata.write("Requires-Dist: einsums-pack>=2\n")
    with raises_error("KD-PLUG-012") as caught, plugin_errors("x"):
        faulty.lack()
    assert caught.value.fix == "kdkit install 'einsums-pack>=2'"
    write_distribution(site, "kdkit-lazy", "import einsums")
    with raises_error("KD-PLUG-004", where="kdkit_lazy:Loss") as caught:
        resolve("kdkit_lazy:Loss")
    assert caught.value.fix.startswith("kdkit install einsums ")


def test_plugins_of_one_namespace_package_are_told_apart(site: Path) -> None:
    for name in ("one", "two"):
        write_distribution(site, f"kdkit-{name}", "", entry_points=f"[kdkit]\n{name} = kdkit_acme.{name}.plugin\n")
        (site / "kdkit_acme" / name).mkdir(parents=True)
        (site / "kdkit_acme" / name / "loss.py").write_text(FAULTY)
    for name in ("one", "two"):
        with raises_error("KD-PLUG-012", where=f"kdkit-{name} 1.0"), plugin_errors("x"):
            import_module(f"kdkit_acme.{name}.loss").Faulty().fail()


def own() -> None:
    raise ValueError("kdkit's own")


def test_other_errors_pass(faulty: Any) -> None:
    with pytest.raises(ValueError, match="own"), plugin_errors("x"):
        own()
    with pytest.raises(SystemExit), plugin_errors("x"):
        raise SystemExit(3)
    with pytest.raises(KeyboardInterrupt), plugin_errors("x", faulty):
        raise KeyboardInterrupt
    with raises_error("KD-PLUG-012"), plugin_errors("what it returned does not fit", faulty):
        own()
    with raises_error("X-001"), plugin_errors("x", faulty):
        raise KdkitError("X-001", "known")
