"""The gate of a teacher behind a server: measured, kept, and followed by ``kdkit answer``."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import kdkit
from kdkit.core.contracts import Decoding
from kdkit.core.data import load_index
from kdkit.core.data.images import open_image
from kdkit.core.evaluation.answering.answer import AnswerRequest, answer_samples
from kdkit.core.evaluation.answering.decide import decide_gate
from kdkit.core.evaluation.answering.gate_file import Gate
from kdkit.core.project.project import Project
from kdkit.core.teachers.add import add_teacher
from tests.conftest import Cli
from tests.errors import raises_error
from tests.local_endpoint import LocalEndpoint, Reply, local_endpoint

REGISTRY = """\
version: 1
student: {family: demo-answerer}
teachers: {}
data:
  - source: procedural-questions
    path: data/first
    options: {seed: 5, train: 1, calibration: 21, test: 3, domains: [mri]}
"""
DOMAINS = ("vg/mri", "mia/mri", "roc/mri")
FAR = "<|box_start|>(0,0),(50,50)<|box_end|>"


class Oracle:
    """Greedy it misplaces boxes and describes well; drawn answers are right boxes and wrong descriptions in most cases.
    Names are wrong either way."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], tuple[str, str]] = {}

    def learn(self, root: Path) -> None:
        for sample in load_index(Project(root)).samples:
            question = sample.extra["messages"][0]["content"].removeprefix("<image>")
            self.known[question, digest(open_image(sample))] = sample.domain, sample.text

    def __call__(self, body: Mapping[str, Any]) -> Reply:
        picture, question = body["messages"][-1]["content"]
        content = base64.b64decode(picture["image_url"]["url"].partition(",")[2])
        with Image.open(io.BytesIO(content)) as image:
            domain, text = self.known.get((question["text"], digest(image)), ("", ""))
        replies = {"vg/mri": (text, FAR), "mia/mri": ("no idea", text), "roc/mri": ("?", "??")}
        good, bad = replies.get(domain, ("?", "?"))
        drawn = [good, bad, good, good][: body["n"]] if body["temperature"] else [bad]
        return [(answer, [math.log(0.5)]) for answer in drawn]


def digest(image: Image.Image) -> str:
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


@pytest.fixture
def endpoint(kdkit_cli: Cli) -> Iterator[LocalEndpoint]:
    root, oracle = kdkit_cli.folder, Oracle()
    (root / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    with local_endpoint(oracle) as server:
        folder = root / "models" / "remote"
        folder.mkdir(parents=True)
        (folder / "endpoint.json").write_text(json.dumps({"endpoint": server.url, "model": "big"}), encoding="utf-8")
        add_teacher(Project(root), "remote", {"from": "local:models/remote", "license": "mit"})
        oracle.learn(root)
        yield server


def test_the_gate_is_measured_once_and_followed(kdkit_cli: Cli, endpoint: LocalEndpoint) -> None:
    root = kdkit_cli.folder
    before = len(endpoint.requests)
    found = kdkit.Project(root).best_of_n(teacher="remote", samples=4, domains=DOMAINS)
    assert len(endpoint.requests) - before == 2 * 63  # a greedy request and one for four answers
    gate = found.to_json()["domains"]
    assert {name: (one["rule"], one["why"]) for name, one in gate.items()} == {
        "vg/mri": ("agreement", "helps"),
        "mia/mri": ("plain", "not shown to help"),
        "roc/mri": ("plain", "not shown to help"),
    }
    assert (gate["vg/mri"]["before"], gate["vg/mri"]["after"], gate["vg/mri"]["groups"]) == (0.0, 1.0, 21)
    assert gate["mia/mri"]["scores"]["plain"] > gate["mia/mri"]["scores"]["agreement"] + 0.5
    assert "chosen in 1 of 3 domains" in str(found)
    (file,) = (root / ".kdkit" / "best-of-n" / "remote").iterdir()
    kept = {k: v for k, v in json.loads(file.read_text(encoding="utf-8")).items() if k != "checksum"}
    assert Gate.from_json(kept) == found.gate

    before = len(endpoint.requests)
    domains = [word for domain in DOMAINS for word in ("--domain", domain)]
    options = ("--teacher", "remote", "--samples", "4", "--choose", "gated", *domains, "--to", "answers.jsonl")
    done = kdkit_cli("answer", *options)
    assert done.code == 0, done.stderr
    assert "vg/mri: by agreement; +100.0 points" in done.stderr
    assert len(endpoint.requests) - before == 2 * 3 + 3 + 3  # nothing of the calibration split again
    rows = [json.loads(line) for line in (root / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [s.id for s in load_index(Project(root)).samples if s.id in done.stdout]
    for row in rows:
        assert (row["text"] == row["reference"]) == (row["domain"] != "roc/mri")
        assert row["rule"] == gate[row["domain"]]["rule"]
        assert len(row["answers"]) == (5 if row["domain"] == "vg/mri" else 1)


def test_a_damaged_or_outdated_gate_is_measured_again(kdkit_cli: Cli, endpoint: LocalEndpoint) -> None:
    root, request = kdkit_cli.folder, AnswerRequest(teacher="remote", domains=("vg/mri",))
    first = decide_gate(Project(root), request, Decoding(samples=4))
    (file,) = (root / ".kdkit" / "best-of-n" / "remote").iterdir()
    content = file.read_text(encoding="utf-8")
    file.write_text(content.replace('"rule": "agreement"', '"rule": "plain"'), encoding="utf-8")
    before = len(endpoint.requests)
    assert decide_gate(Project(root), request, Decoding(samples=4)) == first
    assert len(endpoint.requests) - before == 2 * 21
    assert file.read_text(encoding="utf-8") == content
    assert decide_gate(Project(root), request, Decoding(samples=4)) == first
    assert len(endpoint.requests) - before == 2 * 21

    registry = root / "registry.yaml"
    without = registry.read_text(encoding="utf-8").replace("calibration: 21", "calibration: 0")
    registry.write_text(without.replace("data/first", "data/without"), encoding="utf-8")
    followed = answer_samples(Project(root), replace(request, choose="gated"), Decoding(samples=4))
    assert {one.rule for one in followed} == {"agreement"}  # the decision that came with the model
    with raises_error("KD-EVAL-584"):
        decide_gate(Project(root), request, Decoding(samples=4))
    with raises_error("KD-EVAL-583", where="samples"):
        decide_gate(Project(root), request, Decoding())
