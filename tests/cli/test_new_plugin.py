"""``kdkit new-plugin`` says what it wrote and what to do next."""

from __future__ import annotations

import json

from tests.conftest import Cli


def test_it_says_the_next_three_commands(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("new-plugin", "Stain_Teacher", "--kind", "teacher")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.splitlines() == [
        "wrote kdkit-stain-teacher, a teacher that knows eight colors: 14 files in ./kdkit-stain-teacher",
        "yours to change:",
        "  kdkit_stain_teacher/__init__.py",
        "  kdkit_stain_teacher/make_weights.py",
        "  kdkit_stain_teacher/model.py",
        "  kdkit_stain_teacher/weights/README.md",
        "  kdkit_stain_teacher/weights/kdkit_stain_teacher.json",
        "  kdkit_stain_teacher/weights/model.safetensors",
        "next:",
        "  kdkit install -e ./kdkit-stain-teacher",
        "  kdkit plugins verify kdkit-stain-teacher",
        "  pytest ./kdkit-stain-teacher",
    ]
    assert (kdkit_cli.folder / "kdkit-stain-teacher" / "pyproject.toml").is_file()
    again = kdkit_cli("new-plugin", "stain-teacher", "--kind", "loss")
    assert again.code == 2
    assert "kdkit-stain-teacher: this folder exists already" in again.stderr


def test_as_json_into_a_folder_of_ones_own(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("new-plugin", "huber", "--kind", "loss", "--to", "deep/my folder", "--json")
    data = json.loads(outcome.stdout)
    assert (data["distribution"], data["module"], data["name"]) == ("kdkit-huber", "kdkit_huber", "huber")
    assert data["folder"] == str(kdkit_cli.folder / "deep" / "my folder")
    assert data["next"][0] == "kdkit install -e './deep/my folder'"
    written = {p.relative_to(data["folder"]).as_posix() for p in kdkit_cli.folder.rglob("*") if p.is_file()}
    assert written == set(data["files"])


def test_a_wrong_kind_is_an_error(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("new-plugin", "huber", "--kind", "los")
    assert outcome.code == 2
    assert outcome.stderr.splitlines() == ["error: there is no kind of plugin 'los'", "  do: did you mean 'loss'?"]
    assert list(kdkit_cli.folder.iterdir()) == []
