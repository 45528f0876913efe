"""Directions of the previous version's weights that training leaves as they are."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdkit.api.student import DistillPlan
from kdkit.core.contracts import Silent
from kdkit.core.distill.cost_estimate import PlannedStage, dry_run
from kdkit.core.distill.loop.optimizer import make_optimizer
from kdkit.core.distill.model.frozen_directions import FrozenDirections
from kdkit.core.distill.model.task import DistillTask
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.run import distill
from tests.core.distill.building import build_prepared
from tests.core.distill.model.test_task import SETTINGS, make_batch, make_task
from tests.core.distill.toy_runs import assert_equal, recipe, run, weights
from tests.ranks import run_ranks
from tests.toy_project import open_project

ENERGY = 0.6
FROZEN = ("replay: 0.5", f"replay: 0.5, previous: {{frozen_energy: {ENERGY}}}")


class Mixed(nn.Module):
    """A kernel, a matrix, a table, a vector, and a matrix that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.kernel = nn.Conv2d(4, 6, 3)
        self.matrix = nn.Linear(9, 5)
        self.table = nn.Embedding(7, 5)
        self.still = nn.Linear(3, 3).requires_grad_(False)


def closed_form(start: Tensor, moved: Tensor, energy: float) -> Tensor:
    """From the eigenvectors of W W' and W' W, in float64."""
    before, change = start.flatten(1).double(), (moved - start).flatten(1).double()
    values = torch.linalg.svdvals(before).square()
    strong = int(torch.searchsorted(values.cumsum(0), energy * values.sum())) + 1
    left = torch.linalg.eigh(before @ before.T).eigenvectors[:, -strong:]
    right = torch.linalg.eigh(before.T @ before).eigenvectors[:, -strong:]
    change -= left @ left.T @ change
    change -= change @ right @ right.T
    return (before + change).view_as(start)


@pytest.mark.parametrize("energy", [0.3, 0.6, 0.95, 1.0])
def test_it_is_the_projection_of_float64(energy: float) -> None:
    student = Mixed()
    start = {name: x.detach().clone() for name, x in student.named_parameters()}
    frozen = FrozenDirections(student, energy)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    moved = {name: x.detach().clone() for name, x in student.named_parameters()}
    frozen.restore()
    after = dict(student.named_parameters())
    for name in ("kernel.weight", "matrix.weight"):
        expected = closed_form(start[name], moved[name], energy).float()
        torch.testing.assert_close(after[name].detach(), expected, atol=2e-5, rtol=1e-4)
    for name, x in {"kernel.bias": start, "matrix.bias": start, "table.weight": moved, "still.weight": moved}.items():
        assert torch.equal(after[name], x[name]), name
    assert len(frozen.matrices) == 2


def test_the_whole_energy_leaves_every_matrix_as_it_is() -> None:
    layer = nn.Linear(4, 4, bias=False)
    start, frozen = layer.weight.detach().clone(), FrozenDirections(layer, 1.0)
    nn.init.ones_(layer.weight)
    frozen.restore()
    torch.testing.assert_close(layer.weight.detach(), start)


def frozen_task() -> DistillTask:
    task = make_task()
    task.frozen = FrozenDirections(task.student, ENERGY)
    return task


def test_the_strongest_directions_answer_as_before_after_steps_with_weight_decay() -> None:
    task = frozen_task()
    optimizer = make_optimizer(task, SETTINGS)
    assert task.frozen is not None
    starts = [matrix.start.flatten(1).clone() for matrix in task.frozen.matrices]
    for _ in range(10):
        task(**make_batch())["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        task.constrain()
    moved = 0
    for matrix, start in zip(task.frozen.matrices, starts, strict=True):
        now = matrix.weight.detach().flatten(1)
        moved += not torch.allclose(now, start, atol=1e-3)
        torch.testing.assert_close(now @ matrix.right, start @ matrix.right, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(now.T @ matrix.left, start.T @ matrix.left, atol=1e-5, rtol=1e-4)
    assert moved


def _worker(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/barrier", rank=rank, world_size=world)
    torch.set_num_threads(1)
    task, batch = frozen_task(), make_batch()
    model = nn.parallel.DistributedDataParallel(task, find_unused_parameters=True)
    share = len(cast(Tensor, batch["domain"])) // world
    inputs = cast(dict[str, Tensor], batch["inputs"])
    mine = {name: x[rank * share :][:share] for name, x in inputs.items()}
    _steps(task, model, {**batch, "inputs": mine})
    if rank == 1:
        torch.save(task.student.state_dict(), f"{folder}/student")
    dist.barrier()  # the group of one that is still at work must not be gone
    dist.destroy_process_group()


def _steps(task: DistillTask, model: nn.Module, batch: dict[str, object]) -> None:
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05)
    for _ in range(3):
        model(**batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        task.constrain()


def test_two_processes_train_the_student_of_one(tmp_path: Path) -> None:
    run_ranks(_worker, 2, str(tmp_path), world=2)
    task = frozen_task()
    _steps(task, task, cast(dict[str, object], make_batch()))
    for name, x in torch.load(tmp_path / "student", weights_only=True).items():
        torch.testing.assert_close(x, task.student.state_dict()[name], atol=1e-5, rtol=1e-4)


class Killed(Silent):
    """Stops the run after a step."""

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  # the protocol's
        if label == "distill" and done == 7:
            raise InterruptedError


def test_a_killed_run_ends_bit_for_bit_as_an_uninterrupted_one(with_xray: Path) -> None:
    recipe(with_xray, FROZEN)
    options = Options(cpu=True, incremental=True, checkpoint_seconds=0)
    with pytest.raises(InterruptedError):
        distill(open_project(with_xray), options, reporter=Killed())
    assert list((with_xray / ".kdkit" / "runs").glob("*/step-*"))
    version = run(open_project(with_xray), incremental=True).version
    assert version.lineage.training.previous is not None
    assert version.lineage.training.previous.frozen_energy == ENERGY
    (with_xray / "versions" / "current").write_text("v1\n", encoding="utf-8")
    run(open_project(with_xray), incremental=True, restart=True)
    assert_equal(weights(with_xray, "v2"), weights(with_xray, "v3"))
    change = weights(with_xray, "v2")["image_tower.0.weight"] - weights(with_xray, "v1")["image_tower.0.weight"]
    assert change.abs().max() > 1e-4
    _, _, right = torch.linalg.svd(weights(with_xray, "v1")["image_tower.0.weight"], full_matrices=False)
    torch.testing.assert_close(change @ right[0], torch.zeros(len(change)), atol=1e-5, rtol=0)


def test_the_plan_says_what_stays(with_xray: Path) -> None:
    recipe(with_xray, FROZEN)
    plan, estimate, _ = dry_run(open_project(with_xray), Options(cpu=True, incremental=True), Silent())[-1]
    line = "The strongest directions of v1's weights stay as they are (60 % of each matrix's energy)"
    assert line in str(DistillPlan((PlannedStage(plan, estimate),))).splitlines()
    assert plan.to_json()["previous"]["frozen_energy"] == ENERGY


def test_a_new_student_has_nothing_to_keep(with_xray: Path) -> None:
    recipe(with_xray, FROZEN)
    for incremental in (False, True):
        prepared = prepare(open_project(with_xray), Options(cpu=True, incremental=incremental), Silent())
        assert (build_prepared(open_project(with_xray), prepared).task.frozen is not None) is incremental
