"""``kdkit pseudo-label``, ``answer`` and ``correct`` with a teacher behind a server, killed and repeated."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from ruamel.yaml import YAML

from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.teachers.add import add_teacher
from tests.cli.test_distill import PLUGIN
from tests.conftest import Cli, InstallPlugin
from tests.core.distill.pseudo_labels import project as example
from tests.core.distill.pseudo_labels.project import Oracle
from tests.journeys.test_generating_student import add_vlm, reopened
from tests.local_endpoint import LocalEndpoint, local_endpoint
from tests.toy_project import train_teacher

GENERATING = """
from tests.journeys.test_generating_student import LOSS, STUDENT, TASK

@kdkit.hookimpl
def kdkit_tasks():
    return [TASK]

@kdkit.hookimpl
def kdkit_losses():
    return [LOSS]
"""


class Scene:
    """A project whose teacher is ``oracle``."""

    def __init__(self, cli: Cli, endpoint: LocalEndpoint, oracle: Oracle) -> None:
        self.cli, self.endpoint, self.oracle = cli, endpoint, oracle
        self.labels = cli.folder / "labels.jsonl"


@pytest.fixture
def scene(kdkit_cli: Cli, install_plugin: InstallPlugin) -> Iterator[Scene]:
    plugin = (PLUGIN + GENERATING).replace('if family == "student"]', 'if family == "student"] + [STUDENT]')
    install_plugin("kdkit-toy", plugin)
    kdkit_cli.folder.rmdir()
    oracle = Oracle()
    with local_endpoint(oracle) as endpoint:
        example.make(kdkit_cli.folder, endpoint, oracle)
        yield Scene(kdkit_cli, endpoint, oracle)


def stopped(
    scene: Scene, *arguments: str, asked: int, counted: Callable[[], int], how: signal.Signals = signal.SIGKILL
) -> str:
    """Run a command, stop it after ``asked`` further requests (more than the first batch), and return its stderr."""
    quick, before, over = scene.endpoint.answer, counted(), threading.Event()

    def answer(body: object) -> object:
        if counted() - before >= asked:
            over.wait(300)
        return quick(body)  # type: ignore[arg-type]

    scene.endpoint.answer = answer  # type: ignore[assignment]
    with TemporaryFile("w+") as err:
        process = scene.cli.start(*arguments, out=err, err=err)
        while counted() - before < asked:
            assert process.poll() is None, "ended too early"
            time.sleep(0.01)
        os.kill(process.pid, how)
        over.set()
        process.wait(60)
        err.seek(0)
        said = err.read()
    scene.endpoint.answer = quick
    return said


def more_questions(project: Path, times: int) -> None:
    """Each question ``times`` times, under other ids."""
    path = project / "images" / "open.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    copies = [{**row, "id": f"{row['id']}-{n}"} for n in range(times) for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in copies), encoding="utf-8")


def test_labels_resume_after_a_kill_and_become_data(scene: Scene) -> None:
    more_questions(scene.cli.folder, 3)
    arguments = ("pseudo-label", "--teacher", "remote", "--to", "labels.jsonl", "--min-confidence", "0.5")
    stopped(scene, *arguments, asked=18, counted=lambda: scene.oracle.open)
    assert not scene.labels.exists()
    done = scene.cli(*arguments, "--json")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["known"] >= 16
    assert (found["answered"] + found["known"], found["unsure"], found["kept"]) == (27, 9, {"ct": 18})
    assert found["not_trusted"] == {"mri": 27}
    assert "'mri'" in done.stderr
    assert len(scene.labels.read_text(encoding="utf-8").splitlines()) == 18

    shown = scene.cli("pseudo-label", "--teacher", "remote", "--to", "labels.jsonl", "--domain", "ct")
    assert shown.code == 0, shown.stderr
    line = shown.stdout.splitlines()[-1]
    (entry,) = YAML(typ="safe").load(line)
    assert entry == {"source": "jsonl", "path": "labels.jsonl", "options": {"image_root": "."}}
    none = scene.cli("pseudo-label", "--teacher", "remote", "--to", "none.jsonl", "--min-confidence", "0.99", "--json")
    assert (none.code, json.loads(none.stdout)["kept"]) == (1, {})
    assert "error[KD-LABEL-007]" in none.stderr
    assert not (scene.cli.folder / "none.jsonl").exists()
    registry = scene.cli.folder / "registry.yaml"
    registry.write_text(registry.read_text(encoding="utf-8").replace("prompts:", line + "\nprompts:"))
    checked = scene.cli("data", "check", "--json")
    assert checked.code == 0, checked.stderr
    assert '"samples"' in checked.stdout


def test_answers_are_chosen_and_written(scene: Scene) -> None:
    root = scene.cli.folder
    train_teacher(("ct",), width=8, seed=0).save(root / "models" / "clip")
    add_teacher(reopened(root), "clip", {"from": "local:models/clip", "loader": "toy", "license": "mit"})
    texts = [f"a ct image of {label}." for label in ("mass", "cyst", "clear")]
    scene.endpoint.answer = lambda _: [(text, [-0.1]) for text in texts]
    how = ("--samples", "3", "--rerank", "clip", "--choose", "nearest")
    arguments = ("--teacher", "remote", *how, "--domain", "ct", "--limit", "2")
    shown = scene.cli("answer", *arguments, "--to", "answers.jsonl")
    assert shown.code == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["sample", "chosen", "score", "confidence", "answer"]
    assert len(lines) == 2 + 2 * 3
    assert sum("*" in line for line in lines) == 2
    rows = [json.loads(line) for line in (root / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == [row["answers"][row["chosen"]]["text"] for row in rows]
    assert json.loads(scene.cli("answer", *arguments, "--json").stdout) == rows

    wrong = scene.cli("answer", "--teacher", "remote", "--samples", "2", "--beams", "2")
    assert (wrong.code, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error[KD-API-002]")


def test_a_command_resumes_after_ctrl_c(scene: Scene) -> None:
    arguments = ("answer", "--teacher", "remote", "--split", "train", "--domain", "ct", "--json")
    said = stopped(scene, *arguments, asked=18, counted=lambda: len(scene.endpoint.requests), how=signal.SIGINT)
    assert said.splitlines()[-1].startswith("interrupted: ")
    before = len(scene.endpoint.requests)
    done = scene.cli(*arguments)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    kept = len(found) - (len(scene.endpoint.requests) - before)
    assert (kept >= 16, kept % 16) == (True, 0)
    assert list((scene.cli.folder / ".kdkit" / "answers").iterdir()) == []


def test_corrections_resume_after_a_kill(scene: Scene) -> None:
    root = scene.cli.folder
    (root / "toy.yaml").write_text(
        "name: toy\nsummary: toy\nlosses: [{name: answers}]\ntrust: {policy: all}\n"
        "optimizer: {lr: 0.01, batch_size: 16, steps: 4}\n",
        encoding="utf-8",
    )
    add_vlm(root, "first", seed=0, sureness=30.0)
    distill(reopened(root), Options(cpu=True))
    arguments = ("correct", "--to", "wrong.jsonl", "--threshold", "1", "--corrector", "remote")
    scene.endpoint.answer = lambda _: [("rubbish", [])]
    stopped(scene, *arguments, asked=20, counted=lambda: len(scene.endpoint.requests))
    assert not (root / "wrong.jsonl").exists()
    done = scene.cli(*arguments, "--json")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert 16 <= found["known"] < found["answered"] == 60
    lines = (root / "wrong.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["extra"]["correction"]["corrector"] for line in lines} == {"reference"}
    assert len(lines) == sum(found["wrong"].values()) == found["refused"]
    whole = scene.cli("correct", "--to", "whole.jsonl", "--threshold", "1")
    assert whole.code == 0, whole.stderr
    assert (root / "whole.jsonl").read_bytes() == (root / "wrong.jsonl").read_bytes()
    (entry,) = YAML(typ="safe").load(whole.stdout.splitlines()[-1])
    assert entry == {"source": "jsonl", "path": "whole.jsonl", "options": {"image_root": "."}}
    wrong = scene.cli("correct", "--to", "wrong.jsonl", "--option", "overlap")
    assert (wrong.code, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error[KD-CLI-")
