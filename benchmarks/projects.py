"""Projects for the benchmarks, made through the same calls as the commands make."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdkit.core.distill.options import Options
from kdkit.core.distill.promotion import Outcome
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.project.project import Project
from kdkit.core.teachers import add_teacher

OLD = ("ct", "mri", "xray", "ultrasound", "fundus", "dermoscopy", "histology", "endoscopy")
NEW = "oct"
FIRST_TEACHERS = ("demo-radio", "demo-tissue", "demo-point", "demo-surface")
LAST_TEACHER = "demo-eye"

REGISTRY = """\
version: 1
student: {{family: demo-student}}
teachers: {{}}
data:
{data}
prompts:
  default: ["{{domain}} showing {{label}}", "{{label}} on {{domain}}", "{{domain}} of a patient with {{label}}"]
optimizer: {{lr: 0.004, batch_size: 64, epochs: {epochs}}}
recipe: {recipe}
"""
ENTRY = """\
  - source: procedural
    path: {path}
    options: {{seed: {seed}, train: {train}, calibration: {calibration}, test: {test}, domains: [{domains}]}}
"""


@dataclass(frozen=True)
class Size:
    """Pictures of each domain, and how often a run from scratch shows each."""

    train: int = 1000
    calibration: int = 200
    test: int = 1000
    epochs: int = 12


def demo_project(
    root: Path, *, seed: int, size: Size, domains: Sequence[str], teachers: Sequence[str], recipe: str = "kdkit"
) -> Project:
    """A new project with the demo's student, one data entry per domain, and ``teachers`` added."""
    root.mkdir(parents=True)
    entries = [ENTRY.format(path=f"data/{domain}", seed=seed, domains=domain, **vars(size)) for domain in domains]
    text = REGISTRY.format(data="".join(entries).rstrip(), recipe=recipe, epochs=size.epochs)
    (root / "registry.yaml").write_text(text, encoding="utf-8")
    for teacher in teachers:
        add_teacher(Project(root), teacher, {})
    return Project(root)


def add_domain(root: Path, *, seed: int, size: Size, domain: str) -> None:
    """One more data entry."""
    path = root / "registry.yaml"
    head, tail = path.read_text(encoding="utf-8").split("prompts:")
    entry = ENTRY.format(path=f"data/{domain}", seed=seed, domains=domain, **vars(size))
    path.write_text(head.rstrip() + "\n" + entry + "prompts:" + tail, encoding="utf-8")


def copy_project(source: Path, target: Path) -> Project:
    """The project again, with hard-linked files, so that a strategy can start from the same version."""
    shutil.copytree(source, target, copy_function=_link)
    return Project(target)


def _link(source: str, target: str) -> None:
    if source.endswith((".png", ".h5")):
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)


def run(project: Project, **options: object) -> Outcome:
    """Distill; benchmarks run on the CPU."""
    outcome = distill(Project(project.root), Options(cpu=True, **options))  # type: ignore[arg-type]
    assert outcome is not None
    return outcome


def score_on_test(project: Project, version: str | None = None) -> Evaluation:
    """A version beside the teachers and the oracle, on the test split."""
    return evaluate_version(Project(project.root), version, ancestors=False).evaluation


def spread(values: Sequence[float], digits: int = 1, factor: float = 100.0) -> str:
    """``mean (min to max)``."""
    scaled = factor * np.asarray(values, dtype=float)
    return f"{scaled.mean():.{digits}f} ({scaled.min():.{digits}f} to {scaled.max():.{digits}f})"


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(headers) + " |")
    print("|" + "---|" * len(headers))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
