"""The previous version of a generating student as one more teacher."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import load_file

from kdkit.core.contracts import LossInput, Silent
from kdkit.core.data import load_index
from kdkit.core.distill.cost_estimate import dry_run
from kdkit.core.distill.loop.inputs import InputCache
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.types import PREVIOUS
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.run import distill
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.missing import extract_missing
from kdkit.core.project.versions import Versions, load_student
from kdkit.core.teachers.add import add_teacher
from kdkit.plugins.losses.tokens.losses import AnswerCrossEntropy
from tests.core.distill.answering import add_domain, increment, make_answering_project, write_recipe
from tests.core.distill.building import build_prepared
from tests.errors import raises_error
from tests.journeys.test_generating_student import add_vlm, generating_project, reopened
from tests.toy_project import open_project

PREVIOUS_PART = {"weight": 1.0, "loss": "token-kd"}


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("answering") / "project"
    make_answering_project(root)
    add_domain(root)
    return root


@pytest.fixture
def folder(first_version: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first_version, tmp_path / "project"))


class Killed(Silent):
    """Stops the run after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  # the protocol's
        if label == "distill" and done == self.step:
            raise InterruptedError


@torch.no_grad()
def cross_entropy(root: Path, version: str) -> dict[str, float]:
    """Domain -> mean over the tokens of the held-out answers."""
    project = open_project(root)
    table, student = load_index(project), load_student(Versions(project).get(version), project.catalogue)
    inputs, found, model = InputCache(student, table), {}, _eval(student)
    for domain in table.domains:
        rows = np.concatenate([table.select(split=split, domains=[domain]) for split in ("calibration", "test")])
        batch = LossInput(model(inputs.batch(rows)), (), torch.zeros(len(rows)))
        found[domain] = float(AnswerCrossEntropy()(batch))
    return found


def _eval(student: Any) -> Any:
    return student.eval()


def test_its_targets_are_those_of_a_teacher_with_its_weights(folder: Path) -> None:
    write_recipe(folder, previous=PREVIOUS_PART)
    prepared = prepare(open_project(folder), Options(incremental=True), Silent())
    made = build_prepared(open_project(folder), prepared)
    (teaching,) = made.targets
    replayed = prepared.plan.pools[0].indices
    assert teaching.name == PREVIOUS
    assert set(np.flatnonzero(teaching.weight)) == set(replayed)

    options = {"from": "local:versions/v1/student", "loader": "image-text-to-text", "license": "mit"}
    add_teacher(open_project(folder), "itself", options)
    extract_missing(open_project(folder), prepared.inventory.index)
    column = FeatureStore(folder / "features").column("itself")
    rows = column.locate(prepared.inventory.index)[replayed]
    assert {spec.name: spec for spec in teaching.raw} == {spec.name: spec for spec in column.signals}
    for spec in column.signals:
        computed, stored = teaching.gather(spec.name, teaching.rows[replayed]), column.gather(spec.name, rows)
        assert computed.dtype == spec.dtype
        if spec.dtype == "float16":  # the last bit depends on the batch
            np.testing.assert_array_max_ulp(computed, stored, maxulp=1)
        else:  # tokens with nearly equal probabilities may change places
            assert np.mean(computed != stored) < 1e-3, spec.name


def test_without_replay_it_reduces_forgetting(folder: Path) -> None:
    write_recipe(folder, replay=0.0)
    increment(folder)
    (folder / "versions" / "current").write_text("v1\n", encoding="utf-8")
    write_recipe(folder, replay=0.0, without_replay={**PREVIOUS_PART, "weight": 9}, previous=PREVIOUS_PART)
    kept = increment(folder).version
    assert kept.lineage.training.previous is not None
    assert kept.lineage.training.previous.weight == 1
    assert kept.lineage.training.log[0]["@previous/token-kd"] == pytest.approx(0, abs=1e-3)
    before, plain, own = (cross_entropy(folder, name) for name in ("v1", "v2", "v3"))
    for domain in ("ct", "mri"):
        assert plain[domain] - before[domain] > 0.5, "the recipe must forget without a teacher"
        assert own[domain] - before[domain] < 0.7 * (plain[domain] - before[domain])
    assert own["xray"] < before["xray"] - 1.0


