"""``kdkit init``, ``add-teacher``, ``teachers``, ``remove-teacher``, ``lock``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.core.features.small import paint
from tests.core.teachers.stub import tree
from tests.local_hub import local_hub
from tests.tiny_models import BIOMED_TEXT_TOWER, make_biomedclip_folder


@pytest.fixture(scope="module")
def biomedclip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BiomedCLIP's layout as published, with only a pickle of weights."""
    return make_biomedclip_folder(tmp_path_factory.mktemp("models") / "biomedclip", weights="bin")


def test_a_folder_in_biomedclips_layout_is_added_listed_and_removed(kdkit_cli: Cli, biomedclip: Path) -> None:
    project = kdkit_cli.folder
    assert kdkit_cli("init").code == 0
    registry = project / "registry.yaml"
    original = registry.read_bytes()
    shutil.copytree(biomedclip, project / "models" / "bio")

    planned = kdkit_cli("add-teacher", "bio", "--from", "local:models/bio", "--dry-run", "--json")
    assert planned.code == 0, planned.stderr
    assert "open_clip_pytorch_model.bin" in planned.json["files"]
    assert registry.read_bytes() == original
    assert not (project / "registry.lock").exists()

    added = kdkit_cli(
        *("add-teacher", "bio", "--from", "local:models/bio", "--domains", "ct, mri", "--license", "mit"),
        *("--option", "precision=fp32", "--live", "--json"),
    )
    assert added.code == 0, added.stderr
    locked = added.json
    assert locked["loader"] == "open_clip"
    assert {name: signal["shape"] for name, signal in locked["signals"].items()} == {"image": [32], "text": [32]}
    weights = locked["files"]["open_clip_model.safetensors"]
    assert weights["made_from"]["file"] == "open_clip_pytorch_model.bin"
    assert {"tokenizer", "preprocessing"} <= set(locked["identity"])
    block = (
        "  bio:\n    from: local:models/bio\n    options: {precision: fp32}\n    domains: [ct, mri]\n    license: mit\n"
        "    signals: live\n"
    )
    assert registry.read_bytes().replace(block.encode(), b"") == original
    assert json.loads((project / "registry.lock").read_text("utf-8"))["teachers"]["bio"]["commit"] is None

    listed = kdkit_cli("teachers", "--json")
    rows = {row["name"]: row for row in listed.json["teachers"]}
    assert rows["bio"]["state"] == "locked"
    assert rows["bio"]["dims"] == {"image": 32, "text": 32}
    assert (rows["bio"]["domains"], rows["bio"]["license"], rows["bio"]["distillation"]) == (
        ["ct", "mri"],
        "mit",
        "allowed",
    )
    assert rows["biomedclip"]["state"] == "available"
    assert kdkit_cli("lock", "--check").code == 0

    assert kdkit_cli("remove-teacher", "bio").code == 0
    assert registry.read_bytes() == original


def test_a_project_starts_from_data(kdkit_cli: Cli) -> None:
    for number in range(12):
        paint(kdkit_cli.folder / "scans" / "ct" / ("cyst", "normal")[number % 2] / f"{number}.png", seed=number)
    started = kdkit_cli("init", "p", "--from", "scans")
    assert started.code == 0, started.stderr
    assert "source folder" in started.stderr
    registry = (kdkit_cli.folder / "p" / "registry.yaml").read_text(encoding="utf-8")
    assert "  - source: folder\n    path: ../scans\n    options:\n" in registry
    checked = kdkit_cli("data", "check", "-C", "p", "--json")
    assert checked.json["samples"] == 12
    refused = kdkit_cli("init", "q", "--from", "nothing")
    assert (refused.code, "KD-DATA-022" in refused.stderr) == (3, True)
    assert not (kdkit_cli.folder / "q").exists()


