"""Selection and copying of a model's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdkit.core.teachers import add_teacher
from kdkit.core.teachers.files import select_descriptions, select_files
from tests.core.teachers import stub
from tests.errors import raises_error


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin"], ["config.json", "model.safetensors"]),
        (["config.json", "pytorch_model.bin", "training_args.bin"], ["config.json", "pytorch_model.bin"]),
        (["BMC_CLIP_CF.pt", "README.md"], ["BMC_CLIP_CF.pt", "README.md"]),
        (
            ["open_clip_pytorch_model.bin", "pytorch_model.bin", "config.json"],
            ["config.json", "open_clip_pytorch_model.bin", "pytorch_model.bin"],
        ),
        (["a.json", "run.py", ".gitattributes", ".git/x.json", "LICENSE", "img.png"], ["LICENSE", "a.json"]),
        (["weights.pt", "images.tar", "config.json"], ["config.json", "weights.pt"]),
        (["r50_mcc.tar", "optimizer.pt"], ["r50_mcc.tar"]),
        (["1_Pooling/config.json", "vocab.txt"], ["1_Pooling/config.json", "vocab.txt"]),
    ],
)
def test_files_of_a_model_are_selected(present: list[str], chosen: list[str]) -> None:
    assert select_files(present, "here") == chosen


@pytest.mark.parametrize(
    ("present", "weights", "chosen"),
    [
        (["a.pt", "b.pt", "c.json"], "b.pt", ["b.pt", "c.json"]),
        (["a.pt", "b.ckpt", "c.json"], "b.safetensors", ["b.ckpt", "c.json"]),
        (["a.safetensors", "b.safetensors", "b.pt"], "a.safetensors", ["a.safetensors"]),
        (["model.safetensors", "run/epoch_3.pt", "c.json"], "run/epoch_3.pt", ["c.json", "run/epoch_3.pt"]),
        (["a.pt", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"], None, ["a.pt"]),
        (["model.safetensors", "a.json"], "a name of another kind", ["a.json", "model.safetensors"]),
    ],
)
def test_one_file_of_weights_can_be_chosen(present: list[str], weights: str | None, chosen: list[str]) -> None:
    assert select_files(present, "here", weights) == chosen


def test_several_files_of_weights_are_listed() -> None:
    with raises_error("KD-TEACH-019", mentions=("a.pt, b.ckpt",)) as caught:
        select_files(["b.ckpt", "a.pt", "optimizer.pt"], "here")
    assert caught.value.fix.endswith("--option weights=a.pt")


def test_weights_that_are_not_there_are_refused_with_those_that_are() -> None:
    with raises_error("KD-TEACH-047", where="here", mentions=("'typo.pt'", "weights=model.safetensors")):
        select_files(["model.safetensors", "a.json"], "here", "typo.pt")


def test_pickles_in_parts_are_no_choice() -> None:
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "config.json"]
    with raises_error("KD-TEACH-046", mentions=tuple(names[:2])) as caught:
        select_files(names, "here")
    assert "weights=" not in caught.value.fix


@pytest.mark.parametrize(
    ("present", "id"),
    [
        ([], "KD-TEACH-017"),
        (["README.md", "LICENSE"], "KD-TEACH-017"),
        (["run.py", "model.onnx"], "KD-TEACH-017"),
        (["a.pt", "b.pt"], "KD-TEACH-019"),
        (["a.tar", "b.tar"], "KD-TEACH-019"),
    ],
)
def test_files_without_a_model_are_refused(present: list[str], id: str) -> None:
    with raises_error(id):
        select_files(present, "here")


def test_descriptions_exclude_weights_and_subfolders() -> None:
    present = ["config.json", "vocab.txt", "model.safetensors", "pytorch_model.bin", "sub/config.json"]
    assert select_descriptions(present, "here") == ["config.json", "vocab.txt"]


@pytest.mark.parametrize("name", ["../a.json", "/a.json", "a/../../b.json", "a\\b.json", "a\0.json"])
def test_names_that_lead_outside_are_refused(name: str) -> None:
    for select in (select_files, select_descriptions):
        with raises_error("KD-TEACH-018", where="here"):
            select([name, "config.json"], "here")


def test_code_and_hidden_files_are_not_copied(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    folder = stub.write(tmp_path / "a")
    for name in ("evil.py", "pytorch_model.bin", "notes.docx", ".git/config.json", "__pycache__/x.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert set(add_teacher(project, "a", {"from": "local:a"}).files) == {"stub.json", "model.safetensors"}


@pytest.mark.parametrize("kind", ["file", "folder", "dangling"])
def test_links_that_lead_outside_are_refused(tmp_path: Path, kind: str) -> None:
    project = stub.make_project(tmp_path)
    folder = stub.write(tmp_path / "a")
    (tmp_path / "secret.json").write_text("{}", encoding="utf-8")
    (tmp_path / "secrets").mkdir()
    target = {"file": "secret.json", "folder": "secrets", "dangling": "nothing.json"}[kind]
    os.symlink(tmp_path / target, folder / "link.json")
    stub.refused(project, "a", {"from": "local:a"}, "KD-TEACH-003", mentions=("'link.json'",))


def test_links_inside_the_folder_are_files(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    folder = stub.write(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    os.symlink("weights.safetensors", folder / "model.safetensors")
    add_teacher(project, "a", {"from": "local:a"})
    assert not any(path.is_symlink() for path in project.artifacts.rglob("*"))
