"""PMC-VQA: figures of articles with questions of four options."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Sample, Skipped, Split
from kdkit.plugins.answers.choices import LETTERS
from kdkit.plugins.sources.choices import check_wording, choice_question
from kdkit.plugins.sources.fields import held_back, parse_split
from kdkit.plugins.sources.questions import Boxes, read_all, sample_of
from kdkit.plugins.sources.records import Ids, Record, file_below, read_text, require_file, text_of

FILES: Mapping[int, tuple[str, ...]] = {1: ("train.csv", "test.csv"), 2: ("train_2.csv", "test_2.csv")}
"""Version -> its files: 1 has the figures of images.zip, 2 the single pictures of images_2.zip."""
CLEAN = "test_clean.csv"
"""The checked part of version 1's test file."""
FOLDERS = ("images", "figures", "images_2", ".")
"""Where the archives are unpacked; the first one with the first picture is taken."""
CHOICES = ("Choice A", "Choice B", "Choice C", "Choice D")


def read_pmc_vqa(
    location: Path,
    *,
    version: int = 2,
    clean: bool = False,
    answers: str = "text",
    calibration: float = 0.05,
    image_root: str | None = None,
    id_prefix: str = "pmc-vqa/",
    skip_broken: bool = False,
) -> Iterator[Sample | Skipped]:
    """PMC-VQA (Zhang et al., 2023) as on the Hub (RadGenome/PMC-VQA): CSV files beside the unpacked images.

    The domain is ``vqa/figure``: the files have no modality. References are the options' texts.

    Args:
        location: the folder, or one of its CSV files; the beginning of a file's name is its split.
        version: of the files in a folder: 1 (``train.csv``) or 2 (``train_2.csv``).
        clean: with version 1: ``test_clean.csv`` in the place of ``test.csv``.
        answers: ``text`` or ``letter``.
        calibration: share of the training images, by a hash of their names, that becomes the calibration split.
        image_root: folder of the images, relative to the files'; by default ``images``, ``figures``, ``images_2`` or
            the files' own, whichever has the first picture.
        id_prefix: before the picture's name; further questions about it get ``-2``, ``-3``.
        skip_broken: skip broken records, and count them.
    """
    wording, held = check_wording(answers, str(location)), held_back(calibration, str(location))
    files = _files(location, version, clean)
    folder = files[0].parent
    lacking = [name for name in _names(version, clean) if location.is_dir() and not (location / name).is_file()]
    for name in lacking:
        yield Skipped("missing files", str(location / name), "put the file there")
    root = folder / (image_root if image_root is not None else _image_folder(files[0]))
    ids, boxes = Ids(id_prefix), Boxes(None, None, str(location))

    def samples(row: tuple[Split, Record], where: str) -> Iterator[Sample]:
        split, record = row
        picture = text_of(record, "Figure_path", where)
        answer = text_of(record, "Anwser" if "Anwser" in record else "Answer", where)  # version 1 misspells it
        question = choice_question(
            id=ids(Path(picture).stem),
            image=file_below(root, picture, where),
            question=text_of(record, "Question", where),
            options=[text_of(record, name, where) for name in CHOICES],
            answer=answer,
            letter=_letter(record, answer),
            wording=wording,
            where=where,
            modality="figure",
        )
        yield sample_of(question, held(picture) if split == "train" else split, boxes, where)

    rows = ((where, (_split_of(file), record)) for file in files for where, record in csv_records(file))
    yield from read_all(rows, samples, location, skip_broken=skip_broken)


def csv_records(path: Path) -> Iterator[tuple[str, Record]]:
    """(``file:line``, row) of a CSV file with a header.

    Raises:
        KdkitError: with ``file:line``; the file is missing or damaged, or a row has other cells than the header.
    """
    require_file(path)
    reader = csv.DictReader(StringIO(read_text(path).lstrip("\ufeff"), newline=""), strict=True)
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise KdkitError(
                    "KD-SRC-572", "a row has other cells than the header", where=where, fix="download the file again"
                )
            yield where, row
    except csv.Error as error:
        where = f"{path}:{reader.line_num}"
        fix = "download the file again"
        raise KdkitError("KD-SRC-573", "not valid CSV", where=where, why=str(error), fix=fix) from error


def _letter(record: Record, answer: str) -> str:
    """That of the right option: version 1 has it beside the text, in version 2 it is the answer; else empty."""
    stated = str(record.get("Answer_label") or "").strip()
    return stated or (answer if answer in LETTERS[: len(CHOICES)] else "")


def _names(version: int, clean: bool) -> tuple[str, ...]:
    return (FILES[1][0], CLEAN) if clean else FILES[version]


def _files(location: Path, version: int, clean: bool) -> list[Path]:
    if version not in FILES or (clean and version != 1):
        raise KdkitError(
            "KD-SRC-574",
            f"version is {version}" + (" with clean" if clean else ""),
            where=str(location),
            fix="set version: 1 or 2; only version 1 has a clean test file",
        )
    found = [location / name for name in _names(version, clean)] if location.is_dir() else [location]
    if found := [file for file in found if file.is_file()]:
        return found
    raise KdkitError(
        "KD-SRC-575",
        f"this folder does not hold version {version} of PMC-VQA",
        where=str(location),
        fix=f"it must have {' and '.join(_names(version, clean))}; the other version is the option version",
        code=ExitCode.MISSING,
    )


def _split_of(file: Path) -> Split:
    """By the beginning of the name. Raises: KdkitError: it is another, so that test data never become training data."""
    named = re.match(r"train|test|", file.name.lower())
    fix = "let the name of the file begin with train or test, as those of PMC-VQA do"
    return parse_split((named and named[0]) or file.stem, str(file), fix)


def _image_folder(file: Path) -> str:
    """The folder with the picture of the first row; ``images`` if none has it."""
    first = next((str(row.get("Figure_path", "")) for _, row in csv_records(file)), "")
    found = (name for name in FOLDERS if first and (file.parent / name / first).is_file())
    return next(found, FOLDERS[0])
