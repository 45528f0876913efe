"""A student that breaks the guard is repaired: real runs of a toy project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kdkit.api.student import Distillation
from kdkit.api.versions import VersionList
from kdkit.core.contracts import Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.project.lineage import Lineage
from kdkit.core.project.repair_record import RepairRecord
from kdkit.core.project.versions import Versions
from tests.core.distill.toy_runs import add_xray, assert_equal, recipe, run, weights
from tests.toy_project import open_project

DEFAULT = "replay: 0.5, steps: 0.5"
FORGETFUL = "replay: 0.0, steps: 4.0"
"""Plain fine-tuning: it forgets the old domains, and interpolation brings them back."""
UNBALANCED = "replay: 0.02, oversample: 9, steps: 0.5"
"""Too little replay for one sample in a batch: interpolation brings back little, rehearsal much."""


class Killed(Silent):
    """Ends the run with an error at a line, or at a step of the additional training."""

    def __init__(self, line: str, step: int = 0) -> None:
        self.line, self.step, self.said, self.heard = line, step, False, ""

    def say(self, text: str) -> None:
        if self.line in text:
            self.said, self.heard = True, text
        if self.said and not self.step:
            raise InterruptedError

    def progress(self, label: str, done: int, *_: object) -> None:
        if self.said and label == "distill" and done == self.step:
            raise InterruptedError


@pytest.fixture(scope="module")
def rehearsed(first_version: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an increment that interpolation alone does not repair."""
    folder = add_xray(Path(shutil.copytree(first_version, tmp_path_factory.mktemp("rehearsed") / "project")))
    repaired(folder, UNBALANCED)
    return folder


def repaired(folder: Path, increment: str) -> RepairRecord:
    """The record of an increment that the guard promotes after a repair."""
    recipe(folder, (DEFAULT, increment))
    version = run(open_project(folder), incremental=True).version
    assert not version.refused
    assert version.lineage.guard is not None
    assert version.lineage.guard.promoted
    assert version.lineage.repair is not None
    return version.lineage.repair


def relax_guard(folder: Path, guard: str) -> None:
    registry = folder / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    assert "tolerance: 10" in text
    registry.write_text(text.replace("tolerance: 10", guard), encoding="utf-8")


def test_interpolation_makes_a_refused_student_pass(with_xray: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(with_xray, tmp_path / "other"))
    recipe(other, (DEFAULT, f"{FORGETFUL}, repair: null"))
    refused = run(open_project(other), incremental=True).version
    assert refused.refused

    record = repaired(with_xray, FORGETFUL)
    assert [one.weight for one in record.attempts] == [1, 0.75, 0.5, 0.25]
    assert (record.new, record.rehearsed) == (("xray",), ()), "without replay nothing can be rehearsed"
    assert record.kept is not None
    kept = record.attempts[record.kept]
    assert kept.gain is not None
    assert (kept.weight, kept.passed, kept.gain > 0) == (0.25, True, True)
    assert [one.passed for one in record.attempts] == [False, False, False, True]
    before, trained, mixed = weights(with_xray, "v1"), weights(other, "candidates/v2"), weights(with_xray, "v2")
    for name, x in mixed.items():
        c = trained[name].numpy()
        if name in before:
            c = (0.75 * before[name].numpy().astype(np.float64) + 0.25 * c.astype(np.float64)).astype(np.float32)
            np.testing.assert_array_equal(x.numpy(), c, err_msg=name)

    versions = Versions(open_project(with_xray))
    retention, after = versions.get("v2").lineage.retention, versions.get("v2").lineage.scores.domains
    assert retention is not None
    assert retention.worst is not None
    assert (kept.worst, kept.points, kept.mean) == (retention.worst.domain, retention.worst.points, retention.mean)
    gain = 100 * (after["xray"]["accuracy"] - versions.get("v1").lineage.scores.domains["xray"]["accuracy"])
    assert kept.gain == pytest.approx(gain)

    content = (with_xray / "versions" / "v2" / "lineage.json").read_bytes()
    assert Lineage.from_bytes(content).to_bytes() == content
    plain = json.loads(content)
    del plain["repair"]
    assert Lineage.from_json(plain).repair is None, "of a lineage that was written before there was a repair"


