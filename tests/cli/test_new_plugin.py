"""``kdkit new-plugin``."""

from __future__ import annotations

import shlex

from tests.conftest import Cli


def test_it_lists_the_written_files_and_the_next_three_commands(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("new-plugin", "Stain_Teacher", "--kind", "teacher")
    assert outcome.code == 0, outcome.stderr
    assert [line.split() for line in outcome.stdout.splitlines() if line.startswith("  ")] == [
        ["kdkit_stain_teacher/__init__.py"],
        ["kdkit_stain_teacher/make_weights.py"],
        ["kdkit_stain_teacher/model.py"],
        ["kdkit_stain_teacher/weights/README.md"],
        ["kdkit_stain_teacher/weights/kdkit_stain_teacher.json"],
        ["kdkit_stain_teacher/weights/model.safetensors"],
        ["kdkit", "install", "-e", "./kdkit-stain-teacher"],
        ["kdkit", "plugins", "verify", "kdkit-stain-teacher"],
        ["pytest", "./kdkit-stain-teacher"],
    ]
    assert (kdkit_cli.folder / "kdkit-stain-teacher" / "pyproject.toml").is_file()
    again = kdkit_cli("new-plugin", "stain-teacher", "--kind", "loss")
    assert (again.code, again.error) == (2, "KD-PLUG-018")


def test_json_and_a_given_folder(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("new-plugin", "huber", "--kind", "loss", "--to", "deep/a folder", "--json")
    data = outcome.json
    assert (data["distribution"], data["module"], data["name"]) == ("kdkit-huber", "kdkit_huber", "huber")
    assert data["folder"] == str(kdkit_cli.folder / "deep" / "a folder")
    assert shlex.split(data["next"][0]) == ["kdkit", "install", "-e", "./deep/a folder"]
    written = {p.relative_to(data["folder"]).as_posix() for p in kdkit_cli.folder.rglob("*") if p.is_file()}
    assert written == set(data["files"])


def test_a_wrong_kind_is_an_error(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("new-plugin", "huber", "--kind", "los")
    assert (outcome.code, outcome.error) == (2, "KD-PLUG-019")
    assert "'loss'" in outcome.stderr
    assert list(kdkit_cli.folder.iterdir()) == []
