"""An export is what stock open_clip loads, with the version's features, or it does not exist."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Published, StudentSpec
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.sharing.release.compare import TOLERANCE, require_close
from kdkit.core.sharing.release.export import Exported, export_student, export_version
from kdkit.core.sharing.release.layout import RECORD, Record
from kdkit.plugins.students.open_clip import OpenClipStudent, create_student, load_student
from tests.core.sharing.release.projects import lay_out
from tests.errors import raises_error
from tests.lineages import lineage, teacher
from tests.tiny_models import BIOMED_TEXT_TOWER, TEXTS, close, make_biomedclip_folder, make_open_clip_folder, pictures

SPEC = load_catalogue().spec(StudentSpec, "open_clip")
PUBLISHED = Published("", "open_clip", (), "", (), {}, {})
HISTORY = (lineage("v1"), lineage("v3", "v1", teachers=[teacher("b", "hf:x/b", {"ct": 1.0})]))


def saved(student: OpenClipStudent, folder: Path) -> Path:
    student.save(folder)
    return folder


def assert_stock_gives_the_same(folder: Path, student: OpenClipStudent) -> None:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    pixels = torch.stack([transform(picture) for picture in pictures()])
    with torch.no_grad():
        assert close(model.eval().encode_image(pixels), student.encode_image(pixels), 1e-5)
        assert close(model.encode_text(tokens), student.encode_text(TEXTS), 1e-5)


def tree(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` with its hash."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, OpenClipStudent, Path]:
    """A student that began as BiomedCLIP, whose text tower's config is on the Hub, exported over an earlier export."""
    root = tmp_path_factory.mktemp("export")
    student = create_student(init=str(make_biomedclip_folder(root / "source"))).eval()
    folder, to = saved(student, root / "student"), root / "deep" / "out"
    to.mkdir(parents=True)
    (to / RECORD).write_text("{}")
    (to / "stale.txt").write_text("of the earlier export")
    with raises_error("KD-REL-011") as caught:
        export_student(SPEC, folder, lambda: student, HISTORY, to)
    assert "--overwrite" in caught.value.fix
    return export_student(SPEC, folder, lambda: student, HISTORY, to, overwrite=True), student, folder


def test_stock_open_clip_loads_the_export(exported: tuple[Exported, OpenClipStudent, Path]) -> None:
    done, student, folder = exported
    assert_stock_gives_the_same(done.folder, student)
    assert max(done.checks["open_clip"][f"{kind}_difference"] for kind in ("image", "text")) <= 1e-5
    assert [path.name for path in done.folder.parent.iterdir()] == ["out"], "no draft is left"
    assert not done.moves, "stock open_clip finds its text tower by the folder's own path"
    version = json.loads((folder / "open_clip_config.json").read_text())
    assert version["model_cfg"]["text_cfg"]["hf_model_name"] == BIOMED_TEXT_TOWER, "the version itself is unchanged"


def test_record_holds_lineage_and_hashes(exported: tuple[Exported, OpenClipStudent, Path]) -> None:
    done = exported[0]
    record = json.loads((done.folder / RECORD).read_text())
    read = Record.from_json(record)
    assert (read.history, read.lineage, read.version) == (HISTORY, HISTORY[-1], "v3")
    assert (read.repository, read.license) == (None, None)
    assert read.to_json() == record
    files = tree(done.folder)
    assert set(done.files) == set(files)
    assert "stale.txt" not in files
    assert {name: entry["sha256"] for name, entry in record["files"].items()} == {
        name: digest for name, digest in files.items() if name != RECORD
    }
    assert done.size == sum((done.folder / name).stat().st_size for name in done.files)


def test_the_same_export_again_is_done_and_another_one_refused(
    exported: tuple[Exported, OpenClipStudent, Path],
) -> None:
    done, student, folder = exported
    before, config = tree(done.folder), done.folder / "open_clip_config.json"
    assert export_student(SPEC, folder, lambda: student, HISTORY, done.folder) == done
    assert tree(done.folder) == before
    content = config.read_bytes()
    config.write_bytes(content + b" ")
    with raises_error("KD-REL-011"):
        export_student(SPEC, folder, lambda: student, HISTORY, done.folder)
    assert config.read_bytes() == content + b" "
    config.write_bytes(content)


@pytest.mark.parametrize("spoil", ["weights", "config"])
def test_an_export_that_differs_is_refused_and_leaves_nothing(spoil: str, tmp_path: Path) -> None:
    student = load_student(make_open_clip_folder(tmp_path / "source"))
    folder = saved(student, tmp_path / "student")
    if spoil == "config":
        config = json.loads((folder / "open_clip_config.json").read_text())
        config["model_cfg"]["text_cfg"]["layers"] = 2
        (folder / "open_clip_config.json").write_text(json.dumps(config))
    else:
        tensors = load_file(folder / "open_clip_model.safetensors")
        tensors["text_projection"] *= 1.001
        save_file(tensors, folder / "open_clip_model.safetensors")
    to = tmp_path / "out"
    to.mkdir()
    (to / RECORD).write_text("the earlier export")
    with pytest.raises(KdkitError) as caught:
        export_student(SPEC, folder, lambda: student, HISTORY, to, overwrite=True)
    assert ("Missing key" if spoil == "config" else "text") in caught.value.why
    assert tree(to) == {RECORD: hashlib.sha256(b"the earlier export").hexdigest()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source", "student"]


@pytest.mark.parametrize(
    ("image", "text"), [(float("nan"), 0.0), (0.0, float("nan")), (float("inf"), 0.0), (0.0, 2e-5)]
)
def test_only_numbers_within_the_tolerance_pass(image: float, text: float) -> None:
    require_close({"image": 1e-5, "text": 0.0}, TOLERANCE, PUBLISHED, library="open_clip", where="x")
    with raises_error("KD-REL-001", where="x", mentions=("open_clip",)):
        require_close({"image": image, "text": text}, TOLERANCE, PUBLISHED, library="open_clip", where="x")


def test_foreign_folders_are_never_replaced(tmp_path: Path) -> None:
    folder = make_open_clip_folder(tmp_path / "student")
    student = load_student(folder)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for to in (tmp_path / "thesis", tmp_path / "file", folder, folder / "inside"):
        before = tree(tmp_path)
        with pytest.raises(KdkitError):
            export_student(SPEC, folder, lambda: student, HISTORY, to, overwrite=True)
        assert tree(tmp_path) == before
    with raises_error("KD-STUD-057"):
        export_student(SPEC, tmp_path / "thesis", lambda: student, HISTORY, tmp_path / "new")


def test_what_would_be_published_names_no_path(tmp_path: Path) -> None:
    """Of a student with a Hugging Face text tower: in this form it may move, as it names its repository."""
    (tmp_path / "a-place").mkdir()
    source = make_biomedclip_folder(tmp_path / "a-place" / "b")
    project = lay_out(tmp_path / "a-place" / "project", lambda to: create_student(init=str(source)).save(to))
    to = tmp_path / "out"
    done = export_version(project, None, to, repo="lab/student")
    assert done.moves
    record = Record.from_json(json.loads((to / RECORD).read_text()))
    assert record.repository == "lab/student"
    text_cfg = json.loads((to / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    assert (text_cfg["hf_model_name"], text_cfg["hf_tokenizer_name"]) == ("lab/student", "lab/student")
    assert json.loads((to / "config.json").read_text())["model_type"] == "bert"
    assert "no transformers form: its image tower is timm" in (to / "README.md").read_text()
    for name in done.files:
        assert b"a-place" not in (to / name).read_bytes()
