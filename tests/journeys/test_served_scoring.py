"""A served model teaches a project's own answers, and the student's, and is noticed when it becomes another one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdkit import Project
from kdkit.core.project.registry.lock import Lock
from kdkit.plugins.loaders import endpoint_client
from tests.errors import raises_error
from tests.local_vllm import LocalVllm, local_vllm
from tests.plugins.students.clinkd.tiny import SIZES, SMALL, make, picture

K = 5
RECIPE = """\
name: served
summary: a served model along given answers, and along the student's own
losses:
  - {name: answer-ce, weight: 1.0}
  - {name: token-kd, weight: 1.0}
trust: {policy: all}
optimizer: {lr: 0.01, batch_size: 2, steps: 2}
"""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalVllm]:
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT", 0.001)
    with local_vllm(make(seed=4, max_tokens=160, max_answer=40)) as running:
        yield running


def project(root: Path, served: LocalVllm, more: str = "") -> Project:
    """Answered questions, the student, and a folder for the served model."""
    remote = root / "models" / "remote"
    remote.mkdir(parents=True)
    write_rows(root, ("train", "train", "calibration", "test"))
    student = json.dumps({"family": "clinkd", "config": {"sizes": SIZES, **SMALL}})
    registry = f"version: 1\nstudent: {student}\nteachers: {{}}\ndata:\n  - {{source: jsonl, path: rows.jsonl}}\n"
    (root / "served.yaml").write_text(RECIPE + more, encoding="utf-8")
    (root / "registry.yaml").write_text(f"{registry}recipe: ./served.yaml\n", encoding="utf-8")
    settings = {"endpoint": served.url, "model": "big", "prompt_logprobs": K, "max_answer": SMALL["max_answer"]}
    (remote / "endpoint.json").write_text(json.dumps(settings), encoding="utf-8")
    (remote / "tokenizer.json").write_bytes(served.model.preparation.tokens.files["tokenizer.json"])
    return Project(root)


def write_rows(root: Path, splits: tuple[str, ...]) -> None:
    rows = []
    for number, split in enumerate(splits):
        picture(60, 90, number).save(root / f"{number}.png")
        extra = {"task": "vqa", "messages": [{"role": "user", "content": f"<image>Where is the lung? {number}"}]}
        row = {"id": f"q{number}", "image": f"{number}.png", "domain": "vqa/ct", "split": split, "extra": extra}
        rows.append(json.dumps({**row, "text": "the box"}) + "\n")
    (root / "rows.jsonl").write_text("".join(rows), encoding="utf-8")


def scored(served: LocalVllm) -> list[Any]:
    """The answers that were scored, without the canary's."""
    texts = [body["messages"][-1]["content"] for body in served.requests if "prompt_logprobs" in body]
    return [text for text in texts if text != "the left lung is clear"]


def test_it_teaches_given_answers_and_another_model_is_refused(served: LocalVllm, tmp_path: Path) -> None:
    made = project(tmp_path, served)
    made.add_teacher("remote", source="local:models/remote", license="mit")
    made.distill()
    assert scored(served)[2:] == ["the box"] * 4, "after the two of the probe"
    (canary,) = (tmp_path / "features" / "remote").glob("*/canary.json")
    assert json.loads(canary.read_text(encoding="utf-8"))["model"] == "big"
    write_rows(tmp_path, ("train", "train", "calibration", "test", "train"))
    served.model = make(seed=5, max_tokens=160, max_answer=40)
    with raises_error("KD-LOAD-563", mentions=("since its features were computed",)):
        Project(tmp_path).extract()
    assert len(scored(served)) == 6, "nothing is scored by another model"


def test_it_scores_the_students_own_answers(served: LocalVllm, tmp_path: Path) -> None:
    made = project(tmp_path, served, "on_policy: {share: 1.0, max_new: 4}\n")
    made.add_teacher("remote", source="local:models/remote", license="mit", live=True)
    assert Lock.load(tmp_path / "registry.lock").teacher("remote").identity["logprobs"] == "any answers"
    done = made.distill()
    own = set(scored(served)) - {"the box", "a chest x-ray of a nodule"}
    assert own, "answers of the student were scored"
    assert done
