"""Slow plugins, incomplete installations, and distributions that pretend to be kdkit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdkit.core.contracts import LossSpec
from kdkit.core.plugin_system import loading
from kdkit.core.plugin_system.discovery import Catalogue, discover
from kdkit.core.plugin_system.installed import installed
from tests.conftest import write_distribution
from tests.installed_plugins import GOOD, record_of


def test_a_slow_import_is_reported_with_the_name_of_the_plugin(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_distribution(site, "kdkit-quick", GOOD.format(name="quick"), version="3.5")
    write_distribution(site, "kdkit-slow", "import time\ntime.sleep(1)\n" + GOOD.format(name="slow"), version="2.5")
    monkeypatch.setattr(loading, "SLOW", 0.3)
    catalogue = discover(plugin for plugin in installed() if not plugin.built_in)
    assert {"quick", "slow"} <= set(catalogue.names("loss"))
    (notice,) = capsys.readouterr().err.splitlines()
    assert record_of(catalogue, "kdkit-slow").title in notice
    assert "kdkit-slow 2.5" in notice
    assert "--no-plugins" in notice


def test_a_missing_dependency_is_named_with_the_command_that_installs_it(site: Path) -> None:
    write_distribution(site, "kdkit-needy", "import einsums")
    requires = "Requires-Dist: einsums-pack>=2,<3\nRequires-Dist: nowhere; extra == 'x'\nRequires-Dist: pluggy>=99\n"
    with (site / "kdkit_needy-1.0.dist-info" / "METADATA").open("a") as metadata:
        metadata.write(requires)
    error = record_of(discover(installed()), "kdkit-needy").error
    assert "'einsums'" in error
    assert "einsums-pack<3,>=2 (" in error
    assert "pluggy>=99 (1." in error
    assert error.split()[-4:] == ["kdkit", "install", "'einsums-pack<3,>=2'", "'pluggy>=99'"]


def test_an_undeclared_dependency_is_named(site: Path) -> None:
    write_distribution(site, "kdkit-needy", "import einsums")
    error = record_of(discover(installed()), "kdkit-needy").error
    assert error.startswith("ModuleNotFoundError: ")
    assert error.endswith(f"'einsums' ({site / 'kdkit_needy.py'}:1)")


@pytest.mark.parametrize("gone", ["kdkit_old.plugin", "kdkit_other", "kdkit_old:Plugin.hooks"])
def test_an_entry_point_that_no_longer_exists(gone: str, site: Path) -> None:
    write_distribution(site, "kdkit-old", GOOD.format(name="old"), entry_points=f"[kdkit]\nold = {gone}\n")
    record = record_of(discover(installed()), "kdkit-old")
    assert record.status == "broken"
    assert f"entry point {gone} " in record.error


def test_a_distribution_named_kdkit_is_not_built_in(site: Path, fresh_catalogue: Callable[..., Catalogue]) -> None:
    points = "[kdkit]\nkdkit-losses = kdkit_evil\n"
    write_distribution(site, "kdkit", GOOD.format(name="fd"), version="9.9", entry_points=points)
    (site / "kdkit.py").rename(site / "kdkit_evil.py")
    catalogue = discover(installed())
    (false,) = [record for record in catalogue.records if record.version == "9.9"]
    assert false.error.startswith("TypeError: ")
    assert "kdkit_evil" in false.error
    assert catalogue.spec(LossSpec, "fd").summary != "Of fd."
    assert "kdkit_evil" not in sys.modules
    fresh_catalogue(KDKIT_NO_PLUGINS="1", KDKIT_STRICT="1")  # it is not loaded either
