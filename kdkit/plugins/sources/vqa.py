"""Public question answering sets: VQA-RAD, SLAKE, and the LLaVA-Med-qa0.2k questions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import IMAGE_MARK, Sample, Skipped, Split
from kdkit.plugins.sources.fields import held_back
from kdkit.plugins.sources.questions import Boxes, Question, SplitRule, read_all, sample_of
from kdkit.plugins.sources.records import Ids, Record, file_below, json_records, text_of

SLAKE_FILES: dict[str, Split] = {
    "train.json": "train",
    "validate.json": "calibration",
    "validation.json": "calibration",
    "test.json": "test",
}


def read_vqa_rad(
    location: Path,
    *,
    image_root: str = ".",
    calibration: float = 0.1,
    id_prefix: str = "vqa-rad/",
    skip_broken: bool = False,
) -> Iterator[Sample | Skipped]:
    """VQA-RAD (Lau et al., Scientific Data 2018): a JSON list of questions.

    ``test_...`` phrase types are the test split, as published. The domain is the organ (``vqa/head``), because the file
    has no modality. Images of the published splits overlap, which ``kdkit data check`` reports.

    Args:
        location: the JSON file.
        image_root: folder of the images, relative to the file's.
        calibration: share of the training images, by a hash of their names, that becomes the calibration split.
        id_prefix: prefix of ``qid``.
        skip_broken: skip broken records, and count them.
    """
    held = held_back(calibration, str(location))
    ids, boxes, root = Ids(id_prefix), Boxes(None, None, str(location)), location.parent / image_root

    def samples(record: Record, where: str) -> Iterator[Sample]:
        image = text_of(record, "image_name", where)
        testing = text_of(record, "phrase_type", where).startswith("test")
        organ = text_of(record, "image_organ", where).lower()
        question = _question(ids, record, file_below(root, image, where), organ, where)
        yield sample_of(question, "test" if testing else held(image), boxes, where)

    return read_all(json_records(location), samples, location, skip_broken=skip_broken)


def read_slake(
    location: Path,
    *,
    language: str = "en",
    image_root: str = "imgs",
    id_prefix: str = "slake/",
    skip_broken: bool = False,
) -> Iterator[Sample | Skipped]:
    """SLAKE (Liu et al., ISBI 2021): a folder with ``train.json``, ``validate.json`` and ``test.json``.

    Validation is the calibration split; the domain is the modality (``vqa/ct``).

    Args:
        location: the folder; missing files are skipped.
        language: ``en``, ``zh`` or ``all``.
        image_root: folder of the images, relative to it.
        id_prefix: prefix of ``qid``.
        skip_broken: skip broken records, and count them.
    """
    if language not in ("en", "zh", "all"):
        raise KdkitError(
            "KD-SRC-071",
            f"there is no language '{language}' in SLAKE",
            where=str(location),
            fix="set language: en, zh or all",
        )
    files = [location / name for name in SLAKE_FILES if (location / name).is_file()]
    splits = {SLAKE_FILES[file.name] for file in files}
    if not files:
        raise KdkitError(
            "KD-SRC-072",
            "this folder does not hold SLAKE",
            where=str(location),
            fix=f"the folder must have {', '.join(SLAKE_FILES)}",
            code=ExitCode.MISSING,
        )
    for name in (name for name, split in SLAKE_FILES.items() if split not in splits):
        yield Skipped("missing files", str(location / name), "put the file there")
        splits.add(SLAKE_FILES[name])
    ids, boxes, root = Ids(id_prefix), Boxes(None, None, str(location)), location / image_root

    def samples(row: tuple[Split, Record], where: str) -> Iterator[Sample | Skipped]:
        split, record = row
        if language not in (text_of(record, "q_lang", where), "all"):
            yield Skipped("questions in another language", where, level="note")
            return
        image = file_below(root, text_of(record, "img_name", where), where)
        modality = text_of(record, "modality", where).lower()
        yield sample_of(_question(ids, record, image, modality, where), split, boxes, where)

    rows = ((where, (SLAKE_FILES[file.name], record)) for file in files for where, record in json_records(file))
    yield from read_all(rows, samples, location, skip_broken=skip_broken)


def read_llava_med_qa(
    location: Path,
    *,
    image_root: str = "images",
    split: Split = "test",
    id_prefix: str = "llava-med-qa/",
    skip_broken: bool = False,
) -> Iterator[Sample | Skipped]:
    """LLaVA-Med-qa0.2k: ``llava_med_eval_qa50_qa.jsonl`` of microsoft/LLaVA-Med, 193 questions about 50 images.

    The reference is ``gpt4_answer``, the task ``mia``, the domain the flags that are set (``mia/histology+gross``).

    Args:
        location: the JSON Lines file.
        image_root: folder of the images, relative to the file's.
        split: of all samples.
        id_prefix: prefix of ``question_id``.
        skip_broken: skip broken records, and count them.
    """
    ids, boxes, root = Ids(id_prefix), Boxes(None, None, str(location)), location.parent / image_root
    split_of = SplitRule(split, None, str(location))

    def samples(record: Record, where: str) -> Iterator[Sample]:
        flags = record.get("domain")
        if not isinstance(flags, dict) or not any(flags.values()):
            raise KdkitError(
                "KD-SRC-074",
                "domain must be an object with at least one flag set",
                where=where,
                why=f"it is {flags!r}",
                fix="correct the record, or skip such records with the option skip_broken: true",
            )
        text = text_of(record, "text", where).replace(IMAGE_MARK, "").strip()
        question = Question(
            id=ids(text_of(record, "question_id", where)),
            images=[file_below(root, record.get("image"), where)],
            messages=[("user", f"{IMAGE_MARK}\n{text}")],
            answer=text_of(record, "gpt4_answer", where),
            task="mia",
            modality="+".join(name for name, flag in flags.items() if flag),
        )
        yield sample_of(question, split_of(question.id), boxes, where)

    return read_all(json_records(location), samples, location, skip_broken=skip_broken)


def _question(ids: Ids, record: Record, image: Path, modality: str, where: str) -> Question:
    """An open or closed question, with its ``answer_type``, which the metrics need."""
    return Question(
        id=ids(text_of(record, "qid", where)),
        images=[image],
        messages=[("user", f"{IMAGE_MARK}\n{text_of(record, 'question', where)}")],
        answer=text_of(record, "answer", where),
        task="vqa",
        modality=modality,
        extra={"answer_type": text_of(record, "answer_type", where).upper()},
    )
