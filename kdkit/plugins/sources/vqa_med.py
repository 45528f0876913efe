"""VQA-Med 2019 of ImageCLEF: radiology images, questions of four categories."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import IMAGE_MARK, Sample, Skipped, Split
from kdkit.plugins.answers.replies import ALTERNATIVES
from kdkit.plugins.sources.questions import Boxes, Question, read_all, sample_of
from kdkit.plugins.sources.records import Ids, file_below, read_text

CATEGORIES = ("modality", "plane", "organ", "abnormality")
_BY_CATEGORY = re.compile(r"C\d_([A-Za-z]+)_(train|val)\.txt")
_TEST = "VQAMed2019_Test_Questions_w_Ref_Answers.txt"
SPLITS: dict[str, Split] = {"train": "train", "val": "calibration", "test": "test"}
_OPTIONAL = re.compile(r"\s*\([^()]*\)\s*")


@dataclass(frozen=True)
class _File:
    """A file of questions; ``category`` is empty for the test file, whose lines name it; ``images``: their folder."""

    path: Path
    category: str
    split: Split
    images: Path


@dataclass(frozen=True)
class _Line:
    """One question."""

    image: str
    category: str
    question: str
    answer: str
    split: Split
    images: Path


def read_vqa_med(
    location: Path,
    *,
    id_prefix: str = "vqa-med/",
    skip_broken: bool = False,
) -> Iterator[Sample | Skipped]:
    """VQA-Med 2019 (Ben Abacha et al., CLEF 2019): the unpacked folders of training, validation and test.

    Read are ``QAPairsByCategory/C1_Modality_train.txt`` and so on, and ``VQAMed2019_Test_Questions_w_Ref_Answers.txt``.
    Validation is the calibration split; the domain is the category (``vqa/plane``): images have no stated modality.
    ``#`` separates several right answers: the first one is the text, the others ``extra["alternatives"]``. Parts of
    test answers in brackets are optional, as the test set's readme says: the answer without them is right too.

    Args:
        location: the folder that holds them, at any depth up to three.
        id_prefix: before image and category.
        skip_broken: skip broken records, and count them.
    """
    files = question_files(location)
    if not files:
        raise KdkitError(
            "KD-SRC-578",
            "this folder does not hold VQA-Med 2019",
            where=str(location),
            fix=f"unpack its archives there: it must have QAPairsByCategory/C1_Modality_train.txt, ..., or {_TEST}",
            code=ExitCode.MISSING,
        )
    there = {file.split for file in files}
    for split in (split for split in SPLITS.values() if split not in there):
        yield Skipped("missing files", str(location), f"the {split} split of VQA-Med 2019 is not there")
    ids, boxes = Ids(id_prefix), Boxes(None, None, str(location))

    def samples(row: tuple[str, _File], where: str) -> Iterator[Sample]:
        line = _line(*row, where)
        first, *others = _references(line)
        question = Question(
            id=ids(f"{line.image}-{line.category}"),
            images=[file_below(line.images, f"{line.image}.jpg", where)],
            messages=[("user", f"{IMAGE_MARK}\n{line.question}")],
            answer=first,
            task="vqa",
            modality=line.category,
            extra={ALTERNATIVES: others} if others else {},
        )
        yield sample_of(question, line.split, boxes, where)

    lines = (line for file in files for line in _lines(file))
    yield from read_all(lines, samples, location, skip_broken=skip_broken)


def question_files(location: Path) -> list[_File]:
    """The files of questions below the folder, in the order of splits and names."""
    found = []
    for depth in range(4):
        for path in location.glob("*/" * depth + "*.txt"):
            match = _BY_CATEGORY.fullmatch(path.name)
            if match and match[1].lower() in CATEGORIES:
                images = _image_folder(path, match[2])
                found.append(_File(path, match[1].lower(), SPLITS[match[2]], images))
            elif path.name == _TEST:
                found.append(_File(path, "", "test", _image_folder(path, "test")))
    return sorted(found, key=lambda file: (list(SPLITS.values()).index(file.split), file.path.name))


def _lines(file: _File) -> Iterator[tuple[str, tuple[str, _File]]]:
    """(``file:line``, (text, file)) of each line that is not empty."""
    for number, text in enumerate(read_text(file.path).splitlines(), start=1):
        if text.strip():
            yield f"{file.path}:{number}", (text, file)


def _line(text: str, file: _File, where: str) -> _Line:
    """A line, ``image|question|answer``, in the test file ``image|category|question|answer``."""
    cells = [cell.strip() for cell in text.split("|")]
    given = [cells[0], file.category, *cells[1:]] if file.category else cells
    if len(given) != 4 or not all(given) or given[1] not in CATEGORIES or not given[3].strip("# "):
        shape = "image|question|answer" if file.category else "image|category|question|answer"
        fix = f"a line is {shape}; correct it, or skip such lines with the option skip_broken: true"
        raise KdkitError("KD-SRC-579", "not a question of VQA-Med", where=where, why=text[:80], fix=fix)
    return _Line(given[0], given[1], given[2], given[3], file.split, file.images)


def _image_folder(file: Path, split: str) -> Path:
    """The folder of the images: named ``..._images``, beside the file or beside its folder; that of ``split`` first."""
    for folder in (file.parent, file.parent.parent):
        found = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower().endswith("images"))
        if found:
            return next((path for path in found if split in path.name.lower()), found[0])
    return file.parent


def _references(line: _Line) -> list[str]:
    """Right answers, the one to learn first."""
    found = [part.strip() for part in line.answer.split("#") if part.strip()]
    if line.split == "test":
        for answer in tuple(found):
            found += [_OPTIONAL.sub(" ", answer).strip(), answer.replace("(", "").replace(")", "")]
    return list(dict.fromkeys(answer for answer in found if answer))
