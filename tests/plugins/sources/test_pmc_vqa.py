"""PMC-VQA, both versions, in the published layout."""

from __future__ import annotations

from pathlib import Path

from kdkit.core.contracts import Sample, Skipped
from tests.errors import raises_error
from tests.plugins.sources.files import read, read_all
from tests.plugins.sources.question_sets import PMC_1, PMC_2, pmc_vqa, write_csv


def test_version_2(tmp_path: Path) -> None:
    train, more, test, _ = read("pmc-vqa", pmc_vqa(tmp_path), calibration=0)
    assert (train.id, train.split, train.domain) == ("pmc-vqa/PMC8253797_Fig4_11", "train", "vqa/figure")
    assert (more.id, test.split) == ("pmc-vqa/PMC8253797_Fig4_11-2", "test")
    assert train.image == tmp_path / "figures" / PMC_2["Figure_path"]
    assert train.text == "Tumor (>5 mm)"
    assert train.extra["choices"] == ["Tumor (<5 mm)", "Tumor (>5 mm)", "A. fumigatus", "Blood"]
    assert train.extra["messages"][0]["content"] == (
        "<image>\nWhat do the arrows show?\nA. Tumor (<5 mm)\nB. Tumor (>5 mm)\nC. A. fumigatus\nD. Blood\n"
        "Answer with the text of one of these options."
    )
    assert read("pmc-vqa", tmp_path, answers="letter")[0].text == "B"
    assert {one.split for one in read("pmc-vqa", tmp_path / "test_2.csv")} == {"test"}


def test_version_1(tmp_path: Path) -> None:
    """Options carry their letters, answers are texts; an older copy misspells the column."""
    sample = read("pmc-vqa", pmc_vqa(tmp_path, 1), version=1)[0]
    assert (sample.text, sample.extra["choices"][3]) == ("Focal uptake pattern", "Cannot be determined")
    assert sample.image == tmp_path / "images" / PMC_1["Figure_path"]
    old = {**{k: v for k, v in PMC_1.items() if k != "Answer"}, "Anwser": "B:Focal uptake pattern"}
    write_csv(tmp_path / "test_clean.csv", old)
    assert read("pmc-vqa", tmp_path, version=1, clean=True)[-1].text == "Focal uptake pattern"


def test_the_letter_decides(tmp_path: Path) -> None:
    """Version 2 answers by letters: ``A`` is the first option, even where another one is called A."""
    panels = {"Choice A": "B", "Choice B": "A", "Choice C": "C", "Choice D": "D"}
    file = write_csv(tmp_path / "test_2.csv", {**PMC_2, **panels, "Answer": "A"})
    assert [one.text for one in read("pmc-vqa", file)] == ["B"]
    old = {**PMC_1, "Answer": "Focal uptake", "Answer_label": "B"}
    assert read("pmc-vqa", write_csv(tmp_path / "test.csv", old))[0].text == "Focal uptake pattern"
    for wrong in ({"Answer_label": "C"}, {"Answer_label": "E"}, {"Choice D": " D:"}):
        with raises_error("KD-SRC-571"):
            read("pmc-vqa", write_csv(tmp_path / "test.csv", {**PMC_1, **wrong}))


def test_images_never_span_train_and_calibration(tmp_path: Path) -> None:
    rows = [{**PMC_2, "Figure_path": f"{n % 50}.jpg"} for n in range(150)]
    samples = read("pmc-vqa", write_csv(tmp_path / "train_2.csv", *rows), calibration=0.4)
    splits = {sample.image: sample.split for sample in samples}
    assert set(splits.values()) == {"train", "calibration"}
    assert all(splits[sample.image] == sample.split for sample in samples)


def test_bad_input(tmp_path: Path) -> None:
    path = pmc_vqa(tmp_path)
    with raises_error("KD-SRC-575", mentions=("train.csv",)):
        read("pmc-vqa", path, version=1)
    for options in ({"version": 3}, {"clean": True}):
        with raises_error("KD-SRC-574"):
            read("pmc-vqa", path, **options)
    with raises_error("KD-SRC-570", mentions=("number",)):
        read("pmc-vqa", path, answers="number")
    for wrong in ({"Answer": "Bone"}, {"Choice D": " "}, {"Answer": "E"}):
        write_csv(path / "train_2.csv", {**PMC_2, **wrong}, PMC_2)
        with raises_error("KD-SRC-034" if "Choice D" in wrong else "KD-SRC-571", where=f"{path / 'train_2.csv'}:2"):
            read("pmc-vqa", path)
        found = read_all("pmc-vqa", path, skip_broken=True)
        assert sum(isinstance(one, Sample) for one in found) == 3
        assert [one.what for one in found if isinstance(one, Skipped)] == ["broken records"]
    with raises_error("KD-SRC-020", where=str(path / "val.csv")):
        read("pmc-vqa", write_csv(path / "val.csv", PMC_2))
    (path / "train_2.csv").write_text("a,b\n1\n", encoding="utf-8")
    with raises_error("KD-SRC-572"):
        read("pmc-vqa", path)
    (path / "train_2.csv").write_text('a,b\n"1', encoding="utf-8")
    with raises_error("KD-SRC-573"):
        read("pmc-vqa", path)
