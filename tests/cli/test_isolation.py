"""Broken plugins of every kind: each is reported, everything else works."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from tests.conftest import Cli, InstallPlugin
from tests.installed_plugins import GOOD

BROKEN = {
    "raises": ("raise RuntimeError('on purpose')", "broken", "RuntimeError: on purpose"),
    "exits": ("import sys\nsys.exit(3)", "broken", "SystemExit: 3"),
    "hangs": ("import time\ntime.sleep(10**6)", "broken", "did not finish importing in 3 s"),
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


@pytest.fixture
def limited(kdkit_cli: Cli, tmp_path: Path) -> Cli:
    """The command with a cache folder of its own and little patience, though enough for a plugin on a busy machine."""
    kdkit_cli.environment.update(XDG_CACHE_HOME=str(tmp_path / "cache"), KDKIT_PLUGIN_SECONDS="3")
    return kdkit_cli


def test_sixty_plugins_of_which_six_are_broken(limited: Cli, install_plugin: InstallPlugin) -> None:
    for number in range(54):
        install_plugin(f"kdkit-good{number}", GOOD.format(name=f"good{number}"))
    for kind, (source, _, _) in BROKEN.items():
        install_plugin(f"kdkit-bad-{kind}", source, version="1.7")

    listed = limited("plugins", "--json")
    assert listed.code == 0
    records = [r for r in listed.json["plugins"] if r["distribution"] != "kdkit"]
    records = [r for r in records if r["distribution"].startswith(("kdkit-good", "kdkit-bad"))]
    assert len(records) == 60
    assert sum(r["status"] == "ok" and r["provides"] == {"loss": [r["name"]]} for r in records) == 54
    for kind, (_, status, message) in BROKEN.items():
        (record,) = [r for r in records if r["distribution"] == f"kdkit-bad-{kind}"]
        assert (record["version"], record["status"], record["provides"]) == ("1.7", status, {})
        assert message in record["error"]
        assert listed.stderr.count(f"{status} plugin left out: bad-{kind} of kdkit-bad-{kind} 1.7: ") == 1

    again = limited("plugins", "--json").json["plugins"]
    (hung,) = [r for r in again if r["name"] == "bad-hangs"]
    assert hung["milliseconds"] < 3000  # nobody waits for it a second time
    assert "did not finish importing in 3 s" in hung["error"]
    strict = limited("recipes", env={"KDKIT_STRICT": "1"})
    assert (strict.code, strict.error) == (ExitCode.PLUGIN, "KD-PLUG-007")
    chosen = limited("recipes", env={"KDKIT_STRICT": "1", "KDKIT_PLUGINS": "good1,kdkit-good2"})
    assert (chosen.code, chosen.stderr) == (0, "")


HANGS = {
    "computes": "while True: pass",
    "reads a socket": "import socket\nus, them = socket.socketpair()\nus.recv(1)",
    "waits for its own threads": "import time\nfrom concurrent.futures import ThreadPoolExecutor\n"
    "ThreadPoolExecutor().submit(time.sleep, 10**6).result()",
}


@pytest.mark.parametrize("kind", HANGS)
def test_the_command_ends_in_spite_of_a_plugin_that_hangs(
    kind: str, limited: Cli, install_plugin: InstallPlugin
) -> None:
    install_plugin("kdkit-hung", HANGS[kind])
    outcome = limited("recipes", "show", "no-such-recipe", env={"KDKIT_PLUGIN_SECONDS": "0.5"})
    assert (outcome.code, outcome.error) == (ExitCode.USAGE, "KD-PLUG-003")
    assert "did not finish importing in 0.5 s" in outcome.stderr


def test_verify_tries_it_again(limited: Cli, install_plugin: InstallPlugin, tmp_path: Path) -> None:
    source = "import os, time\nif 'SLOW' in os.environ: time.sleep(10**6)\n" + GOOD.format(name="slow")
    install_plugin("kdkit-slow", source)
    assert "did not finish" in limited("recipes", env={"SLOW": "1"}).stderr
    assert "did not finish" in limited("recipes").stderr  # remembered
    assert "did not finish" not in limited("plugins", "verify", "kdkit-slow").stderr
    assert limited("recipes").stderr == ""
    assert not list((tmp_path / "cache" / "kdkit" / "hung-plugins").iterdir())


def test_a_plugin_that_shadows_a_built_in_gets_nothing(limited: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-evil", TEACHER)
    limited("init")
    rows = limited("teachers", "--available", "--json").json["teachers"]
    found = {row["name"]: row["source"] for row in rows if row["name"].endswith("biomedclip")}
    assert list(found) == ["biomedclip", "kdkit-evil:biomedclip"]
    assert "evil" not in found["biomedclip"]
    said = "evil of kdkit-evil 1.0: kdkit's own teacher 'biomedclip' keeps the name: say 'kdkit-evil:biomedclip'"
    assert said in limited("plugins").stdout


def test_an_entry_point_that_no_longer_exists(limited: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-old", "", entry_points="[kdkit]\nold = kdkit_old.moved\n")
    outcome = limited("recipes")
    assert outcome.code == 0
    assert "old of kdkit-old 1.0: its entry point kdkit_old.moved does not exist" in outcome.stderr
