"""Plans: samples without any teacher are skipped, and are new when a teacher for them is added."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kdkit.api.student import DistillPlan
from kdkit.core.contracts import Silent
from kdkit.core.distill.cost_estimate import Estimate, PlannedStage
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.plan import make_plan, tell_conversations
from kdkit.core.distill.plan.types import Plan, SamplePool
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.run import distill
from kdkit.core.teachers.add import add_teacher
from tests import toys
from tests.errors import raises_error
from tests.recorder import Recorder
from tests.toy_project import RECIPE, make_project, open_project, train_teacher
from tests.toys import ToyEncoder

DOMAIN = 3 * 12
"""Training samples of each domain."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``radio`` knows ct and mri, and no teacher knows xray; an epoch is named instead of steps."""
    make_project(tmp_path / "p", teachers={"radio": ("ct", "mri")}, domains=("ct", "mri", "xray"))
    write_recipe(tmp_path / "p")
    return tmp_path / "p"


def write_recipe(root: Path, old: str = "steps: 40", new: str = "epochs: 13") -> None:
    assert old in RECIPE
    text = RECIPE.replace(old, new).replace("steps: 40", "epochs: 13")
    (root / "toy.yaml").write_text(text, encoding="utf-8")


def plan_of(root: Path, *, incremental: bool = False) -> Plan:
    return prepare(open_project(root), Options(incremental=incremental), Silent()).plan


def domains(root: Path, plan: Plan, pool: int) -> set[str]:
    table = prepare(open_project(root), Options(), Silent()).inventory.index
    return {table.samples[row].domain for row in plan.pools[pool].indices}


def test_samples_without_a_teacher_are_skipped(root: Path) -> None:
    plan = plan_of(root)
    assert (plan.fresh, plan.skipped_samples, plan.domains_without_teacher) == (2 * DOMAIN, DOMAIN, ("xray",))
    assert plan.settings.steps == 13 * 2 * DOMAIN // 24, "an epoch is one of the samples that are taught"
    assert domains(root, plan, 0) == {"ct", "mri"}
    text = str(DistillPlan((PlannedStage(plan, Estimate(1.0, 1, 1, 1, 0.0, 0.0)),)))
    (line,) = (line for line in text.splitlines() if "skipped" in line)
    assert str(DOMAIN) in line.split()


def test_a_loss_without_teachers_uses_all_samples(root: Path) -> None:
    write_recipe(
        root, "  - {name: crd, weight: 1.0}\n", "  - {name: crd, weight: 1.0}\n  - {name: clip, weight: 0.1}\n"
    )
    plan = plan_of(root)
    assert (plan.fresh, plan.skipped_samples, plan.domains_without_teacher) == (3 * DOMAIN, 0, ("xray",))


def test_random_views_are_for_samples_without_a_teacher(root: Path) -> None:
    write_recipe(
        root, "  - {name: crd, weight: 1.0}\n", "  - {name: crd, weight: 1.0}\n  - {name: clip, weight: 0.1}\n"
    )
    plain = plan_of(root)
    with open(root / "toy.yaml", "a", encoding="utf-8") as file:
        file.write("augment: {crop: [0.5, 1.0], flip: [xray]}\n")
    plan = plan_of(root)
    assert (plain.augmented, plan.augmented, plan.fresh) == (0, DOMAIN, 3 * DOMAIN)
    assert plan.digest != plain.digest
    text = str(DistillPlan((PlannedStage(plan, Estimate(1.0, 1, 1, 1, 0.0, 0.0)),)))
    (line,) = (line for line in text.splitlines() if line.startswith("Random views"))
    assert {str(DOMAIN), str(2 * DOMAIN)} <= {*line.split()}


def test_samples_that_neither_teacher_nor_text_can_teach_are_skipped(root: Path) -> None:
    write_recipe(root, "  - {name: crd, weight: 1.0}\n", "  - {name: crd, weight: 1.0}\n  - {name: clip}\n")
    found = prepare(open_project(root), Options(), Silent())
    trusted = np.array([domain != "xray" for domain in found.inventory.index.domains], dtype=np.float64)
    plan = make_plan(found.plan.recipe, replace(found.inventory, captions=trusted), None, {}, seed=0)
    assert (plan.fresh, plan.skipped_samples) == (2 * DOMAIN, DOMAIN)
    nothing = replace(found.inventory, captions=trusted * 0, weights=found.inventory.weights * 0)
    with raises_error("KD-DIST-033"):
        make_plan(found.plan.recipe, nothing, None, {}, seed=0)


