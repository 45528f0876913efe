"""Small public sets of questions in their published layouts, for tests."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.plugins.sources.archives import png, write_parquet

PMC_1 = {
    "Figure_path": "PMC1064097_F1.jpg",
    "Question": "What is the uptake pattern in the breast?",
    "Answer": "Focal uptake pattern",
    "Choice A": " A:Diffuse uptake pattern",
    "Choice B": " B:Focal uptake pattern",
    "Choice C": " C:No uptake pattern",
    "Choice D": " D:Cannot be determined",
    "Answer_label": "B",
}
PMC_2 = {
    "index": "0",
    "Figure_path": "PMC8253797_Fig4_11.jpg",
    "Caption": "A, B. Scans",
    "Question": " What do the arrows show? ",
    "Choice A": "Tumor (<5 mm)",
    "Choice B": "Tumor (>5 mm)",
    "Choice C": "A. fumigatus",
    "Choice D": "Blood",
    "Answer": "B",
    "split": "train",
}
OMNI = {
    "dataset": "ACRIMA",
    "question_id": "acrima_0000",
    "question_type": "Disease Diagnosis",
    "question": "What is the specific abnormality?",
    "gt_answer": "No, It's normal.",
    "image_path": "Images/ACRIMA/Im002_ACRIMA.png",
    "option_A": "Glaucoma",
    "option_B": "No, It's normal.",
    "modality_type": "Fundus Photography",
}


def write_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (90, 20, 20)).save(path)
    return path


def write_csv(path: Path, *rows: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def pmc_vqa(folder: Path, version: int = 2) -> Path:
    """Two files and a picture in the folder of its archive."""
    row, names = (PMC_1, ("train.csv", "test.csv")) if version == 1 else (PMC_2, ("train_2.csv", "test_2.csv"))
    for name in names:
        write_csv(folder / name, row, {**row, "Question": "What else?"})
    write_image(folder / ("images" if version == 1 else "figures") / row["Figure_path"])
    return folder


def omni_med_vqa(folder: Path) -> Path:
    """Two data sets, one with the key ``modality``, and one of restricted access."""
    scan = {**OMNI, "question_id": "chest_1", "image_path": "Images/Chest/1.png", "option_C": "CT", "dataset": "Chest",
            "gt_answer": "CT", "modality": "CT(Computed Tomography)"}  # fmt: skip
    del scan["modality_type"]
    for name, rows in (("Open-access/ACRIMA", [OMNI]), ("Open-access/Chest", [scan]), ("Restricted-access/X", [OMNI])):
        file = folder / "QA_information" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows, indent=4), encoding="utf-8")
        write_image(folder / str(rows[0]["image_path"]))
    return folder


VQA_MED = {
    "ImageClef-2019-VQA-Med-Training/QAPairsByCategory/C1_Modality_train.txt": "synpic1|what modality is shown?|mra\n",
    "ImageClef-2019-VQA-Med-Training/QAPairsByCategory/C3_Organ_train.txt": "synpic1|what organ?|lung, pleura#spine\n",
    "ImageClef-2019-VQA-Med-Training/All_QA_Pairs_train.txt": "synpic1|what modality is shown?|mra\n",
    "ImageClef-2019-VQA-Med-Validation/QAPairsByCategory/C2_Plane_val.txt": "synpic2|which plane?|axial\n",
    "VQAMed2019Test/VQAMed2019_Test_Questions_w_Ref_Answers.txt": "synpic3|abnormality|what is abnormal?|"
    "(angioinvasive aspergillosis with) septic cerebral emboli\nsynpic3|modality|was contrast given?|no\n",
}


def vqa_med(folder: Path) -> Path:
    for name, text in VQA_MED.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    write_image(folder / "ImageClef-2019-VQA-Med-Training" / "Train_images" / "synpic1.jpg")
    write_image(folder / "ImageClef-2019-VQA-Med-Validation" / "Val_images" / "synpic2.jpg")
    write_image(folder / "VQAMed2019Test" / "VQAMed2019_Test_Images" / "synpic3.jpg")
    return folder


def path_vqa(folder: Path, splits: Sequence[str] = ("train", "validation", "test"), **columns: Any) -> Path:
    """As on the Hub: a question in each row, so that an image occurs several times."""
    for number, split in enumerate(splits):
        images = [{"bytes": png(10 * number + n // 2), "path": None} for n in range(8)]
        rows: dict[str, Any] = {
            "image": images,
            "question": [f"where are liver stem cells, {n}?" for n in range(8)],
            "answer": ["yes", "in the canals of hering"] * 4,
        }
        write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", {**rows, **columns})
    return folder
