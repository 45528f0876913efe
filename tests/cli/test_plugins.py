"""``kdkit plugins``: list, verify."""

from __future__ import annotations

from tests.conftest import Cli, InstallPlugin

LOSS = """
from kdkit import LossSpec, hookimpl

@hookimpl
def kdkit_losses():
    return [LossSpec(name="{name}", summary="A loss.", factory="builtins:dict")]
"""


def test_list_as_json(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-good", LOSS.format(name="fine"), version="1.2")
    install_plugin("kdkit-bad", "import nothing_like_this")
    install_plugin("kdkit-idle", LOSS.format(name="idle"))
    install_plugin("kdkit-new", "KDKIT_API = 99")
    outcome = kdkit_cli("plugins", "--json", env={"KDKIT_PLUGINS": "good,bad,new"})
    records = {record["name"]: record for record in outcome.json["plugins"]}

    good = records["good"]
    assert good.pop("milliseconds") > 0
    assert good == {
        "name": "good",
        "distribution": "kdkit-good",
        "version": "1.2",
        "status": "ok",
        "error": "",
        "hooks": ["kdkit_losses"],
        "provides": {"loss": ["fine"]},
        "notes": [],
    }
    assert records["bad"]["status"] == "broken"
    assert "'nothing_like_this'" in records["bad"]["error"]
    assert (records["idle"]["status"], records["idle"]["milliseconds"]) == ("disabled", 0)
    assert records["new"]["status"] == "incompatible"
    built_in = [record for record in records.values() if record["distribution"] == "kdkit"]
    assert built_in
    assert {record["status"] for record in built_in} == {"ok"}


def test_list_as_text(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-good", LOSS.format(name="fine"), version="1.2")
    install_plugin("kdkit-taken", LOSS.format(name="fine"))
    install_plugin("kdkit-bad", "import nothing_like_this")
    lines = kdkit_cli("plugins").stdout.splitlines()
    assert lines[0].split() == ["plugin", "distribution", "version", "status", "ms", "provides"]
    (good,) = [line.split() for line in lines if line.startswith("good  ")]
    assert (good[:4], good[5:]) == (["good", "kdkit-good", "1.2", "ok"], ["loss:", "fine"])
    (bad,) = [line.split() for line in lines if line.startswith("bad  ")]
    assert (bad[3], bad[5]) == ("broken", "-")
    assert any("kdkit-good 1.2: " in line and "'kdkit-good:fine'" in line for line in lines)
    assert any("kdkit-bad 1.0" in line and "ModuleNotFoundError" in line for line in lines)


def test_long_lists_of_names_are_shortened(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    names = ", ".join(f'LossSpec(name="l{n}", summary="s", factory="builtins:dict")' for n in range(8))
    install_plugin("kdkit-many", LOSS.format(name="l")[: LOSS.index("    return")] + f"    return [{names}]")
    outcome = kdkit_cli("plugins")
    assert "loss: l0, l1, l2, l3, l4" in outcome.stdout
    assert "l5" not in outcome.stdout


def test_a_plugin_that_prints_leaves_the_json_intact(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    loud = "import os\nprint('noise')\nos.write(1, b'raw')\nos.system('echo child')\n"
    install_plugin("kdkit-loud", loud + LOSS.format(name="loud"))
    outcome = kdkit_cli("plugins", "--json")
    assert any(record["name"] == "loud" for record in outcome.json["plugins"])
    assert {"noise", "raw", "child"} <= set(outcome.stderr.replace("raw", "raw ").split())


def test_no_plugins_keeps_the_built_ins(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-bad", "import nothing_like_this")
    outcome = kdkit_cli("--no-plugins", "plugins", "--json")
    statuses = {r["distribution"]: r["status"] for r in outcome.json["plugins"]}
    assert statuses["kdkit"] == "ok"
    assert statuses["kdkit-bad"] == "disabled"
    assert outcome.stderr == ""


SOURCE = """
from kdkit import SourceSpec, hookimpl

@hookimpl
def kdkit_sources():
    return [SourceSpec(name="rows", summary="Rows.", factory="kdkit.plugins.sources.manifest:CsvManifest")]
"""
POLICY = """
from kdkit import TrustPolicySpec, hookimpl

@hookimpl
def kdkit_trust_policies():
    return [TrustPolicySpec(name="{name}", summary="A policy.", factory="kdkit_{name}:Everywhere")]

class Everywhere:
    def __call__(self, table):
        return (table.accuracy == table.accuracy) * {weight}
"""


def test_verify_prints_every_check(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-good", POLICY.format(name="good", weight=1.0))
    outcome = kdkit_cli("plugins", "verify", "kdkit-good")
    assert outcome.code == 0, outcome.stdout
    lines = outcome.stdout.splitlines()
    assert lines[:3] == ["kdkit-good 1.0", "", "kdkit-good"]
    assert ["policy", "kdkit-good:good"] in [line.split() for line in lines]
    assert sum(line.startswith("  passed   ") for line in lines) == 12


def test_verify_names_the_option_for_examples(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    """A source cannot be checked without one."""
    install_plugin("kdkit-rows", SOURCE)
    lines = kdkit_cli("plugins", "verify", "kdkit-rows").stdout.splitlines()
    assert lines[-3].split()[-6:] == ["kdkit", "plugins", "verify", "kdkit-rows", "--tests", "FILE"]


def test_verify_reports_failed_checks(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-high", POLICY.format(name="high", weight=7.0))
    outcome = kdkit_cli("plugins", "verify", "high")
    assert outcome.code == 1
    lines = outcome.stdout.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("  FAILED   ")]
    assert lines[place + 1].startswith("           test_range: ")
    report = kdkit_cli("plugins", "verify", "high", "--json").json
    assert (report["plugin"], report["version"], report["broken"], report["ok"]) == ("kdkit-high", "1.0", False, False)
    assert [check["name"] for check in report["checks"] if check["status"] == "failed"] == ["test_range"]


def test_verify_of_a_broken_plugin(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-bad", "import nothing_like_this")
    outcome = kdkit_cli("plugins", "verify", "kdkit-bad")
    assert outcome.code == 5
    assert "test_loads: " in outcome.stdout
    assert "ModuleNotFoundError" in outcome.stdout
    assert "  skipped  6 checks: " in outcome.stdout


def test_verify_of_a_missing_plugin(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("plugins", "verify", "kdkit-nowhere")
    assert (outcome.code, outcome.stdout, outcome.error) == (3, "", "KD-TEST-006")
    assert "'kdkit-losses'" in kdkit_cli("plugins", "verify", "kdkit-loses").stderr


def test_misspelled_variables_and_plugins_are_warnings(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("plugins", "freeze", env={"KDKIT_PLUGIN": "x", "KDKIT_PLUGINS": "kdkit-lossses"})
    assert outcome.code == 0
    variable, plugin = outcome.stderr.splitlines()
    assert "'KDKIT_PLUGINS'" in variable
    assert "'kdkit-lossses'" in plugin


def test_a_plugin_that_ends_the_process_is_named(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    source = """
import sys
from kdkit import SourceSpec, hookimpl

@hookimpl
def kdkit_sources():
    return [SourceSpec(name="leaves", summary="s", factory="kdkit_leaving:read")]

def read(location):
    yield sys.exit(0)
"""
    install_plugin("kdkit-leaving", source, version="1.5")
    registry = "version: 1\nteachers: {}\ndata: [{source: leaves, path: .}]\n"
    (kdkit_cli.folder / "registry.yaml").write_text(registry)
    outcome = kdkit_cli("data", "check", "--json")
    assert (outcome.code, outcome.error, outcome.json["error"]["where"]) == (5, "KD-PLUG-012", "kdkit-leaving 1.5")
