"""``kdkit plugins`` shows every plugin, whatever its state."""

from __future__ import annotations

import json

from tests.conftest import Cli, InstallPlugin

LOSS = """
from kdkit import LossSpec, hookimpl

@hookimpl
def kdkit_losses():
    return [LossSpec(name="{name}", summary="A loss.", factory="builtins:dict")]
"""


def test_the_listing_as_json(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-good", LOSS.format(name="fine"), version="1.2")
    install_plugin("kdkit-bad", "import nothing_like_this")
    install_plugin("kdkit-idle", LOSS.format(name="idle"))
    install_plugin("kdkit-new", "KDKIT_API = 99")
    outcome = kdkit_cli("plugins", "--json", env={"KDKIT_PLUGINS": "good,bad,new"})
    records = {record["name"]: record for record in json.loads(outcome.stdout)["plugins"]}

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
    assert "No module named 'nothing_like_this'" in records["bad"]["error"]
    assert (records["idle"]["status"], records["idle"]["milliseconds"]) == ("disabled", 0)
    assert records["new"]["status"] == "incompatible"
    built_in = [record for record in records.values() if record["distribution"] == "kdkit"]
    assert built_in
    assert {record["status"] for record in built_in} == {"ok"}


def test_the_listing_as_text(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-good", LOSS.format(name="fine"), version="1.2")
    install_plugin("kdkit-taken", LOSS.format(name="fine"))
    install_plugin("kdkit-bad", "import nothing_like_this")
    lines = kdkit_cli("plugins").stdout.splitlines()
    assert lines[0].split() == ["plugin", "distribution", "version", "status", "ms", "provides"]
    (good,) = [line.split() for line in lines if line.startswith("good  ")]
    assert (good[:4], good[5:]) == (["good", "kdkit-good", "1.2", "ok"], ["loss:", "fine"])
    (bad,) = [line.split() for line in lines if line.startswith("bad  ")]
    assert (bad[3], bad[5]) == ("broken", "-")
    assert "good of kdkit-good 1.2: kdkit-taken has a loss 'fine' too: say 'kdkit-good:fine'" in lines
    assert any(line.startswith("bad of kdkit-bad 1.0: ModuleNotFoundError") for line in lines)


def test_the_listing_as_text_is_short(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    names = ", ".join(f'LossSpec(name="l{n}", summary="s", factory="builtins:dict")' for n in range(8))
    install_plugin("kdkit-many", LOSS.format(name="l")[: LOSS.index("    return")] + f"    return [{names}]")
    outcome = kdkit_cli("plugins")
    assert "loss: l0, l1, l2, l3, l4 and 3 more\n" in outcome.stdout


def test_a_plugin_that_prints_does_not_spoil_the_json(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-loud", "print('look at me')\n" + LOSS.format(name="loud"))
    outcome = kdkit_cli("plugins", "--json")
    assert any(record["name"] == "loud" for record in json.loads(outcome.stdout)["plugins"])
    assert "look at me" in outcome.stderr


def test_no_plugins_leaves_the_built_ins(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-bad", "import nothing_like_this")
    outcome = kdkit_cli("--no-plugins", "plugins", "--json")
    statuses = {r["distribution"]: r["status"] for r in json.loads(outcome.stdout)["plugins"]}
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


def test_verify_prints_every_promise(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-good", POLICY.format(name="good", weight=1.0))
    outcome = kdkit_cli("plugins", "verify", "kdkit-good")
    assert outcome.code == 0, outcome.stdout
    lines = outcome.stdout.splitlines()
    assert lines[:3] == ["kdkit-good 1.0", "", "kdkit-good"]
    assert "policy kdkit-good:good" in lines
    assert "  passed   Weights are finite and in [0, 1], whatever is NaN in the table." in lines
    assert lines[-1].startswith("12 passed, 0 failed, 0 skipped in ")


def test_verify_says_how_to_give_examples(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    """A source cannot be checked without one."""
    install_plugin("kdkit-rows", SOURCE)
    lines = kdkit_cli("plugins", "verify", "kdkit-rows").stdout.splitlines()
    assert lines[-3] == "with examples from the plugin's own tests: kdkit plugins verify kdkit-rows --tests FILE"


def test_verify_says_what_failed(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-high", POLICY.format(name="high", weight=7.0))
    outcome = kdkit_cli("plugins", "verify", "high")
    assert outcome.code == 1
    lines = outcome.stdout.splitlines()
    place = lines.index("  FAILED   Weights are finite and in [0, 1], whatever is NaN in the table.")
    assert lines[place + 1] == "           test_range: expected weights in [0, 1], got 0 to 7"
    report = json.loads(kdkit_cli("plugins", "verify", "high", "--json").stdout)
    assert (report["plugin"], report["version"], report["broken"], report["ok"]) == ("kdkit-high", "1.0", False, False)
    assert [check["name"] for check in report["checks"] if check["status"] == "failed"] == ["test_range"]


def test_verify_of_a_broken_plugin(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-bad", "import nothing_like_this")
    outcome = kdkit_cli("plugins", "verify", "kdkit-bad")
    assert outcome.code == 5
    assert "test_loads: plugin 'bad' is broken: ModuleNotFoundError: No module named" in outcome.stdout
    assert "  skipped  6 checks: it does not load" in outcome.stdout


def test_verify_of_what_is_not_installed(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("plugins", "verify", "kdkit-nowhere")
    assert (outcome.code, outcome.stdout) == (3, "")
    assert "error: no plugin 'kdkit-nowhere' is installed" in outcome.stderr
    assert "do: did you mean 'kdkit-losses'?" in kdkit_cli("plugins", "verify", "kdkit-loses").stderr
