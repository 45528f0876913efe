"""The previous version as a teacher at altered inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdkit.api.student import DistillPlan
from kdkit.core.contracts import Silent
from kdkit.core.distill.cost_estimate import PlannedStage, dry_run
from kdkit.core.distill.model.altered_inputs import AlteredInputs
from kdkit.core.distill.model.task import DistillTask
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.run import distill
from tests.core.distill.building import build_prepared
from tests.core.distill.model.test_task import gradients, make_batch, make_task
from tests.core.distill.toy_runs import assert_equal, recipe, run, weights
from tests.errors import raises_error
from tests.ranks import run_ranks
from tests.toy_project import open_project
from tests.toys import ToyEncoder

SEEDS = torch.arange(8)
ALTERED = ("replay: 0.5", "replay: 0.0, previous: {altered: 5}")


class Normalized(ToyEncoder):
    """It has everything that behaves otherwise while training."""

    def __init__(self) -> None:
        super().__init__(width=6, dropout=0.5)
        self.image_tower.append(nn.BatchNorm1d(6))


def inputs() -> dict[str, Tensor]:
    return cast(dict[str, Tensor], make_batch()["inputs"])


def moved(student: nn.Module) -> nn.Module:
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return student


def test_nothing_is_lost_at_first() -> None:
    student = Normalized().train()
    assert AlteredInputs(student, 1.0).loss(student, inputs(), SEEDS).item() == pytest.approx(0, abs=1e-6)


def test_it_is_the_squared_distance_of_directions_in_float64() -> None:
    student = ToyEncoder(width=6)
    altered = AlteredInputs(student, 1.0)
    before = ToyEncoder(width=6)
    before.load_state_dict(student.state_dict())
    found = altered.loss(moved(student), inputs(), SEEDS)
    rows = student.alter(inputs(), SEEDS)
    expected = 0.0
    for name in ("image", "text"):
        s, p = student(rows)[name].detach().double(), before(rows)[name].detach().double()
        cosine = (s * p).sum(1) / (s.norm(dim=1) * p.norm(dim=1))
        expected += float((2 - 2 * cosine).mean())
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_student_stays_as_it_was_while_training() -> None:
    student = Normalized().train()
    altered = AlteredInputs(student, 1.0)
    norm, still = student.image_tower[-1], student.text_tower.eval()
    torch.autograd.backward(altered.loss(moved(student), inputs(), SEEDS))
    assert student.training
    assert student.image_tower.training
    assert not still.training
    assert int(cast(Any, norm).num_batches_tracked) == 0
    assert all(p.grad is not None for name, p in student.named_parameters() if name != "log_scale")


def test_the_copy_is_in_no_checkpoint_and_not_trained() -> None:
    task, plain = altered_task(), make_task()
    assert task.state_dict().keys() == plain.state_dict().keys()
    assert task.altered is not None
    assert task.altered.nbytes == sum(x.nbytes for x in task.student.state_dict().values())


def test_a_student_that_cannot_alter_its_inputs_is_refused() -> None:
    with raises_error("KD-DIST-095"):
        AlteredInputs(nn.Linear(2, 2), 1.0)


def altered_task() -> DistillTask:
    task = make_task()
    task.altered = AlteredInputs(task.student, 3.0)
    moved(task.student)
    return task


def test_the_total_contains_it() -> None:
    task = altered_task()
    parts = task(**make_batch(), seeds=SEEDS)
    assert parts["@previous/altered"] > 0
    rest = parts["contrast"] + 0.5 * parts["@previous/keep"]
    torch.testing.assert_close(parts["loss"].detach(), rest + 3 * parts["@previous/altered"])


def _worker(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/barrier", rank=rank, world_size=world)
    torch.set_num_threads(1)
    model = nn.parallel.DistributedDataParallel(altered_task(), find_unused_parameters=True)
    share = len(SEEDS) // world
    shard = slice(rank * share, (rank + 1) * share)
    parts = model(**{**make_batch(), "inputs": {name: x[shard] for name, x in inputs().items()}}, seeds=SEEDS[shard])
    parts["loss"].backward()
    if rank == 0:
        found = {**gradients(cast(DistillTask, model.module)), "value": parts["@previous/altered"]}
        torch.save(found, f"{folder}/gradients")
    dist.barrier()  # the group of one that is still at work must not be gone
    dist.destroy_process_group()


def test_two_processes_give_value_and_gradients_of_one(tmp_path: Path) -> None:
    run_ranks(_worker, 2, str(tmp_path), world=2)
    task = altered_task()
    parts = task(**make_batch(), seeds=SEEDS)
    parts["loss"].backward()
    together = torch.load(tmp_path / "gradients", weights_only=True)
    for name, gradient in {**gradients(task), "value": parts["@previous/altered"]}.items():
        torch.testing.assert_close(together[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


class Killed(Silent):
    """Stops the run after a step."""

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  # the protocol's
        if label == "distill" and done == 7:
            raise InterruptedError


def test_a_killed_run_ends_bit_for_bit_as_an_uninterrupted_one(with_xray: Path) -> None:
    recipe(with_xray, ALTERED)
    options = Options(cpu=True, incremental=True, checkpoint_seconds=0)
    with pytest.raises(InterruptedError):
        distill(open_project(with_xray), options, reporter=Killed())
    version = run(open_project(with_xray), incremental=True).version
    assert version.lineage.training.previous is not None
    assert version.lineage.training.previous.altered == 5
    (with_xray / "versions" / "current").write_text("v1\n", encoding="utf-8")
    run(open_project(with_xray), incremental=True, restart=True)
    assert_equal(weights(with_xray, "v2"), weights(with_xray, "v3"))


def test_the_plan_says_so(with_xray: Path) -> None:
    recipe(with_xray, ALTERED)
    plan, estimate, _ = dry_run(open_project(with_xray), Options(cpu=True, incremental=True), Silent())[-1]
    assert (
        "v1 teaches its own outputs on altered inputs (weight 5)"
        in str(DistillPlan((PlannedStage(plan, estimate),))).splitlines()
    )
    assert plan.to_json()["previous"]["altered"] == 5


def test_a_new_student_has_nothing_to_keep(with_xray: Path) -> None:
    recipe(with_xray, ALTERED)
    for incremental in (False, True):
        prepared = prepare(open_project(with_xray), Options(cpu=True, incremental=incremental), Silent())
        assert (build_prepared(open_project(with_xray), prepared).task.altered is not None) is incremental
