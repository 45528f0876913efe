"""``kdkit init --from``."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.contracts import Silent
from kdkit.core.data import load_index
from kdkit.core.data.check import check_data
from kdkit.core.data.entries import read_sources
from kdkit.core.data.start import start_project
from tests.core.features.small import paint
from tests.errors import raises_error
from tests.plugins.sources.archives import png, write_tar
from tests.plugins.sources.files import write_manifest
from tests.recorder import Recorder


def test_a_project_starts_from_a_folder(tmp_path: Path) -> None:
    for number in range(30):
        paint(tmp_path / "scans" / ("cyst", "normal")[number % 2] / f"{number}.png", seed=number)
    (tmp_path / "scans" / "cyst" / "notes.txt").write_text("x", encoding="utf-8")
    reporter = Recorder()
    project = start_project(tmp_path / "p", tmp_path / "scans", reporter)
    (entry,) = project.registry.data
    assert (entry.source, entry.path, entry.options["domain"]) == ("folder", "../scans", "scans")
    assert len(load_index(project)) == 30
    assert not check_data(project).items("images")
    assert (tmp_path / "p" / "reports" / "samples.png").is_file()
    assert len([line for line in reporter.lines if ": scans / " in line]) == 5
    assert start_project(tmp_path / "p", tmp_path / "scans", Recorder()).root == project.root  # the same again
    text = project.registry_path.read_text(encoding="utf-8")
    assert text.count("- source:") == 1
    assert "teachers:" in text


def test_another_project_is_not_changed(tmp_path: Path) -> None:
    paint(tmp_path / "scans" / "cyst" / "a.png", seed=1)
    registry = tmp_path / "registry.yaml"
    registry.write_text("version: 1\n", encoding="utf-8")
    with raises_error("KD-REG-005", where=str(registry)) as caught:
        start_project(tmp_path, tmp_path / "scans", Recorder())
    assert "source: folder" in caught.value.fix
    assert registry.read_text(encoding="utf-8") == "version: 1\n"


def test_data_that_cannot_be_read_leave_no_registry(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", seed=1)
    rows = [{"image": "a.png", "text": "t"}, {"image": "a.png", "text": ""}]
    path = write_manifest(tmp_path / "rows.csv", rows)
    with raises_error("KD-SRC-050", where=f"{path}:3"):
        start_project(tmp_path / "p", path, Recorder())
    assert not (tmp_path / "p").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x", encoding="utf-8")
    with raises_error("KD-SRC-050", where=f"{path}:3"):
        start_project(tmp_path / "mine", path, Recorder())
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with raises_error("KD-DATA-023"):
        start_project(tmp_path / "p", tmp_path / "a.png", Recorder())


def test_what_is_odd_is_warned_about(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", {"a.png": b"no image", "a.txt": b"t", "a.json": b'{"domain": "ct"}'})
    reporter = Recorder()
    start_project(tmp_path / "p", tmp_path / "train-0.tar", reporter)
    assert len(reporter.warnings) == 2  # no calibration, an unreadable image
    assert any("'kdkit data check'" in line for line in reporter.warnings)


def test_text_of_others_does_not_command_the_terminal(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", seed=1)
    row = {"image": "a.png", "text": "a\n\x1b]0;title\x07", "label": "c\x1b[2J", "modality": "ct\x1b[31m"}
    path = write_manifest(tmp_path / "rows.jsonl", [row])
    reporter = Recorder()
    start_project(tmp_path / "p", path, reporter)
    assert all(line.isprintable() for line in (*reporter.lines, *reporter.warnings))


def test_tar_and_folder_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    members = {f"{split}/ct/cyst/{n}.png": png(n) for n, split in enumerate(("train", "val", "test"))}
    for name, content in members.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_bytes(content)
    project = start_project(Path("p"), Path("set"), Recorder())
    assert {one.id: one.split for one in load_index(project).samples} == {
        "train/ct/cyst/0": "train", "val/ct/cyst/1": "calibration", "test/ct/cyst/2": "test",
    }  # fmt: skip


def test_a_folder_named_images_is_no_domain(tmp_path: Path) -> None:
    for name in ("train/images/cyst/a", "val/Images/normal/b", "test/images/cyst/c"):
        paint(tmp_path / "kidneys" / f"{name}.png", seed=len(name))
    project = start_project(tmp_path / "p", tmp_path / "kidneys", Silent())
    (entry,) = read_sources(project)
    assert {(one.domain, one.label, one.text) for one in entry.samples} == {
        ("kidneys", "cyst", "a kidneys image of cyst"),
        ("kidneys", "normal", "a kidneys image of normal"),
    }
