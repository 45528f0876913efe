"""Increments where the data are other people's: the version came from elsewhere, its samples and teachers did not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kdkit.api.student import Distillation
from kdkit.core.contracts import Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.promotion import Outcome
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.project.manifest import write_manifest
from kdkit.core.project.versions import Versions
from tests.core.distill.building import build_prepared
from tests.toy_project import RECIPE, make_project, open_project


class Heard(Silent):
    """Records messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)


def run(root: Path, **options: Any) -> Outcome:
    outcome = distill(open_project(root), Options(cpu=True, **options))
    assert outcome is not None
    return outcome


@pytest.fixture(scope="module")
def authors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of ct and mri."""
    root = tmp_path_factory.mktemp("authors") / "project"
    make_project(root, teachers={"radio": ("ct", "mri")}, domains=("ct", "mri"))
    run(root)
    return root


def elsewhere(authors: Path, root: Path, domains: tuple[str, ...], recipe: str = RECIPE) -> Path:
    """Another person's project with that student, data of ``domains`` (other pictures), and a teacher of xray."""
    make_project(root, teachers={"xr": ("xray",)}, domains=domains)
    (root / "toy.yaml").write_text(recipe, encoding="utf-8")
    shutil.copytree(authors / "versions", root / "versions")
    (root / "versions" / "v1" / "evaluation.json").unlink()
    write_manifest(root / "versions" / "v1")
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("guard: {tolerance: 10}", "guard: {tolerance: 100}")
    registry.write_text(text, encoding="utf-8")
    return root


def other_pictures(root: Path) -> None:
    """The images of the project become others, of other ids."""
    manifest = root / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row.update(id="other-" + row["id"], text=row["text"] + " again")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_version_without_an_evaluation_is_judged_on_the_samples_that_are_here(authors: Path, tmp_path: Path) -> None:
    root = elsewhere(authors, tmp_path / "p", ("ct", "xray"))
    other_pictures(root)
    outcome = run(root, incremental=True)
    kept = outcome.retention
    assert kept is not None
    assert kept.domains["ct"].count == 30
    assert kept.domains["ct"].before > 0.8
    assert (set(kept.domains), kept.not_compared, kept.new_domains) == ({"ct"}, ("mri",), ("xray",))
    assert "mri" in str(Distillation(outcome))
    assert outcome.version.lineage.retention is not None
    assert outcome.version.lineage.retention.not_compared == ("mri",)
    assert outcome.version.lineage.data.known == ("ct", "mri", "xray")
    findings = evaluate_version(open_project(root))
    assert findings.learned == {"ct": "v1", "xray": "v2"}
    assert findings.retention is not None
    assert findings.retention.not_compared == ("mri",)
    assert any("mri" in line for line in str(findings).splitlines())


def test_where_nothing_can_be_replayed_the_previous_version_speaks_for_itself(authors: Path, tmp_path: Path) -> None:
    stand_in = "replay: 0.5, lr_factor: 0.5, without_replay: {weight: 3.0, loss: fd}"
    root = elsewhere(authors, tmp_path / "p", ("ct", "xray"), RECIPE.replace("replay: 0.5", stand_in))
    heard = Heard()
    known = prepare(open_project(root), Options(incremental=True), heard).plan
    assert (known.domains_without_rehearsal, known.replayed, known.previous.weight) == (("ct", "mri"), 36, 0)
    assert [any(f"v1 knows {domain}," in line for line in heard.lines) for domain in ("ct", "mri")] == [True, True]
    other_pictures(root)
    heard = Heard()
    plan = prepare(open_project(root), Options(incremental=True), heard).plan
    assert (plan.domains_without_rehearsal, plan.replayed, plan.previous.weight) == (("ct", "mri"), 0, 3.0)
    assert [any(f"v1 knows {domain}," in line for line in heard.lines) for domain in ("ct", "mri")] == [False, True]
    outcome = run(root, incremental=True)
    assert "@previous/fd" in outcome.version.lineage.training.log[-1]
    assert outcome.version.lineage.training.previous is not None
    assert outcome.version.lineage.training.previous.weight == 3.0
    assert outcome.version.lineage.training.lr == pytest.approx(0.01 * 0.5)
    assert outcome.retention is not None
    assert outcome.retention.domains["ct"].after > 0.6, "no teacher covers ct here; accuracy is retained"


