"""One byte of a toy project is flipped, and every reading command runs on it: is the damage reported?

``benchmarks/flipped_bytes.py`` sweeps all files; a test takes some of them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Silent
from kdkit.core.distill.run import Options, distill, prepare
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.evaluation.report import write_report
from kdkit.core.features import FeatureStore
from kdkit.core.project.project import Project
from kdkit.core.project.versions import Versions, load_student
from kdkit.core.sharing.bundle import collect
from kdkit.core.sharing.release.results import results_of
from kdkit.core.teachers.open import verify
from tests.toy_project import make_project, open_project

Outcome = Literal["reported", "irrelevant", "silent", "crash"]
EDITED = ("registry.yaml", "toy.yaml", "images/samples.jsonl", "models/")
"""What the user writes: another text is another wish, where it is still valid."""


class _Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, text: str) -> None:
        self.lines.append(text)

    def say(self, text: str) -> None:
        self.lines.append(text)


def make(root: Path) -> Path:
    """A project with features, two versions and a report."""
    make_project(root, teachers={"radio": ("ct",)}, domains=("ct",), train=4, held_out=3)
    for _ in range(2):
        distill(open_project(root), Options(cpu=True))
        text = (root / "toy.yaml").read_text(encoding="utf-8")
        (root / "toy.yaml").write_text(text.replace("steps: 40", "steps: 41"), encoding="utf-8")
    write_report(open_project(root).reports, evaluate_version(open_project(root)))
    return root


def flip(path: Path, place: int, bit: int) -> None:
    """Flip one bit of the byte at ``place``."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def outcome(pristine: Path, copy: Path, name: str, place: int, bit: int, usual: Mapping[str, Any]) -> Outcome:
    """What the commands make of one flipped bit; ``usual`` is :func:`run_all` of the whole project."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(pristine, copy)
    flip(copy / name, place, bit)
    found = run_all(copy)
    if any(isinstance(answer, Exception) and not isinstance(answer, KdkitError) for answer in found.values()):
        return "crash"
    different = [key for key in usual if str(found[key]) != str(usual[key])]
    told = any(isinstance(found[key], KdkitError) for key in different) or found["heard"] != usual["heard"]
    return "reported" if told or found["damage"] != usual["damage"] else "silent" if different else "irrelevant"


def run_all(root: Path) -> dict[str, Any]:
    """Command -> its result, or the error that it raised; ``heard`` holds what was reported."""
    heard = _Heard()
    commands: dict[str, Callable[[Project], Any]] = {
        "damage": lambda project: FeatureStore(project.features).column("radio").verify(),
        "lineages": lambda project: [
            [lineage.to_json() for lineage in Versions(project).history(Versions(project).get(name))]
            for name in ("v1", "v2")
        ],
        "results": lambda project: results_of(project, Versions(project).get()),
        "heads": _check_versions,
        "student": lambda project: _weights(load_student(Versions(project).get(), project.catalogue)),
        "teacher": lambda project: verify(project, "radio")[1],
        "bundle": lambda project: [item.path for item in collect(project)],
        "evaluate": lambda project: evaluate_version(project, reporter=heard).evaluation.to_json(),
        "plan": lambda project: prepare(project, Options(cpu=True), heard).plan.digest,
    }
    found: dict[str, Any] = {}
    for name, command in commands.items():
        try:
            answer = command(open_project(root))
            found[name] = json.dumps(answer, default=str, sort_keys=True).replace(str(root), "")
        except Exception as error:
            found[name] = error
    return {**found, "heard": [line.replace(str(root), "") for line in heard.lines]}


def _check_versions(project: Project) -> None:
    for name in ("v1", "v2"):
        Versions(project).get(name).check()


def _weights(student: Any) -> str:
    state = student.state_dict()
    return hashlib.sha256(
        b"".join(torch.as_tensor(state[name]).numpy().tobytes() for name in sorted(state))
    ).hexdigest()