def test_a_killed_run_ends_bit_for_bit_as_an_uninterrupted_one(folder: Path) -> None:
    write_recipe(folder, previous=PREVIOUS_PART)
    with pytest.raises(InterruptedError):
        increment(folder, reporter=Killed(7), checkpoint_seconds=0)
    assert list((folder / ".kdkit" / "runs").glob("*/step-*"))
    increment(folder)
    (folder / "versions" / "current").write_text("v1\n", encoding="utf-8")
    increment(folder, restart=True)
    resumed, whole = (load_file(folder / "versions" / v / "student" / "model.safetensors") for v in ("v2", "v3"))
    assert resumed.keys() == whole.keys()
    for name, x in resumed.items():
        assert torch.equal(x, whole[name]), name


def test_a_trial_run_computes_only_the_rows_that_it_shows(folder: Path) -> None:
    write_recipe(folder, previous=PREVIOUS_PART)
    project = open_project(folder)
    prepared = prepare(project, Options(cpu=True, incremental=True), Silent(), "cpu")
    known = prepared.plan.rehearsed
    shown = np.array([known[3], known[7], prepared.plan.pools[-1].indices[0]])

    def rows(shown: np.ndarray[Any, Any] | None) -> tuple[list[int], np.ndarray[Any, Any]]:
        made = build_prepared(project, prepared, shown=shown)
        previous = made.targets[-1]
        assert previous.name == PREVIOUS
        return np.flatnonzero(previous.weight).tolist(), previous.gather("topk", previous.rows[known[[3, 7]]])

    everything, told = rows(None)
    few, same = rows(shown)
    assert everything == known.tolist()
    assert few == known[[0, 3, 7]].tolist()
    assert_allclose(same.astype(float), told.astype(float), atol=1e-2)


def test_a_dry_run_estimates_the_time_of_its_targets(folder: Path) -> None:
    _, without, _ = dry_run(open_project(folder), Options(cpu=True, incremental=True), Silent())[-1]
    write_recipe(folder, previous=PREVIOUS_PART)
    _, estimate, _ = dry_run(open_project(folder), Options(cpu=True, incremental=True), Silent())[-1]
    assert without.previous_seconds == 0.0
    assert estimate.previous_seconds > 0


def test_its_rows_are_removed_from_disk(folder: Path) -> None:
    write_recipe(folder, previous=PREVIOUS_PART)
    dry_run(open_project(folder), Options(cpu=True, incremental=True), Silent())
    with pytest.raises(InterruptedError):
        increment(folder, reporter=Killed(7))
    assert list((folder / ".kdkit" / "runs").glob("*/previous-version/rows-0-of-1.npy")), "for the resumed run"
    increment(folder)
    left = {path.relative_to(folder / ".kdkit").as_posix() for path in (folder / ".kdkit").rglob("*")}
    assert {path for path in left if not path.startswith(("pixels", "index"))} <= {"busy", "digests.arrow", "runs"}


@pytest.mark.parametrize(("loss", "reads"), [("fd", "image, text"), ("answer-ce", "no teacher")])
def test_a_loss_for_other_signals_is_an_error(folder: Path, loss: str, reads: str) -> None:
    write_recipe(folder, previous={"weight": 1.0, "loss": loss})
    with raises_error("KD-DIST-024", where="increment.previous", mentions=(str(loss),)) as caught:
        increment(folder)
    assert f"it reads {reads};" in caught.value.why
    assert "token-kd" in caught.value.fix
    assert "fd" not in caught.value.fix


def test_a_student_without_answer_states_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "project"
    generating_project(root)
    add_vlm(root, "first", seed=0, sureness=30.0)
    text = "name: toy\nsummary: toy\nlosses: [{name: answers}]\ntrust: {policy: all}\n"
    text += "optimizer: {lr: 0.01, batch_size: 16, steps: 4}\nincrement: {previous: {weight: 1.0, loss: token-kd}}\n"
    (root / "toy.yaml").write_text(text, encoding="utf-8")
    distill(reopened(root), Options(cpu=True))
    add_vlm(root, "second", seed=1, sureness=30.0)
    with raises_error("KD-DIST-023", where="increment.previous") as caught:
        distill(reopened(root), Options(cpu=True, incremental=True))
    assert all(name in caught.value.why for name in ("answer_hidden", "answer_ids", "output_embedding"))