def test_where_nothing_can_be_replayed_directions_of_its_weights_stay(authors: Path, tmp_path: Path) -> None:
    stand_in = "replay: 0.5, without_replay: {frozen_energy: 0.5}"
    root = elsewhere(authors, tmp_path / "p", ("ct", "xray"), RECIPE.replace("replay: 0.5", stand_in))
    other_pictures(root)
    heard = Heard()
    plan = prepare(open_project(root), Options(incremental=True), heard).plan
    assert (plan.replayed, plan.previous.frozen_energy, plan.previous.weight) == (0, 0.5, 0)
    assert any("v1 itself protects them in part" in line for line in heard.lines)


def test_scores_on_other_samples_are_not_compared(authors: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(authors, tmp_path / "p"))
    saved = root / "versions" / "v1" / "evaluation.json"
    other_pictures(root)
    heard = Heard()
    outcome = distill(open_project(root), Options(cpu=True, incremental=True), reporter=heard)
    assert outcome is not None
    assert outcome.retention is not None
    assert {d: c.count for d, c in outcome.retention.domains.items()} == {"ct": 30, "mri": 30}
    assert any(line.startswith("evaluating v1 ") and "calibration" in line for line in heard.lines)
    assert saved.is_file()


def test_heads_that_the_parent_lost_are_fitted_again(authors: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(authors, tmp_path / "p"))
    version = root / "versions" / "v1"
    whole = load_file(version / "task.safetensors")
    save_file({name: x for name, x in whole.items() if "@radio" not in name}, version / "task.safetensors")
    write_manifest(version)
    other_pictures(root)
    project = open_project(root)
    prepared = prepare(project, Options(incremental=True), Silent())
    assert prepared.plan.new_teachers == ()
    made = build_prepared(project, prepared)
    student, indices = made.task.student, prepared.inventory.rows("train")
    (teaching,) = (t for t in made.targets if t.name == "radio")
    with torch.no_grad():
        out = student(made.inputs.batch(indices))
        target = torch.from_numpy(teaching.gather("image", teaching.rows[indices]).astype(np.float32))
        head: Any = made.task.projections["@radio"]
        fit = torch.cosine_similarity(head.heads["image"](out["image"]), target).mean()
    assert fit > 0.8, "an orthogonal start would have a cosine about 0"


def test_in_a_shared_space_a_new_teacher_comes_to_the_student(authors: Path, tmp_path: Path) -> None:
    recipe = RECIPE.replace("space: heads", "space: shared\naligner: {name: procrustes}")
    base = Path(shutil.copytree(authors, tmp_path / "base"))
    (base / "toy.yaml").write_text(recipe, encoding="utf-8")
    shutil.rmtree(base / "versions")
    run(base)
    root = elsewhere(base, tmp_path / "p", ("xray",), recipe)
    project = open_project(root)
    prepared = prepare(project, Options(incremental=True), Silent())
    made = build_prepared(project, prepared)
    indices = prepared.inventory.rows("train")
    (teaching,) = (t for t in made.targets if t.name == "xr")
    aligner: Any = made.task.projections["@xr"]
    with torch.no_grad():
        out = made.task.student(made.inputs.batch(indices))
        target = torch.from_numpy(teaching.gather("text", teaching.rows[indices]).astype(np.float32))
        close = torch.cosine_similarity(aligner.target("text", target), out["text"]).mean()
    assert close > 0.5, "a random rotation would have a cosine about 0"
    assert Versions(project).get().name == "v1"
