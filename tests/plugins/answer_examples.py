"""Examples by which the conformance kit checks the sources of questions with answers, and the task ``answers``."""

from __future__ import annotations

import atexit
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import kdkit.testing as kit
from kdkit.core.contracts import ModelAnswers, Sample
from kdkit.plugins.answers.judge.task import is_judged
from tests.local_endpoint import local_endpoint
from tests.plugins.sources.question_sets import omni_med_vqa, path_vqa, pmc_vqa, vqa_med

RAD = {"qid": 1, "image_name": "0.png", "image_organ": "HEAD", "answer": "Yes", "answer_type": "CLOSED",
       "question": "Is it?", "phrase_type": "freeform"}  # fmt: skip
SLAKE = {"img_name": "0.png", "question": "Is it?", "answer": "MRI", "q_lang": "en", "modality": "MRI",
         "answer_type": "OPEN", "qid": 1}  # fmt: skip
QA = {"question_id": 0, "image": "0.png", "text": "What?\n<image>", "gpt4_answer": "A cyst.", "domain": {"mri": True}}
TALK = {
    "id": "0",
    "conversations": [["<img>x</img>Where?", "<box>(1,2),(3,4)</box>"], ["Where else?", "<box>(5,6),(7,8)</box>"]],
}
SAID = {
    "conversations": [{"from": "human", "value": "<image>Where?"}, {"from": "gpt", "value": "here"}],
    "images": ["0.png"],
}
INFO = {"data": {"file_name": "data.json", "formatting": "sharegpt",
                 "columns": {"messages": "conversations", "images": "images"}}}  # fmt: skip


class Records(kit.SourceContract):
    """A file of two records about one picture."""

    file: ClassVar[str] = "data.json"
    record: ClassVar[Mapping[str, Any]]

    def location(self) -> Path:
        kit.pictures(1)[0].save(self.scratch() / "0.png")
        return self.write(self.scratch() / self.file)

    def write(self, path: Path) -> Path:
        path.write_text(f"[\n{json.dumps(self.record)},\n{json.dumps(self.record)}\n]\n", encoding="utf-8")
        return path


class MedGrit(Records):
    name = "med-grit"
    record = TALK
    options: ClassVar[Mapping[str, Any]] = {"task": "vg", "modality": "ct", "split": "train"}


class VqaRad(Records):
    name = "vqa-rad"
    record = RAD


class LlavaMedQa(Records):
    name = "llava-med-qa"
    file = "data.jsonl"
    record = QA
    options: ClassVar[Mapping[str, Any]] = {"image_root": "."}

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(self.record) + "\n" + json.dumps(self.record) + "\n", encoding="utf-8")
        return path


class ShareGpt(Records):
    """Its location is the file that says where the data are."""

    name = "sharegpt"
    record = SAID
    options: ClassVar[Mapping[str, Any]] = {"task": "mia", "modality": "ct", "split": "train"}

    def location(self) -> Path:
        super().location()
        path = self.scratch() / "dataset_info.json"
        path.write_text(json.dumps(INFO, indent=1), encoding="utf-8")
        return path


class Slake(Records):
    """A folder of files."""

    name = "slake"
    record = SLAKE
    file = "train.json"
    options: ClassVar[Mapping[str, Any]] = {"image_root": "."}

    def location(self) -> Path:
        return super().location().parent

    def damaged(self) -> Path:
        folder = self.scratch() / "damaged"
        folder.mkdir()
        (folder / "test.json").write_text('[\n{"broken', encoding="utf-8")
        return folder


class QuestionFolder(kit.SourceContract):
    """A folder in a published layout."""

    write: ClassVar[Callable[[Path], Path]]
    text: ClassVar[str] = ""

    def location(self) -> Path:
        return type(self).write(self.scratch() / "set")

    def damaged(self) -> Path:
        folder = type(self).write(self.scratch() / "damaged")
        (folder / self.text).write_bytes(b'[\n{"broken')
        return folder


class HubQuestions(QuestionFolder):
    name = "hub-questions"
    write = path_vqa
    text = "data/test-00000-of-00001.parquet"
    options: ClassVar[Mapping[str, Any]] = {"modality": "pathology"}


class PmcVqa(QuestionFolder):
    name = "pmc-vqa"
    write = pmc_vqa
    text = "test_2.csv"


class OmniMedVqa(QuestionFolder):
    name = "omni-med-vqa"
    write = omni_med_vqa
    text = "QA_information/Open-access/ACRIMA.json"


class VqaMed(QuestionFolder):
    name = "vqa-med"
    write = vqa_med
    text = "VQAMed2019Test/VQAMed2019_Test_Questions_w_Ref_Answers.txt"


class Parrot:
    """A model that answers every second question as the reference, and the others with one word."""

    name = "parrot"

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        return [sample.text if number % 2 else "lung" for number, sample in enumerate(samples)]


class Answers(kit.TaskContract):
    """Questions of all tasks, answered by a parrot."""

    name = "answers"

    def view(self) -> ModelAnswers:
        return Parrot()

    def samples(self) -> list[Sample]:
        return [
            Sample(f"{task}-{n}", Path(f"{n}.png"), text, f"{task}/ct", None, "test", extra={"task": task})
            for task, texts in REFERENCES.items()
            for n, text in enumerate(texts * 4)
        ]


class Judge(Answers):
    """Questions with texts as answers, before a judge for whom everything is right."""

    name = "judge"

    @kit.once
    def folder(self) -> Path:
        """With ``endpoint.json`` of a server that runs until the process ends."""
        server = local_endpoint(lambda _: [("VERDICT: CORRECT", ())])
        settings = {"endpoint": server.__enter__().url, "model": "judge"}
        atexit.register(server.__exit__, None, None, None)
        (self.scratch() / "endpoint.json").write_text(json.dumps(settings), encoding="utf-8")
        return self.scratch()

    def make(self, **options: Any) -> Any:
        return super().make(**{"folder": str(self.folder()), **options})

    def samples(self) -> list[Sample]:
        return [sample for sample in super().samples() if is_judged(sample)]


REFERENCES = {
    "vg": ["<box>(10,10),(90,90)</box>", "<box>(1,2),(30,40)</box><box>(50,50),(80,90)</box>"],
    "roc": ["left lung", "liver", "lung"],
    "rc": ["a small cyst in the upper pole", "an enlarged lung"],
    "mia": ["there is no evidence of pneumonia in this chest x-ray", "normal lung"],
    "vqa": ["yes", "no", "left lung", "two"],
}
EXAMPLES: tuple[type[kit.Contract], ...] = (
    *(MedGrit, VqaRad, LlavaMedQa, ShareGpt, Slake, HubQuestions, PmcVqa, OmniMedVqa, VqaMed),
    *(Answers, Judge),
)