def test_rehearsal_keeps_more_than_interpolation(rehearsed: Path) -> None:
    outcome = run(open_project(rehearsed), incremental=True)  # it is finished: nothing is trained
    record = outcome.version.lineage.repair
    assert record is not None
    assert set(record.rehearsed) == {"ct", "mri"}
    trained, kept = record.attempts[0], record.attempts[record.kept or 0]
    assert kept.rehearsed == 4  # 0.2 of 20 steps
    assert trained.gain is not None
    assert kept.gain is not None
    interpolated = [one.gain or 0.0 for one in record.attempts if one.passed and not one.rehearsed]
    assert trained.gain >= kept.gain > max(interpolated, default=0.0)
    chosen = f"chosen on the calibration split among {len(record.attempts)} candidates"
    assert chosen in str(Distillation(outcome))
    assert chosen in str(VersionList.of(Versions(open_project(rehearsed))))
    assert Distillation(outcome).to_json()["repair"]["kept"] == record.kept
    assert chosen in str(evaluate_version(open_project(rehearsed)))


def test_a_student_that_passes_is_not_touched(with_xray: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(with_xray, tmp_path / "other"))
    recipe(other, (DEFAULT, f"{DEFAULT}, repair: null"))
    assert run(open_project(with_xray), incremental=True).version.lineage.repair is None
    run(open_project(other), incremental=True)
    assert_equal(weights(with_xray, "v2"), weights(other, "v2"))


def test_what_cannot_be_repaired_is_refused_as_it_was_trained(with_xray: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(with_xray, tmp_path / "other"))
    recipe(other, (DEFAULT, f"{UNBALANCED}, repair: null"))
    run(open_project(other), incremental=True)
    recipe(with_xray, (DEFAULT, f"{UNBALANCED}, repair: {{interpolate: [0.9], rehearse: 0.01}}"))
    outcome = run(open_project(with_xray), incremental=True)
    record = outcome.version.lineage.repair
    assert outcome.version.refused
    assert record is not None
    assert record.kept is None
    assert [(one.rehearsed, one.weight) for one in record.attempts] == [(0, 1.0), (0, 0.9), (1, 1.0), (1, 0.9)]
    assert_equal(weights(with_xray, "candidates/v2"), weights(other, "candidates/v2"))
    assert "repair failed: of 4 candidates" in str(Distillation(outcome))

    relax_guard(with_xray, "tolerance: 100")
    outcome = run(open_project(with_xray), incremental=True)
    assert (outcome.version.name, outcome.version.refused, outcome.version.lineage.repair) == ("v2", False, None)
    assert "repair" not in str(VersionList.of(Versions(open_project(with_xray))))
    assert_equal(weights(with_xray, "v2"), weights(other, "candidates/v2"))


@pytest.mark.parametrize(
    "killed", [Killed("0.5 of the way"), Killed("more samples of", step=2), Killed("after 4 more steps")]
)
def test_a_kill_in_the_repair_changes_nothing(with_xray: Path, rehearsed: Path, killed: Killed) -> None:
    recipe(with_xray, (DEFAULT, UNBALANCED))
    options = Options(cpu=True, incremental=True, checkpoint_seconds=0.0)
    with pytest.raises(InterruptedError):
        distill(open_project(with_xray), options, reporter=killed)
    record = repaired(with_xray, UNBALANCED)
    expected = Versions(open_project(rehearsed)).get("v2").lineage.repair
    assert expected is not None
    assert (record.attempts, record.kept) == (expected.attempts, expected.kept)
    assert_equal(weights(with_xray, "v2"), weights(rehearsed, "v2"))
    assert not list((with_xray / ".kdkit" / "runs").glob("*"))


def test_a_rehearsal_of_other_domains_is_not_continued(with_xray: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(with_xray, tmp_path / "other"))
    for folder in (with_xray, other):
        recipe(folder, (DEFAULT, UNBALANCED))
    options = Options(cpu=True, incremental=True, checkpoint_seconds=0.0)
    with pytest.raises(InterruptedError):  # it rehearses both old domains
        distill(open_project(with_xray), options, reporter=(stopped := Killed("more samples of", step=2)))
    assert {"ct", "mri"} <= set(stopped.heard.replace(",", "").split())
    records = []
    for folder in (with_xray, other):
        relax_guard(folder, "tolerance: 100, domains: {ct: 5}")
        records.append(run(open_project(folder), incremental=True).version.lineage.repair)
    killed, whole = records
    assert killed is not None
    assert whole is not None
    assert killed.rehearsed == whole.rehearsed == ("ct",)
    assert killed.attempts == whole.attempts
