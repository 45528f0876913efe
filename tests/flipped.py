"""One bit of a toy project is flipped, and every reading command runs on it: is the damage reported?

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
from kdkit.core.base.hub import Hub
from kdkit.core.contracts import Silent
from kdkit.core.distill.explain.explain import explain
from kdkit.core.distill.explain.runs import ExplainOptions
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.evaluation.report import write_report
from kdkit.core.features import FeatureStore
from kdkit.core.project.project import Project
from kdkit.core.project.versions import Versions, load_student
from kdkit.core.sharing.bundle import collect
from kdkit.core.sharing.release.export import export_version
from kdkit.core.sharing.release.push import push_student
from kdkit.core.sharing.release.results import results_of
from kdkit.core.teachers.open import verify
from tests.core.sharing.release.projects import publishable
from tests.local_hub import ALICE, LocalHub
from tests.stock_checks import digests
from tests.toy_project import RECIPE, make_project, open_project

Outcome = Literal["reported", "irrelevant", "silent", "crash"]
Commands = Mapping[str, Callable[[Project], Any]]
EDITED = ("registry.yaml", "toy.yaml", "images/samples.jsonl", "models/")
"""What the user writes: another text is another wish, where it is still valid."""
EXPLAINED = ExplainOptions(length=0.2, seeds=1, cpu=True)


class _Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, text: str) -> None:
        self.lines.append(text)

    def say(self, text: str) -> None:
        self.lines.append(text)


def make(root: Path) -> Path:
    """A project with features, two versions that can be published, a report and the runs of an explanation."""
    make_project(root, teachers={"radio": ("ct",)}, domains=("ct",), train=4, held_out=3)
    publishable(root)
    recipe = RECIPE.replace("losses:\n", "losses:\n  - {name: clip, weight: 1.0}\n")  # captions teach too
    (root / "toy.yaml").write_text(recipe, encoding="utf-8")
    for _ in range(2):
        distill(open_project(root), Options(cpu=True))
        text = (root / "toy.yaml").read_text(encoding="utf-8")
        (root / "toy.yaml").write_text(text.replace("steps: 40", "steps: 41"), encoding="utf-8")
    write_report(open_project(root).reports, evaluate_version(open_project(root)))
    explain(open_project(root), None, EXPLAINED, Silent())
    return root


def flip(path: Path, place: int, bit: int) -> None:
    """Flip one bit of the byte at ``place``."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


class Flips:
    """A project, and what its reading commands find.

    Args:
        folder: a new one.
        hub: that ``push`` talks to; without one, nothing is exported or pushed, which takes longest.

    Attributes:
        pristine: the whole project.
        usual: the results of all commands on it.
    """

    def __init__(self, folder: Path, hub: LocalHub | None = None) -> None:
        self.pristine, self._copy, self._hub = make(folder / "pristine"), folder / "copy", hub
        self.usual = self._run_all(self.pristine)

    def outcome(self, name: str, place: int, bit: int) -> Outcome:
        """What the commands make of one flipped bit."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self.pristine, self._copy)
        flip(self._copy / name, place, bit)
        found = self._run_all(self._copy)
        if any(isinstance(answer, Exception) and not isinstance(answer, KdkitError) for answer in found.values()):
            return "crash"
        different = [key for key in self.usual if str(found[key]) != str(self.usual[key])]
        told = any(isinstance(found[key], KdkitError) for key in different) or found["heard"] != self.usual["heard"]
        if told or found["damage"] != self.usual["damage"]:
            return "reported"
        return "silent" if different else "irrelevant"

    def _run_all(self, root: Path) -> dict[str, Any]:
        """Command -> its result, or the error that it raised; ``heard`` holds what was reported."""
        heard = _Heard()
        found: dict[str, Any] = {}
        for name, command in {**_commands(heard), **self._publishing(heard)}.items():
            try:
                answer = command(open_project(root))
                found[name] = json.dumps(answer, default=str, sort_keys=True).replace(str(root), "")
            except Exception as error:
                found[name] = error
        return {**found, "heard": [line.replace(str(root), "") for line in heard.lines]}

    def _publishing(self, heard: _Heard) -> Commands:
        out, hub = self._copy.with_name("out"), self._hub
        if hub is None:
            return {}

        def export(project: Project) -> Any:
            shutil.rmtree(out, ignore_errors=True)
            export_version(project, None, out, reporter=heard)
            return digests(out)

        def push(project: Project) -> Any:
            hub.repositories.clear()
            push_student(project, "lab/student", hub=Hub(hub.url, ALICE.token), reporter=heard)
            return hub.hashes("lab/student")

        return {"export": export, "push": push}


def _commands(heard: _Heard) -> Commands:
    return {
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
        "explain": lambda project: explain(project, None, EXPLAINED, heard).to_json(),
    }


def _check_versions(project: Project) -> None:
    for name in ("v1", "v2"):
        Versions(project).get(name).check()


def _weights(student: Any) -> str:
    state = student.state_dict()
    return hashlib.sha256(
        b"".join(torch.as_tensor(state[name]).numpy().tobytes() for name in sorted(state))
    ).hexdigest()
