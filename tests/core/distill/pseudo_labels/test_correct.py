"""Reflective correction of a toy student: a manifest of its wrong answers, corrected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import Sample
from kdkit.core.data import load_index
from kdkit.core.distill.options import Options
from kdkit.core.distill.pseudo_labels.correct import CorrectionRequest, write_corrections
from kdkit.core.distill.pseudo_labels.review import score_answers
from kdkit.core.distill.run import distill
from kdkit.core.project.project import Project
from tests.core.distill.pseudo_labels import project as example
from tests.errors import raises_error
from tests.journeys.test_generating_student import add_vlm, reopened
from tests.local_endpoint import LocalEndpoint, local_endpoint
from tests.toy_vlm import ToyAnswers, answer_tokens, caption_of

SOME = Sample(id="s", image=Path("s.png"), text="a ct image of mass.", domain="ct")


@pytest.fixture
def endpoint() -> Iterator[LocalEndpoint]:
    with local_endpoint(example.Oracle()) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, endpoint: LocalEndpoint) -> Project:
    """A student with little training."""
    root = tmp_path / "p"
    example.make(root, endpoint, example.Oracle(), extracted=False)
    (root / "toy.yaml").write_text(
        "name: toy\nsummary: toy\nlosses: [{name: answers}]\ntrust: {policy: all}\n"
        "optimizer: {lr: 0.01, batch_size: 16, steps: 4}\n",
        encoding="utf-8",
    )
    add_vlm(root, "first", seed=0, sureness=30.0)
    assert distill(reopened(root), Options(cpu=True)) is not None
    return reopened(root)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_wrong_answers_get_the_reference(project: Project) -> None:
    to = project.root / "wrong.jsonl"
    done = write_corrections(project, to, CorrectionRequest(threshold=1.0))
    assert (done.version, done.answered, done.unscored, done.rewritten, done.refused) == ("v1", 60, 0, 0, 0)
    found = rows(to)
    assert 0 < len(found) == sum(done.wrong.values())
    samples = {sample.id: sample for sample in load_index(project).samples}
    for row in found:
        about = row["extra"]["correction"]
        source = samples[about["sample"]]
        assert (row["id"], row["text"], about["corrector"]) == (f"{source.id}#v1", source.text, "reference")
        assert about["score"] == score_answers(ToyAnswers(), [source], {source.id: about["answer"]})[source.id] < 1.0
    registry = project.registry_path
    entry = f"  - {{source: jsonl, path: {done.file}, options: {{image_root: {done.image_root}}}}}\n"
    registry.write_text(registry.read_text(encoding="utf-8").replace("prompts:", entry + "prompts:"), encoding="utf-8")
    again = reopened(project.root)
    assert sum("correction" in sample.extra for sample in load_index(again).samples) == len(found)
    assert write_corrections(again, to, CorrectionRequest(threshold=1.0)).answered == 60
    before = to.read_bytes()
    assert write_corrections(again, to, CorrectionRequest(threshold=1e-9)).wrong == {}
    assert to.read_bytes() == before  # a data entry without rows would be an error


def test_correctors_may_rephrase_but_not_change_the_meaning(project: Project, endpoint: LocalEndpoint) -> None:
    def rewrite(body: Any) -> list[tuple[str, list[float]]]:
        right = body["messages"][-1]["content"].partition("is: ")[2].partition("\n")[0]
        return [(caption_of(answer_tokens(right)) if "ct" in right else "rubbish", [])]

    endpoint.answer = rewrite
    endpoint.requests.clear()
    to = project.root / "wrong.jsonl"
    done = write_corrections(project, to, CorrectionRequest(threshold=1.0, corrector="remote"))
    assert (done.rewritten, done.refused) == (done.wrong["ct"], done.wrong["mri"])
    for row in rows(to):
        about = row["extra"]["correction"]
        ct = row["domain"] == "ct"
        assert about["corrector"] == ("remote" if ct else "reference")
        assert row["text"].startswith("a mri image") != ct
    (asked, *_) = endpoint.requests
    assert [message["role"] for message in asked["messages"]] == ["user", "assistant", "user"]


def test_invalid_requests(project: Project) -> None:
    to = project.root / "wrong.jsonl"
    with raises_error("KD-LABEL-013", where="threshold", mentions=("0", "1")):
        CorrectionRequest(threshold=0.0)
    with raises_error("KD-PLUG-005", mentions=("'overlap'",)):
        write_corrections(project, to, CorrectionRequest(options={"overlap": 0.8}))
    with raises_error("KD-DATA-013", mentions=("'xray'",)):
        write_corrections(project, to, CorrectionRequest(domains=("xray",)))
    with raises_error("KD-BASE-031"):
        write_corrections(project, project.registry_path)
    assert not to.exists()
