"""The schedule of correction rounds, and invalid corrections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import Sample, Silent
from kdkit.core.data.index import SampleIndex
from kdkit.core.distill.correction.schedule import make_correction_schedule
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.types import CorrectionSchedule, SamplePool
from kdkit.core.distill.prepare import prepare
from kdkit.core.project.project import Project
from kdkit.core.project.recipe import CorrectionPart
from tests.core.distill.corrected import RECIPE, make_project, set_correction
from tests.errors import raises_error
from tests.toy_project import make_project as make_dual_encoder_project
from tests.toy_project import open_project


def table(count: int) -> SampleIndex:
    """Sample 0 is a correction itself, sample 1 has no text."""
    extras: list[dict[str, Any]] = [{"correction": {}}] + [{}] * (count - 1)
    samples = tuple(
        Sample(f"s{n}", Path("x.png"), "" if n == 1 else "text", "ct", extra=extra) for n, extra in enumerate(extras)
    )
    digests = np.arange(count, dtype=np.uint64)
    return SampleIndex(samples, digests, np.zeros(count, dtype=np.bool_))


def rounds(count: int = 20, seed: int = 0, **part: Any) -> CorrectionSchedule:
    indices = np.arange(count)
    pools = [SamplePool(indices, np.zeros(count, dtype=np.int64)), SamplePool(indices[:5], np.zeros(5, dtype=np.int64))]
    given = CorrectionPart.model_validate(part)
    return make_correction_schedule(given, pools, table(count), batch_size=4, steps=30, seed=seed)


@pytest.mark.parametrize(
    ("part", "steps"),
    [
        ({}, (5, 10, 15, 20, 25)),  # 20 samples (those of two pools once) in batches of 4; none after the last step
        ({"every": 2}, (10, 20)),
        ({"every": 0.5}, (2, 5, 8, 10, 12, 15, 18, 20, 22, 25, 28)),
        ({"every": 0.01}, tuple(range(1, 30))),  # not more than one after a step
        ({"every": 7}, ()),
        ({"steps": [12, 3, 3, 30, 99]}, (3, 12)),
    ],
)
def test_rounds_follow_the_configured_steps(part: dict[str, Any], steps: tuple[int, ...]) -> None:
    found = rounds(**part)
    assert found.steps == steps
    assert [found.epoch_of(number) for number in range(len(steps))] == [round(step / 5, 3) for step in steps]


def test_rounds_draw_reproducible_samples() -> None:
    assert rounds().chosen(0).tolist() == list(range(2, 20))
    half = rounds(share=0.5)
    assert half.per_round == 9
    drawn = [half.chosen(number).tolist() for number in range(3)]
    assert drawn == [sorted(set(part)) for part in drawn]
    assert len({tuple(part) for part in drawn}) == 3
    assert drawn == [rounds(share=0.5).chosen(number).tolist() for number in range(3)]
    assert drawn != [rounds(share=0.5, seed=1).chosen(number).tolist() for number in range(3)]
    assert (rounds(share=0.5, limit=4).per_round, rounds(limit=100).per_round) == (4, 18)
    with raises_error("KD-DIST-009", where="correction"):
        rounds(count=2)


def test_the_plan_digest_depends_on_the_correction(tmp_path: Path) -> None:
    root = tmp_path / "p"
    digests = set()
    make_project(root, {"share": 0.5})
    for part in ({"share": 0.5}, {}, {"threshold": 0.7}, {"options": {"overlap": 0.6}}, None):
        set_correction(root, part)
        plan = prepare(Project(root), Options(), Silent()).plan
        digests.add(plan.digest)
        if part == {"share": 0.5}:
            assert plan.to_json()["correction"] == {"steps": [6, 12], "answers_per_round": 12, "corrector": "reference"}
    assert len(digests) == 5
    assert plan.to_json()["correction"] is None


@pytest.mark.parametrize(
    ("part", "id", "mentions"),
    [
        ({"corrector": "frist"}, "KD-LABEL-003", ["'frist'", "'first'"]),
        ({"options": {"overlapp": 0.8}}, "KD-PLUG-005", ["'overlapp'"]),
        ({"every": 1, "steps": [1]}, "KD-BASE-007", ["'every'", "'steps'"]),
        ({"threshold": 0}, "KD-BASE-007", ["threshold"]),
    ],
)
def test_invalid_corrections_are_errors_before_training(
    tmp_path: Path, part: dict[str, Any], id: str, mentions: list[str]
) -> None:
    root = tmp_path / "p"
    make_project(root, part, train=8)
    with raises_error(id, mentions=mentions):
        prepare(Project(root), Options(), Silent())


def test_a_corrector_needs_a_loss_that_learns_from_texts(tmp_path: Path) -> None:
    root = tmp_path / "p"
    make_project(root, {"corrector": "first"}, train=8)
    assert prepare(Project(root), Options(), Silent()).plan.correction is not None
    recipe = (root / "corrected.yaml").read_text(encoding="utf-8").replace("{name: answer-ce}, ", "")
    (root / "corrected.yaml").write_text(recipe, encoding="utf-8")
    with raises_error("KD-DIST-008", where="correction.corrector"):
        prepare(Project(root), Options(), Silent())


def test_dual_encoders_cannot_be_corrected(tmp_path: Path) -> None:
    root = tmp_path / "p"
    make_dual_encoder_project(root, teachers={"radio": ("ct",)}, domains=("ct",), train=4, held_out=4)
    with open(root / "toy.yaml", "a", encoding="utf-8") as file:
        file.write("correction: {}\n")
    with raises_error("KD-LABEL-014"):
        prepare(open_project(root), Options(), Silent())
    assert "correction" not in RECIPE
