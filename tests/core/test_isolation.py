"""Plugins that hang, that lack something, or that pretend to be kdkit: they are left out, and nothing else is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdkit.core.contracts import LossSpec
from kdkit.core.plugin_system.discovery import Catalogue, discover
from kdkit.core.plugin_system.hang_cache import Hang, remember
from kdkit.core.plugin_system.installed import installed
from tests.conftest import write_distribution
from tests.installed_plugins import GOOD, IMPORTS, record_of

# ------------------------------------------------------------------------- hanging plugins
# Each has a module name of its own: a thread that hangs in an import holds the lock of that name.


def test_a_plugin_that_hangs_is_left_out_and_remembered(site: Path) -> None:
    write_distribution(site, "kdkit-a", GOOD.format(name="a"))
    write_distribution(site, "kdkit-hang", "import time\ntime.sleep(10**6)", version="2.5")
    write_distribution(site, "kdkit-z", GOOD.format(name="z"))
    for waited in (True, False):
        catalogue = discover(installed(), seconds=3)
        record = record_of(catalogue, "kdkit-hang")
        assert (record.status, record.version) == ("broken", "2.5")
        place = f"did not finish importing in 3 s ({site / 'kdkit_hang.py'}:2); left out for a day"
        assert record.error.startswith(place)
        assert "'kdkit plugins verify kdkit-hang' tries again" in record.error
        assert (record.milliseconds >= 3000) == waited
        assert {"a", "z"} <= set(catalogue.names("loss"))


def test_a_hook_that_hangs_is_a_plugin_that_hangs(site: Path) -> None:
    source = IMPORTS + "import time\n@hookimpl\ndef kdkit_losses():\n  time.sleep(10**6)"
    write_distribution(site, "kdkit-halt", source)
    record = record_of(discover(installed(), seconds=1), "kdkit-halt")
    assert f"did not finish importing in 1 s ({site / 'kdkit_halt.py'}:5)" in record.error


def test_it_is_tried_again_when_its_code_changes_or_the_limit_is_raised(site: Path) -> None:
    def error(seconds: float) -> str:
        return record_of(discover(installed(), seconds=seconds), "kdkit-late").error

    write_distribution(site, "kdkit-late", "import time\ntime.sleep(1)\n" + GOOD.format(name="late"))
    assert "in 0.2 s" in error(seconds=0.2)
    assert "in 0.2 s" in error(seconds=0.1)
    assert error(seconds=60) == ""
    (late,) = [plugin for plugin in installed() if plugin.distribution == "kdkit-late"]
    remember(late, Hang(time.time(), 60, ""))
    assert "in 60 s" in error(seconds=60)
    (site / "kdkit_late.py").write_text(GOOD.format(name="late"))
    assert error(seconds=60) == ""


# ------------------------------------------------------------------ incomplete installations


def test_a_missing_dependency_is_named_with_what_to_install(site: Path) -> None:
    write_distribution(site, "kdkit-needy", "import einsums")
    requires = "Requires-Dist: einsums-pack>=2,<3\nRequires-Dist: nowhere; extra == 'x'\nRequires-Dist: pluggy>=99\n"
    with (site / "kdkit_needy-1.0.dist-info" / "METADATA").open("a") as metadata:
        metadata.write(requires)
    error = record_of(discover(installed()), "kdkit-needy").error
    assert "No module named 'einsums'" in error
    assert "it requires einsums-pack<3,>=2 (not installed), pluggy>=99 (1." in error
    assert error.endswith("kdkit install 'einsums-pack<3,>=2' 'pluggy>=99'")


def test_an_undeclared_dependency_is_named(site: Path) -> None:
    write_distribution(site, "kdkit-needy", "import einsums")
    error = record_of(discover(installed()), "kdkit-needy").error
    assert error == f"ModuleNotFoundError: No module named 'einsums' ({site / 'kdkit_needy.py'}:1)"


@pytest.mark.parametrize("gone", ["kdkit_old.plugin", "kdkit_other", "kdkit_old:Plugin.hooks"])
def test_an_entry_point_that_no_longer_exists(gone: str, site: Path) -> None:
    write_distribution(site, "kdkit-old", GOOD.format(name="old"), entry_points=f"[kdkit]\nold = {gone}\n")
    record = record_of(discover(installed()), "kdkit-old")
    assert record.status == "broken"
    assert record.error.startswith(f"its entry point {gone} does not exist (")
    assert record.error.endswith("reinstall or uninstall it")


def test_what_calls_itself_kdkit_is_not_built_in(site: Path, fresh_catalogue: Callable[..., Catalogue]) -> None:
    points = "[kdkit]\nkdkit-losses = kdkit_evil\n"
    write_distribution(site, "kdkit", GOOD.format(name="fd"), version="9.9", entry_points=points)
    (site / "kdkit.py").rename(site / "kdkit_evil.py")
    catalogue = discover(installed())
    (false,) = [record for record in catalogue.records if record.version == "9.9"]
    assert false.error.startswith("TypeError: kdkit_evil is no part of kdkit")
    assert catalogue.spec(LossSpec, "fd").summary != "Of fd."
    assert "kdkit_evil" not in sys.modules
    fresh_catalogue(KDKIT_NO_PLUGINS="1", KDKIT_STRICT="1")  # it is not loaded either
