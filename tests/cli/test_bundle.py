"""``kdkit bundle`` and ``unbundle`` as two people use them: one with a network, one without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.teachers.add import add_teacher
from tests.conftest import Cli, InstallPlugin
from tests.core.sharing.bundle.forged import entry, forge
from tests.toy_project import make_project, open_project, train_teacher

PLUGIN = """
import socket
from kdkit import LoaderSpec, StudentSpec, hookimpl

def no_network(*_):
    raise AssertionError("there is no network here")

socket.socket.connect = no_network

@hookimpl
def kdkit_loaders():
    return [LoaderSpec(name="toy", summary="toy", factory="tests.toys:load_toy", marks=("toy.json",))]

@hookimpl
def kdkit_students():
    return [StudentSpec(name="toy", summary="toy", factory="tests.toys:make_toy", loader="tests.toys:load_toy")]
"""


@pytest.fixture
def toy(kdkit_cli: Cli, install_plugin: InstallPlugin) -> Cli:
    """A project with a version, and with a teacher and a domain that are newer than it."""
    install_plugin("kdkit-toy", PLUGIN)
    kdkit_cli.folder.rmdir()
    root = kdkit_cli.folder
    distill(make_project(root, teachers={"radio": ("ct", "mri")}, domains=("ct", "mri", "xray")), Options(cpu=True))
    train_teacher(["xray"], width=20, seed=5).save(root / "models" / "xr")
    add_teacher(open_project(root), "xr", {"from": "local:models/xr", "loader": "toy", "license": "mit"})
    return kdkit_cli


def student(project: Path, version: str) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(project / "versions" / version / "student" / "toy.safetensors")
    return tensors


def test_a_project_continues_on_a_machine_without_network(toy: Cli, tmp_path: Path) -> None:
    listed = toy("bundle", "--to", "../project.tar", "--dry-run", "--json")
    assert listed.code == 0, listed.stderr
    assert [(row["part"], row["name"]) for row in json.loads(listed.stdout)["contents"]] == [
        ("project", ""),
        ("teacher", "radio"),
        ("teacher", "xr"),
        ("features", "radio"),
        ("version", "v1"),
    ]
    assert not (tmp_path / "project.tar").exists()
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "kdkit_toy-1.0-py3-none-any.whl").touch()
    made = toy("bundle", "--to", "../project.tar", "--wheels", "../wheels")
    assert made.code == 0, made.stderr

    there = tmp_path / "away"
    toy.folder.rename(there)  # nothing of it can be reached any more
    here = Cli(tmp_path, toy.environment)
    checked = here("unbundle", "project.tar", "--dry-run", "--json", env={"PYTHONPATH": ""})
    report = json.loads(checked.stdout)
    assert (report["missing"], report["requirements"]) == (["kdkit-toy==1.0"], ["kdkit-toy==1.0"])
    assert report["fingerprint"] in made.stdout
    assert not (tmp_path / "project").exists()

    unpacked = here("unbundle", "project.tar", env={"PYTHONPATH": ""})
    assert unpacked.code == 0, unpacked.stderr
    (command,) = [line.split() for line in unpacked.stdout.splitlines() if "PIP_NO_INDEX=1" in line]
    wheels = (tmp_path / "project/wheels").as_uri()
    assert command[-4:] == [f"PIP_FIND_LINKS={wheels}", "kdkit", "install", "kdkit-toy==1.0"]
    assert "images/samples.jsonl" in unpacked.stdout
    project = tmp_path / "project"
    assert (project / "requirements.txt").read_text() == "kdkit-toy==1.0\n"

    shutil.copytree(there / "images", project / "images")
    here = Cli(project, toy.environment)
    assert here("lock", "--check").code == 0
    taught = here("distill", "--incremental", "--cpu")
    assert taught.code == 0, taught.stderr
    assert (project / "versions/current").read_text() == "v2\n"
    before, after = student(there, "v1"), student(project, "v1")
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = here("unbundle", "../project.tar", "--to", ".")
    assert (again.code, again.stdout) == (1, "")
    assert again.error == "KD-BUNDLE-015"


def test_a_bad_bundle_is_one_message_and_leaves_nothing(kdkit_cli: Cli) -> None:
    forge(kdkit_cli.folder / "evil.tar", extra=[entry("../evil", b"x")])
    for options in ((), ("--dry-run",)):
        outcome = kdkit_cli("unbundle", "evil.tar", *options)
        assert (outcome.code, outcome.stdout, outcome.error) == (2, "", "KD-BUNDLE-020")
        assert "evil.tar:" in outcome.stderr
        assert "../evil" in outcome.stderr
    outcome = kdkit_cli("unbundle", "evil.tar", "--max-size", "0.000001")
    assert outcome.error == "KD-BUNDLE-017"
    assert "0.00 GB" in outcome.stderr
    assert [path.name for path in kdkit_cli.folder.iterdir()] == ["evil.tar"]


def test_a_part_that_does_not_exist(kdkit_cli: Cli) -> None:
    kdkit_cli("init")
    outcome = kdkit_cli("bundle", "--to", "a.tar", "--with", "teacher")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "'teachers'" in outcome.stderr
