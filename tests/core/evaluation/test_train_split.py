"""Evaluation of an answering student on its training split, on which teachers have no stored answers."""

from __future__ import annotations

from pathlib import Path

from kdkit.core.contracts import Silent
from kdkit.core.distill.run import Options, distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.evaluation.report import write_report
from tests.core.distill.test_generating import add_vlm, generating_project, reopened


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_a_teacher_without_answers_on_the_split_is_reported_and_not_evaluated(tmp_path: Path) -> None:
    root = tmp_path / "p"
    generating_project(root, held_out=4)
    recipe = "name: toy\nsummary: toy\nlosses: [{name: answers}]\ntrust: {policy: all}\n"
    (root / "toy.yaml").write_text(recipe + "optimizer: {lr: 0.01, batch_size: 16, steps: 4}\n", encoding="utf-8")
    add_vlm(root, "first", seed=0)
    distill(reopened(root), Options(cpu=True))
    heard = Heard()
    report = evaluate_version(reopened(root), split="train", reporter=heard)
    assert sum("'first'" in text for text in heard.warnings) == 1
    assert report.evaluation.model("first").means == {}
    assert "teacher" not in write_report(reopened(root).reports, report).alt
