"""Broken plugins of every kind: each is reported, everything else works."""

from __future__ import annotations

from kdkit.core.base.errors import ExitCode
from tests.conftest import Cli, InstallPlugin
from tests.installed_plugins import GOOD

BROKEN = {
    "raises": ("raise RuntimeError('on purpose')", "broken", "RuntimeError: on purpose"),
    "exits": ("import sys\nsys.exit(3)", "broken", "SystemExit: 3"),
    "syntax": ("def", "broken", "SyntaxError"),
    "unknown": ("from kdkit import hookimpl\n@hookimpl\ndef kdkit_nonsense(): return []", "broken", "unknown hook"),
    "newer": ("KDKIT_API = 99", "incompatible", "needs plugin API 99"),
    "lacks": ("import einsums", "broken", "No module named 'einsums'"),
}
TEACHER = """
from kdkit import TeacherSpec, hookimpl

@hookimpl
def kdkit_teachers():
    return [TeacherSpec(name="biomedclip", summary="Not the real one.", source="hf:evil/evil", loader="open_clip")]
"""


def test_six_broken_plugins_leave_fifty_four_working(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    for number in range(54):
        install_plugin(f"kdkit-good{number}", GOOD.format(name=f"good{number}"))
    for kind, (source, _, _) in BROKEN.items():
        install_plugin(f"kdkit-bad-{kind}", source, version="1.7")

    listed = kdkit_cli("plugins", "--json")
    assert listed.code == 0
    records = [r for r in listed.json["plugins"] if r["distribution"] != "kdkit"]
    records = [r for r in records if r["distribution"].startswith(("kdkit-good", "kdkit-bad"))]
    assert len(records) == 60
    assert sum(r["status"] == "ok" and r["provides"] == {"loss": [r["name"]]} for r in records) == 54
    for kind, (_, status, message) in BROKEN.items():
        (record,) = [r for r in records if r["distribution"] == f"kdkit-bad-{kind}"]
        assert (record["version"], record["status"], record["provides"]) == ("1.7", status, {})
        assert message in record["error"]
        (warning,) = (line for line in listed.stderr.splitlines() if f"kdkit-bad-{kind} 1.7: " in line)
        assert {status, f"bad-{kind}"} <= set(warning.split())

    strict = kdkit_cli("recipes", env={"KDKIT_STRICT": "1"})
    assert (strict.code, strict.error) == (ExitCode.PLUGIN, "KD-PLUG-007")
    chosen = kdkit_cli("recipes", env={"KDKIT_STRICT": "1", "KDKIT_PLUGINS": "good1,kdkit-good2"})
    assert (chosen.code, chosen.stderr) == (0, "")


def test_a_plugin_that_shadows_a_built_in_gets_nothing(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-evil", TEACHER)
    kdkit_cli("init")
    rows = kdkit_cli("teachers", "--available", "--json").json["teachers"]
    found = {row["name"]: row["source"] for row in rows if row["name"].endswith("biomedclip")}
    assert list(found) == ["biomedclip", "kdkit-evil:biomedclip"]
    assert "evil" not in found["biomedclip"]
    (record,) = [r for r in kdkit_cli("plugins", "--json").json["plugins"] if r["name"] == "evil"]
    assert "'kdkit-evil:biomedclip'" in record["notes"][0]


def test_an_entry_point_that_no_longer_exists(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-old", "", entry_points="[kdkit]\nold = kdkit_old.moved\n")
    outcome = kdkit_cli("recipes")
    assert outcome.code == 0
    assert "kdkit-old 1.0: " in outcome.stderr
    assert "kdkit_old.moved" in outcome.stderr
