"""Public sets of questions, by their published layouts."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Recognition
from kdkit.plugins.readers.parquet_files import binary_leaf
from kdkit.plugins.sources.hf_layout import looks_saved
from kdkit.plugins.sources.hub_questions import HubQuestions
from kdkit.plugins.sources.omni_med_vqa import question_files as omni_med_files
from kdkit.plugins.sources.parquet import ParquetRows
from kdkit.plugins.sources.pmc_vqa import CHOICES, CLEAN, FILES, csv_records
from kdkit.plugins.sources.records import json_records
from kdkit.plugins.sources.vqa import SLAKE_FILES
from kdkit.plugins.sources.vqa_med import question_files as vqa_med_files

CERTAIN = 97
"""Above the recognizers of tables: a layout with questions is more than a table."""
KNOWN = {"path": "pathology", "rad": "radiology", "slake": "radiology"}
"""Part of a data set's name -> modality."""


def recognize_hub_questions(path: Path) -> Recognition | None:
    """A data set of Hugging Face with images, questions and answers.

    Raises:
        KdkitError: a damaged file.
    """
    saved = looks_saved(path) if path.is_dir() else path.suffix == ".arrow"
    source = HubQuestions(path, modality="unknown")
    if not (saved or ParquetRows(path).fits()) or not source.fits():
        return None
    files = source.files()
    with source.table(files[0]) as table:
        schema = table.schema
        if not {"question", "answer"} <= set(schema.names) or not binary_leaf(schema, "image"):
            return None
    named = {str(row["split"]) for file in files if (row := source.with_split({}, file))}
    name = path.stem.lower() if path.is_file() else path.resolve().name.lower()
    options: dict[str, Any] = {"modality": next((m for part, m in KNOWN.items() if part in name), "image")}
    says = [f"questions about images: {len(files)} files; the columns image, question, answer"]
    if not named:
        options["split_fractions"] = {"train": 0.8, "calibration": 0.1, "test": 0.1}
        says.append("splits: 80 % train, 10 % calibration, 10 % test, by a stable hash of the image")
    else:
        says.append(f"splits: {', '.join(sorted(named))}, by the names of files")
        if "calibration" not in named and "train" in named:
            options["calibration"] = 0.1
            says.append("calibration: 10 % of the training images, by a stable hash of the image")
    says.append(f"domain: vqa/{options['modality']}, for all (option modality); an image is a group")
    return Recognition(path, options, tuple(says), CERTAIN)


def recognize_pmc_vqa(path: Path) -> Recognition | None:
    """The CSV files of PMC-VQA, in a folder or one of them."""
    names = {name: version for version, names in FILES.items() for name in names} | {CLEAN: 1}
    if path.is_file() and path.suffix.lower() == ".csv":
        return _pmc_vqa(path, path, {}) if _has_choices(path) else None
    there = [path / name for name in names if (path / name).is_file()] if path.is_dir() else []
    if not there or not _has_choices(there[0]):
        return None
    versions = sorted({names[file.name] for file in there})
    return _pmc_vqa(path, there[-1], {"version": versions[-1]})


def recognize_omni_med_vqa(path: Path) -> Recognition | None:
    """A folder with ``QA_information``."""
    files = omni_med_files(path) if path.is_dir() else []
    if not files:
        return None
    open_files = omni_med_files(path, "open")
    options = {} if open_files else {"access": "restricted"}
    says = (
        f"OmniMedVQA: {len(open_files or files)} files of questions with options",
        "domains: vqa/ and the modality; subgroups: dataset, question_type",
        "splits: all test, as it is a benchmark (option split_fractions)",
    )
    return Recognition(path, options, says, CERTAIN)


def recognize_vqa_med(path: Path) -> Recognition | None:
    """The folders of VQA-Med 2019."""
    files = vqa_med_files(path) if path.is_dir() else []
    if not files:
        return None
    splits = ", ".join(dict.fromkeys(file.split for file in files))
    says = (f"VQA-Med 2019: {len(files)} files of questions", "domains: vqa/ and the category", f"splits: {splits}")
    return Recognition(path, {}, says, CERTAIN)


def recognize_vqa_rad(path: Path) -> Recognition | None:
    """The JSON file of VQA-RAD, or the only one in a folder."""
    file = path
    if path.is_dir():
        found = sorted(path.glob("*.json"))
        file = found[0] if len(found) == 1 else path
    first = _first_record(file)
    if not {"qid", "image_name", "image_organ", "phrase_type", "answer_type"} <= first.keys():
        return None
    folders = (folder.name for folder in sorted(file.parent.iterdir()) if folder.is_dir())
    root = next((name for name in folders if (file.parent / name / str(first["image_name"])).is_file()), ".")
    says = (f"VQA-RAD: {file.name}, images below {root}", "domains: vqa/ and the organ", "splits: by phrase_type")
    return Recognition(file, {} if root == "." else {"image_root": root}, says, CERTAIN)


def recognize_slake(path: Path) -> Recognition | None:
    """A folder with SLAKE's files."""
    there = [name for name in SLAKE_FILES if (path / name).is_file()] if path.is_dir() else []
    if not there or not {"q_lang", "img_name", "answer_type", "modality"} <= _first_record(path / there[0]).keys():
        return None
    says = (
        "SLAKE: questions in English (option language)",
        "domains: vqa/ and the modality",
        f"files: {', '.join(there)}",
    )
    return Recognition(path, {}, says, CERTAIN)


def _pmc_vqa(path: Path, file: Path, options: dict[str, Any]) -> Recognition:
    says = (
        f"PMC-VQA: {file.name}" if path == file else f"PMC-VQA, version {options['version']}",
        "domain: vqa/figure, for all; questions with four options",
        "splits: by the names of files; calibration: 5 % of the training images, by a stable hash",
    )
    return Recognition(path, options, says, CERTAIN)


def _has_choices(file: Path) -> bool:
    try:
        first = next(iter(csv_records(file)), None)
    except KdkitError:
        return False
    return first is not None and {"Figure_path", "Question", *CHOICES} <= first[1].keys()


def _first_record(file: Path) -> dict[str, Any]:
    if file.suffix.lower() != ".json" or not file.is_file():
        return {}
    try:
        return dict(next(islice((record for _, record in json_records(file)), 1), {}))
    except (KdkitError, json.JSONDecodeError):
        return {}
