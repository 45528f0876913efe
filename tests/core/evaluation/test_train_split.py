"""An answering student on the split that it was trained on, where no teacher was asked for answers."""

from __future__ import annotations

from pathlib import Path

from kdkit.core.contracts import Silent
from kdkit.core.distill.run import Options, distill
from kdkit.core.evaluation.project import evaluate_project
from kdkit.core.evaluation.report import write_report
from tests.core.distill.test_generating import add_vlm, generating_project, reopened


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_teachers_that_answered_nothing_there_are_told_of_and_left_out(tmp_path: Path) -> None:
    root = tmp_path / "p"
    generating_project(root, held_out=4)
    recipe = "name: toy\nsummary: toy\nlosses: [{name: answers}]\ntrust: {policy: all}\n"
    (root / "toy.yaml").write_text(recipe + "optimizer: {lr: 0.01, batch_size: 16, steps: 4}\n", encoding="utf-8")
    add_vlm(root, "first", seed=0)
    distill(reopened(root), Options(cpu=True))
    heard = Heard()
    findings = evaluate_project(reopened(root), split="train", reporter=heard)
    (told,) = (text for text in heard.warnings if "'first'" in text)
    assert told.endswith("not evaluated there; teachers answer the calibration and test splits alone")
    assert findings.evaluation.model("first").means == {}
    assert "teacher" not in write_report(reopened(root), findings)["picture"]["alt"]
