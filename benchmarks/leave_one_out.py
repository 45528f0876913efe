"""Do short runs tell what a source is worth? 'kdkit explain' at a share of the length against the whole length.

    python benchmarks/leave_one_out.py [--short 0.25] [--seeds 3]

Toy pictures of three domains; four projects whose teachers overlap or not, one of them with captions. Calibration
split. Each (source, domain) is a cell.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parents[1]))

from kdkit.core.contracts import Silent
from kdkit.core.distill.explain.explain import explain
from kdkit.core.distill.explain.runs import ExplainOptions
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.leave_one_out import Change, Explanation
from kdkit.core.project.versions import Versions
from tests.toy_project import RECIPE, make_project, open_project

DOMAINS = ("ct", "mri", "xray")
PROJECTS: Mapping[str, Mapping[str, Collection[str]]] = {
    "apart": {"one": ("ct", "mri"), "two": ("xray",)},
    "overlapping": {"one": ("ct",), "two": ("mri",), "three": ("mri", "xray")},
    "contained": {"one": DOMAINS, "two": ("xray",)},
    "captions": {"one": ("ct", "mri")},
}
"""Project -> teacher -> domains that it knows; the last one learns from captions too."""
SEED, STEPS = 100, 120
Cells = dict[tuple[str, str, str], Change]
"""(project, source, domain) -> change."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", type=float, default=0.25)
    parser.add_argument("--seeds", type=int, default=3, help="of the whole length, and at most of the short one")
    arguments = parser.parse_args()
    full, short = Cells(), {seeds: Cells() for seeds in range(1, arguments.seeds + 1)}
    idle = set[tuple[str, str, str]]()
    with tempfile.TemporaryDirectory() as scratch:
        for name in PROJECTS:
            root = make_version(Path(scratch) / name, name)
            teachers = {t.name: t.domains for t in Versions(open_project(root)).get("v1").lineage.teachers}
            idle |= {(name, teacher, d) for teacher, taught in teachers.items() for d in DOMAINS if d not in taught}
            full |= cells(name, explained(root, 1.0, arguments.seeds))
            for seeds, found in short.items():
                found |= cells(name, explained(root, arguments.short, seeds))
    print(f"{len(full)} cells, {len(idle)} of them of a teacher that does not teach there")
    print(f"whole length, {arguments.seeds} seeds: {describe(full, idle)}")
    for seeds, found in short.items():
        rank = spearmanr([found[cell].points for cell in full], [full[cell].points for cell in full]).statistic
        both = {c for c in full if full[c].high < 0 and found[c].high < 0}
        print(
            f"length {arguments.short:g}, {seeds} seeds: rank correlation {rank:.2f}; {len(both)} losses in common; ",
            end="",
        )
        print(describe(found, idle), flush=True)


def make_version(root: Path, name: str) -> Path:
    """v1 of the project's teachers."""
    make_project(root, teachers={t: list(known) for t, known in PROJECTS[name].items()}, domains=DOMAINS, held_out=50)
    text = RECIPE.replace("steps: 40", f"steps: {STEPS}")
    if name == "captions":
        text = text.replace("trust:", "  - {name: clip, weight: 1.0}\ntrust:")
    (root / "toy.yaml").write_text(text, encoding="utf-8")
    distill(open_project(root), Options(cpu=True, seed=SEED))
    return root


def explained(root: Path, length: float, seeds: int) -> Explanation:
    found = explain(open_project(root), "v1", ExplainOptions(length, seeds, cpu=True), Silent())
    print(found, end="\n\n", flush=True)
    return found


def cells(project: str, explanation: Explanation) -> Cells:
    return {(project, e.source, domain): change for e in explanation.sources for domain, change in e.domains.items()}


def describe(found: Cells, idle: Collection[tuple[str, str, str]]) -> str:
    lost = sum(change.high < 0 for change in found.values())
    marked = sum(found[cell].distinguishable for cell in idle)
    return f"{lost} losses; {marked} of {len(idle)} cells without effect differ from 0"


if __name__ == "__main__":
    main()
