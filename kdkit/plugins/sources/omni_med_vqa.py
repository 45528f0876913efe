"""OmniMedVQA: questions with options about images of 73 data sets and 12 modalities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import METADATA, Sample, Skipped
from kdkit.plugins.sources.choices import check_wording, choice_question
from kdkit.plugins.sources.questions import Boxes, SplitRule, read_all, sample_of
from kdkit.plugins.sources.records import Ids, Record, file_below, json_records, text_of

INFORMATION = "QA_information"
ACCESS = {"open": ("Open-access",), "restricted": ("Restricted-access",), "all": ("Open-access", "Restricted-access")}
OPTIONS = ("option_A", "option_B", "option_C", "option_D")


def read_omni_med_vqa(
    location: Path,
    *,
    access: str = "open",
    answers: str = "text",
    split: str | None = None,
    split_fractions: Mapping[str, float] | None = None,
    image_root: str = ".",
    id_prefix: str = "omni-med-vqa/",
    skip_broken: bool = False,
) -> Iterator[Sample | Skipped]:
    """OmniMedVQA (Hu et al., CVPR 2024): a folder with ``Images`` and ``QA_information``.

    It is a benchmark without splits: all samples are the test split unless an option says otherwise. The domain is the
    modality without its explanation (``vqa/ct``). Data set and type of the question are metadata, so subgroups.

    Args:
        location: the folder.
        access: ``open``; ``restricted``, whose images you fetch yourself; or ``all``.
        answers: ``text`` or ``letter``.
        split: of all samples; ``split_fractions``: shares by a hash of the image instead.
        image_root: folder that ``image_path`` is relative to, relative to the location.
        id_prefix: prefix of ``question_id``.
        skip_broken: skip broken records, and count them.
    """
    wording = check_wording(answers, str(location))
    if access not in ACCESS:
        fix = did_you_mean(access, tuple(ACCESS))
        raise KdkitError("KD-SRC-576", f"there is no access '{access}'", where=str(location), fix=fix)
    if split is None and split_fractions is None:
        split = "test"
    split_of = SplitRule(split, split_fractions, str(location))
    files = question_files(location, access)
    if not files:
        raise KdkitError(
            "KD-SRC-577",
            "this folder does not hold OmniMedVQA",
            where=str(location),
            why=f"no .json file in {INFORMATION}/{' or '.join(ACCESS[access])}",
            fix="name the unpacked folder with Images and QA_information",
            code=ExitCode.MISSING,
        )
    ids, boxes, root = Ids(id_prefix), Boxes(None, None, str(location)), location / image_root

    def samples(record: Record, where: str) -> Iterator[Sample]:
        picture = text_of(record, "image_path", where)
        kind = text_of(record, "modality" if "modality_type" not in record else "modality_type", where)
        about = {name: str(record[name]) for name in ("dataset", "question_type") if record.get(name)}
        question = choice_question(
            id=ids(text_of(record, "question_id", where)),
            image=file_below(root, picture, where),
            question=text_of(record, "question", where),
            options=[text_of(record, name, where) for name in OPTIONS if record.get(name) is not None],
            answer=text_of(record, "gt_answer", where),
            wording=wording,
            where=where,
            modality=kind.partition("(")[0].strip().lower(),
            extra={METADATA: about} if about else {},
        )
        yield sample_of(question, split_of(picture), boxes, where)

    rows = (row for file in files for row in json_records(file))
    yield from read_all(rows, samples, location, skip_broken=skip_broken)


def question_files(location: Path, access: str = "all") -> list[Path]:
    """The files of questions."""
    folders = (location / INFORMATION / name for name in ACCESS[access])
    return [file for folder in folders for file in sorted(folder.glob("*.json"))]
