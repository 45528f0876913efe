"""Known domains in which a new teacher is better than the student are fresh."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.contracts import Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.prepare import prepare
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.toy_runs import recipe, run
from tests.toy_project import make_project, open_project, train_teacher

DOMAIN = 3 * 12
"""Training samples of each domain."""


def increment_plan(root: Path) -> Plan:
    """Of an increment with a new teacher of ct and xray."""
    train_teacher(["ct", "xray"], width=20, seed=5).save(root / "models" / "xr")
    add_teacher(open_project(root), "xr", {"from": "local:models/xr", "loader": "toy", "license": "mit"})
    return prepare(open_project(root), Options(incremental=True), Silent()).plan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``radio`` knows ct and mri; no teacher knows xray."""
    make_project(tmp_path / "p", teachers={"radio": ("ct", "mri")}, domains=("ct", "mri", "xray"))
    return tmp_path / "p"


def test_a_new_teacher_that_is_better_than_the_student_makes_known_samples_fresh(root: Path) -> None:
    recipe(root, ("steps: 40", "steps: 1"))
    run(open_project(root))
    plan = increment_plan(root)
    assert dict(plan.better) == {"ct": ("xr",)}
    assert (plan.fresh, plan.replayed) == (2 * DOMAIN, DOMAIN)


def test_a_new_teacher_that_is_no_better_brings_new_samples_alone(root: Path) -> None:
    recipe(root, ("steps: 40", "steps: 200"))
    run(open_project(root))
    plan = increment_plan(root)
    assert not plan.better
    assert (plan.fresh, plan.replayed) == (DOMAIN, 2 * DOMAIN)


@pytest.mark.parametrize(("exposure", "length"), [(0.6, 0.6 * (1 / 3) / 0.5), (3.0, 0.5)])
def test_length_follows_the_share_of_fresh_samples(root: Path, exposure: float, length: float) -> None:
    run(open_project(root))
    recipe(root, ("replay: 0.5", f"replay: 0.5, exposure: {exposure}"))
    assert increment_plan(root).settings.steps == pytest.approx(length * 40, abs=1)
