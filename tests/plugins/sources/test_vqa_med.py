"""VQA-Med 2019 in the published layout."""

from __future__ import annotations

from pathlib import Path

from kdkit.core.contracts import Skipped
from tests.errors import raises_error
from tests.plugins.sources.files import read, read_all
from tests.plugins.sources.question_sets import vqa_med, write_image


def test_vqa_med(tmp_path: Path) -> None:
    samples = {sample.id: sample for sample in read("vqa-med", vqa_med(tmp_path))}
    assert [(one.domain, one.split) for one in samples.values()] == [
        ("vqa/modality", "train"),
        ("vqa/organ", "train"),
        ("vqa/plane", "calibration"),
        ("vqa/abnormality", "test"),
        ("vqa/modality", "test"),
    ]
    organ, emboli = samples["vqa-med/synpic1-organ"], samples["vqa-med/synpic3-abnormality"]
    assert (organ.text, organ.extra["alternatives"]) == ("lung, pleura", ["spine"])
    assert emboli.extra["alternatives"] == [
        "septic cerebral emboli",
        "angioinvasive aspergillosis with septic cerebral emboli",
    ]
    assert all(isinstance(one.image, Path) and one.image.is_file() for one in samples.values())


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    vqa_med(tmp_path)
    (tmp_path / "VQAMed2019Test" / "VQAMed2019_Test_Questions_w_Ref_Answers.txt").unlink()
    (lost,) = (one for one in read_all("vqa-med", tmp_path) if isinstance(one, Skipped))
    assert "test" in lost.fix
    with raises_error("KD-SRC-578"):
        read("vqa-med", tmp_path / "VQAMed2019Test")
    file = tmp_path / "ImageClef-2019-VQA-Med-Training" / "QAPairsByCategory" / "C1_Modality_train.txt"
    file.write_text("synpic1|what?|mra\nsynpic1|what|is|this?\n", encoding="utf-8")
    with raises_error("KD-SRC-579", where=f"{file}:2"):
        read("vqa-med", tmp_path)
    found = read_all("vqa-med", tmp_path, skip_broken=True)
    assert [one.what for one in found if isinstance(one, Skipped)] == ["missing files", "broken records"]


def test_one_folder_for_all_archives(tmp_path: Path) -> None:
    """Each split has its own folder of images, beside those of the others."""
    for name, text in (("C1_Modality_train", "synpic1|what?|mra\n"), ("C1_Modality_val", "synpic1|what?|ct\n")):
        file = tmp_path / "QAPairsByCategory" / f"{name}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    for folder in ("Train_images", "Val_images"):
        write_image(tmp_path / folder / "synpic1.jpg")
    found = {one.split: Path(str(one.image)).parent.name for one in read("vqa-med", tmp_path)}
    assert found == {"train": "Train_images", "calibration": "Val_images"}


def test_an_answer_of_separators_alone(tmp_path: Path) -> None:
    file = vqa_med(tmp_path) / "ImageClef-2019-VQA-Med-Training" / "QAPairsByCategory" / "C1_Modality_train.txt"
    file.write_text("synpic1|what?|#\n", encoding="utf-8")
    with raises_error("KD-SRC-579", where=f"{file}:1"):
        read("vqa-med", tmp_path)