def test_biomedclip_is_fetched_from_two_repositories_and_then_opens_offline(kdkit_cli: Cli, tmp_path: Path) -> None:
    """The published layout: a pickle of weights, and the text tower's config in another repository."""
    text = tmp_path / "text"
    main = make_biomedclip_folder(tmp_path / "main", text_repo=text, weights="bin")
    kdkit_cli("init")
    online = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with local_hub(tmp_path / "server") as hub:
        commit = hub.add("microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", tree(main))
        hub.add(BIOMED_TEXT_TOWER, tree(text) | {"pytorch_model.bin": b"not needed"})
        added = kdkit_cli("add-teacher", "biomedclip", env={**online, "HF_ENDPOINT": hub.url})
        assert "pytorch_model.bin" not in hub.downloads()
    assert added.code == 0, added.stderr
    assert f"at {commit[:12]}" in added.stdout
    assert "image 32, text 32" in added.stdout
    warnings = [line for line in added.stderr.splitlines() if line.startswith("warning")]
    assert warnings
    assert all("512" in line or "224" in line or "256" in line or "std" in line or "mean" in line for line in warnings)
    assert not any("license" in line for line in warnings), "it is known from the catalogue"
    assert "images/s" in added.stdout
    shown = kdkit_cli("teachers").stdout.splitlines()
    assert shown[3].split()[:4] == ["biomedclip", "locked", "32", "-"]

    shutil.rmtree(kdkit_cli.folder / ".kdkit")
    opened = kdkit_cli.warm("-c", OPEN, env={**online, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert opened.code == 0, opened.stderr
    lock = json.loads((kdkit_cli.folder / "registry.lock").read_text("utf-8"))
    assert opened.stdout.split() == ["32", lock["teachers"]["biomedclip"]["fingerprint"]]


OPEN = """
from kdkit.core.project.project import Project
from kdkit.core.teachers import open_teacher
teacher = open_teacher(Project.find(), "biomedclip")
print(teacher.model.embed_dim, teacher.fingerprint)
"""


def test_teachers_needs_no_project_and_no_torch(kdkit_cli: Cli) -> None:
    code = (
        "import sys; from kdkit.cli.main import app\n"
        "app(['teachers', '--available'], standalone_mode=False)\n"
        "app(['teachers', 'show', 'chexzero'], standalone_mode=False)\n"
        "app(['teachers', '--domain', 'skin'], standalone_mode=False)\n"
        "print(sorted({'torch', 'numpy', 'h5py', 'transformers', 'open_clip'} & set(sys.modules)), file=sys.stderr)"
    )
    outcome = kdkit_cli.python("-c", code)
    assert outcome.stderr == "[]\n"
    for name in ("biomedclip", "medclip", "conch", "github:rajpurkarlab/CheXzero", "dermatology"):
        assert name in outcome.stdout


def test_options_before_show_count(kdkit_cli: Cli) -> None:
    assert kdkit_cli("teachers", "--json", "show", "biomedclip").json["name"] == "biomedclip"
    refused = kdkit_cli("teachers", "--json", "--project", "nowhere", "show", "biomedclip")
    assert (refused.code, refused.error) == (2, "KD-PROJ-001")
    assert json.loads(refused.stdout)["error"]["id"] == "KD-PROJ-001"


@pytest.mark.parametrize(
    ("arguments", "code", "id", "words"),
    [
        (["add-teacher", "biomedclp"], 2, "KD-REG-002", ["'biomedclp'", "'biomedclip'"]),
        (["add-teacher", "conch"], 4, "KD-TEACH-009", ["'conch'", "cc-by-nc-nd-4.0", "LicenseRef-"]),
        (["add-teacher", "bird"], 3, "KD-REG-001", ["'bird'"]),
        (["add-teacher", "plip", "--offline"], 3, "KD-HUB-026", ["--from local:DIR"]),
        (["add-teacher", "x", "--from", "local:nowhere"], 3, "KD-TEACH-021", ["nowhere"]),
        (["add-teacher", "x", "--from", "local:."], 2, "KD-TEACH-016", []),
        (["add-teacher", "x", "--from", "local:.", "--option", "a"], 2, "KD-CLI-012", ["'a'"]),
        (["add-teacher", "X Y", "--from", "local:."], 2, "KD-TEACH-001", ["'X Y'"]),
        (["remove-teacher", "plip"], 2, "KD-REG-007", ["'plip'"]),
        (["teachers", "--kind", "images"], 2, "KD-TEACH-027", ["'image'"]),
        (["teachers", "--size", "small"], 2, "KD-TEACH-028", ["150M"]),
        (["teachers", "show", "biomedclp"], 2, "KD-PLUG-003", ["'biomedclip'"]),
        (["init"], 2, "KD-REG-005", []),
        (["lock", "plip"], 2, "KD-REG-004", ["'plip'"]),
    ],
)
def test_refused_commands_change_nothing(
    kdkit_cli: Cli, arguments: list[str], code: int, id: str, words: list[str]
) -> None:
    kdkit_cli.folder.joinpath("registry.yaml").write_text("version: 1\n", encoding="utf-8")
    outcome = kdkit_cli(*arguments)
    assert (outcome.code, outcome.error, outcome.stdout) == (code, id, "")
    assert [word for word in words if word not in outcome.stderr] == []
    assert kdkit_cli.folder.joinpath("registry.yaml").read_text("utf-8") == "version: 1\n"
    assert not kdkit_cli.folder.joinpath("registry.lock").exists()


@pytest.mark.parametrize("command", ["teachers", "lock", "add-teacher plip"])
def test_a_mistake_in_the_registry_is_reported_with_its_line(kdkit_cli: Cli, command: str) -> None:
    kdkit_cli.folder.joinpath("registry.yaml").write_text("version: 1\nteachers:\n  a: {form: x}\n", encoding="utf-8")
    outcome = kdkit_cli(*command.split())
    assert (outcome.code, outcome.error) == (2, "KD-BASE-007")
    assert "registry.yaml:3: " in outcome.stderr
    assert "'teachers.a.form'" in outcome.stderr
    assert "'from'" in outcome.stderr


def test_the_row_of_a_teacher_with_many_domains_stays_narrow(kdkit_cli: Cli) -> None:
    (row,) = [line for line in kdkit_cli("teachers").stdout.splitlines() if line.startswith("demo-reader ")]
    assert row.count("/mri") == 4
    (full,) = [t for t in kdkit_cli("teachers", "--json").json["teachers"] if t["name"] == "demo-reader"]
    assert len(full["domains"]) == 12
