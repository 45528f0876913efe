"""``kdkit suites``."""

from __future__ import annotations

from tests.conftest import Cli


def test_list_and_show(kdkit_cli: Cli) -> None:
    listed = kdkit_cli("suites", "--json")
    assert listed.code == 0
    assert {row["name"]: row["datasets"] for row in listed.json}["medmnist"] == 12
    file = kdkit_cli.folder / "suites" / "bloodmnist" / "bloodmnist.npz"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no release")
    shown = kdkit_cli("suites", "show", "medmnist", "--json").json["datasets"]
    assert (shown["bloodmnist"]["status"], shown["pathmnist"]["status"]) == ("other release", "missing")