def test_captions_teach_where_no_teacher_may(root: Path) -> None:
    """A gate that admits no teacher ends a recipe without captions alone."""
    write_recipe(root, "value: 0.7", "value: 1.0, on: lower")
    with raises_error("KD-DIST-033"):
        plan_of(root)
    text = (root / "toy.yaml").read_text(encoding="utf-8")
    (root / "toy.yaml").write_text(text.replace("losses:\n", "losses:\n  - {name: clip}\n"), encoding="utf-8")
    plan = plan_of(root)
    assert [teacher.samples for teacher in plan.teachers] == [0]
    assert plan.fresh == 3 * DOMAIN
    outcome = distill(open_project(root), Options(cpu=True))
    assert outcome is not None
    assert outcome.version.lineage.data.captions == {"ct": 1.0, "mri": 1.0, "xray": 1.0}
    assert outcome.evaluation.of_role("student")[0].means["accuracy"] > 0.5


def test_skipped_samples_are_fresh_when_a_teacher_for_them_is_added(root: Path) -> None:
    outcome = distill(open_project(root), Options(cpu=True))
    assert outcome is not None
    data = outcome.version.lineage.data
    assert (data.known, data.skipped_samples) == (("ct", "mri"), DOMAIN)
    with raises_error("KD-DIST-035") as caught:
        plan_of(root, incremental=True)
    assert str(DOMAIN) in caught.value.why
    train_teacher(["xray"], width=20, seed=5).save(root / "models" / "xr")
    add_teacher(open_project(root), "xr", {"from": "local:models/xr", "loader": "toy", "license": "mit"})
    plan = plan_of(root, incremental=True)
    assert (plan.fresh, plan.replayed, plan.skipped_samples) == (DOMAIN, 2 * DOMAIN, 0)
    assert domains(root, plan, 1) == {"xray"}


def test_previous_version_covers_all_samples_without_rehearsal(root: Path) -> None:
    """With a replay it covers the replayed samples alone."""
    distill(open_project(root), Options(cpu=True))
    manifest = root / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    more = [dict(row, id=row["id"] + "-b", text=row["text"] + " again") for row in rows if row["domain"] == "ct"]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *more]), encoding="utf-8")
    assert plan_of(root, incremental=True).skipped_samples == DOMAIN
    previous = "previous: {weight: 1.0, loss: crd}"
    write_recipe(root, "replay: 0.5", f"replay: 0.5, {previous}")
    assert plan_of(root, incremental=True).skipped_samples == DOMAIN
    write_recipe(root, "replay: 0.5", "replay: 0.0")
    assert plan_of(root, incremental=True).skipped_samples == DOMAIN
    write_recipe(root, "replay: 0.5", f"replay: 0.0, {previous}")
    plan = plan_of(root, incremental=True)
    assert (plan.skipped_samples, plan.fresh) == (0, 2 * DOMAIN)


class Rigid(ToyEncoder):
    """It cannot alter inputs. A class of its own: Python remembers per class what fulfills a protocol."""

    alter = None  # type: ignore[assignment]


def test_a_student_that_cannot_alter_inputs_is_refused_before_an_extraction(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Altered inputs protect what the parent knows where its samples are not here."""
    write_recipe(root, "steps: 40", "steps: 2")
    distill(open_project(root), Options(cpu=True))
    train_teacher(["xray"], width=20, seed=5).save(root / "models" / "xr")
    add_teacher(open_project(root), "xr", {"from": "local:models/xr", "loader": "toy", "license": "mit"})
    write_recipe(root, "replay: 0.5", "replay: 0.5, without_replay: {altered: 1.0}")
    monkeypatch.setattr(toys, "ToyEncoder", Rigid)
    manifest = root / "images" / "samples.jsonl"
    rows = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    manifest.write_text("".join(row for row in rows if json.loads(row)["domain"] == "xray"), encoding="utf-8")
    with raises_error("KD-DIST-095"):
        plan_of(root, incremental=True)
    assert not (root / "features" / "xr").exists()
    manifest.write_text("".join(rows), encoding="utf-8")
    assert plan_of(root, incremental=True).replayed == 2 * DOMAIN


def test_data_without_conversations_is_told() -> None:
    """Where turns are to come together; and how many do."""
    pool = SamplePool(np.arange(4), np.zeros(4, dtype=np.int64))
    for turns, lines, warnings in (
        (None, 0, 0),
        (np.array([0, 1, 2, 3]), 0, 1),
        (np.array([0, 1, 0, 1]), 1, 0),
    ):
        plan: Any = SimpleNamespace(pools=[replace(pool, conversation=turns)])
        said = Recorder()
        tell_conversations(plan, said)
        assert (len(said.lines), len(said.warnings)) == (lines, warnings)
