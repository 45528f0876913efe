"""Requirements of the installed plugins, as pip writes them; requirements that are not met."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from kdkit.core.plugin_system.requirements import freeze, unmet, without_credentials
from tests.conftest import write_distribution

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ORIGINS = {
    "kdkit-archive": {
        "url": "https://example.org/kdkit_archive-1.0.tar.gz",
        "archive_info": {"hash": f"sha256={'a' * 64}", "hashes": {"sha256": "a" * 64}},
        "subdirectory": "python",
    },
    "kdkit-edit": {"url": "file:///src/with%20space", "dir_info": {"editable": True}},
    "kdkit-folder": {"url": "file:///src/folder", "dir_info": {}},
    "kdkit-git": {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
    "kdkit-ssh": {"url": "ssh://git@example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
    "kdkit-sub": {
        "url": "https://example.org/x.git",
        "vcs_info": {"vcs": "git", "commit_id": COMMIT, "requested_revision": "main"},
        "subdirectory": "plugins/sub",
    },
}


def install(site: Path) -> None:
    write_distribution(site, "kdkit-index", "", version="1.2")
    for name, origin in ORIGINS.items():
        write_distribution(site, name, "")
        facts = site / f"{name.replace('-', '_')}-1.0.dist-info"
        (facts / "direct_url.json").write_text(json.dumps(origin))
        (facts / "INSTALLER").write_text("pip\n")


def test_the_lines_are_those_of_pip_freeze(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    command = [sys.executable, "-m", "pip", "freeze", "--path", str(tmp_path)]
    pip = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    ours = {one.name: one for one in freeze() if one.name in {"kdkit-index", *ORIGINS}}
    assert sorted(one.requirement for one in ours.values()) == sorted(x for x in pip if not x.startswith("#"))
    assert [one.name for one in ours.values() if one.local] == ["kdkit-edit", "kdkit-folder"]
    assert ours["kdkit-index"].requirement == "kdkit-index==1.2"
    assert ours["kdkit-git"].requirement.split(" @ ") == ["kdkit-git", f"git+https://example.org/x.git@{COMMIT}"]


def test_kdkit_comes_first_and_nothing_without_a_plugin_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_distribution(tmp_path, "kdkit-broken", "raise AssertionError('never imported')")
    write_distribution(tmp_path, "no-plugin", "", entry_points="[console_scripts]\nx = y:z\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = [one.name for one in freeze()]
    assert names[0] == "kdkit"
    assert names[1:] == sorted(names[1:])
    assert "kdkit-broken" in names
    assert "no-plugin" not in names
    assert "kdkit-broken==1.0" in [frozen.requirement for frozen in freeze()]


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"url": 3}'])
def test_a_damaged_origin_is_no_origin(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_distribution(tmp_path, "kdkit-odd", "")
    (tmp_path / "kdkit_odd-1.0.dist-info" / "direct_url.json").write_text(damage)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "kdkit-odd==1.0" in [frozen.requirement for frozen in freeze()]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("git+https://me:secret@example.org/x.git@main", "git+https://example.org/x.git@main"),
        ("https://token@example.org/x", "https://example.org/x"),
        ("git+ssh://git@example.org/x.git", "git+ssh://git@example.org/x.git"),
        ("https://${USER}:${TOKEN}@example.org/x", "https://${USER}:${TOKEN}@example.org/x"),
        ("https://${TOKEN}@example.org/x", "https://${TOKEN}@example.org/x"),
        ("kdkit-foo==1.0", "kdkit-foo==1.0"),
    ],
)
def test_no_credentials_are_shown(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_unmet_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_distribution(tmp_path, "kdkit-needy", "")
    lines = [
        "pluggy>=1",
        "pluggy>=999",
        "nowhere-to-be-found[extra]>2; python_version > '3'",
        "only-on-mars; sys_platform == 'mars'",
        "only-for-tests; extra == 'test'",
        "kdkit",
        "not a requirement at all !",
    ]
    with (tmp_path / "kdkit_needy-1.0.dist-info" / "METADATA").open("a") as metadata:
        metadata.writelines(f"Requires-Dist: {line}\n" for line in lines)
    monkeypatch.syspath_prepend(str(tmp_path))
    lacking = unmet(distribution("kdkit-needy"))
    assert list(lacking) == ["pluggy>=999", "nowhere-to-be-found[extra]>2"]
    assert lacking["pluggy>=999"].startswith("1.")
    assert lacking["nowhere-to-be-found[extra]>2"] == ""
