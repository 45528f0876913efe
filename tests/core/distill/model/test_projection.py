"""Orthogonal heads: what they are, stay, start from, and come back from a checkpoint as; and states of answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from kdkit.core.contracts import Silent
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.loop.train import train
from kdkit.core.distill.model.projection import OrthogonalHead, TeacherProjection, fit_heads, make_heads
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.plan import make_plan
from kdkit.core.distill.run import distill
from kdkit.core.project.project import Project
from kdkit.core.project.recipe import Recipe
from kdkit.core.teachers.add import add_teacher
from kdkit.plugins.loaders.generating import GeneratingTeacher
from tests.core.distill.answering import STUDENT
from tests.core.distill.building import build_plan
from tests.errors import raises_error
from tests.journeys.test_clinkd_distilling import survey_of
from tests.plugins.students.clinkd.tiny import make
from tests.toy_project import RECIPE, make_project, open_project, train_teacher


def assert_orthonormal(projection: Tensor) -> None:
    torch.testing.assert_close(projection.T @ projection, torch.eye(projection.shape[1]), rtol=0, atol=2e-6)


def test_it_keeps_lengths_and_angles_whatever_its_weights_become() -> None:
    head = OrthogonalHead(6, 9)
    x = torch.randn(4, 3, 6)
    torch.testing.assert_close(head.projection, head.weight.detach(), rtol=0, atol=1e-6)
    for step in range(5):
        assert_orthonormal(head.projection.detach())
        y = head(x)
        assert y.shape == (4, 3, 9)
        torch.testing.assert_close(y.flatten(0, 1) @ y.flatten(0, 1).T, x.flatten(0, 1) @ x.flatten(0, 1).T)
        with torch.no_grad():
            head.weight.add_(0.5 * torch.randn(9, 6, generator=torch.Generator().manual_seed(step)))


def test_its_gradient() -> None:
    head, x = OrthogonalHead(3, 4).double(), torch.randn(5, 3, dtype=torch.float64)
    with torch.no_grad():
        head.weight.mul_(1.3).add_(0.1)

    def value(weight: Tensor) -> Tensor:
        return cast(Tensor, torch.func.functional_call(head, {"weight": weight}, (x,)))

    assert torch.autograd.gradcheck(value, (head.weight,))


def test_a_student_wider_than_its_teacher_is_refused() -> None:
    with raises_error("KD-DIST-025", where="heads: orthogonal", mentions=("8", "4")):
        make_heads({"image": 8}, {"image": 4}, shared_towers=False, orthogonal=True)


def fitted(student: Tensor, target: Tensor) -> Tensor:
    projection = TeacherProjection(
        make_heads({"x": student.shape[-1]}, {"x": target.shape[-1]}, shared_towers=False, orthogonal=True)
    )
    fit_heads(projection, {"x": student}, {"x": target})
    assert projection.heads is not None
    return cast(OrthogonalHead, projection.heads["x"]).projection.detach()


def test_fitted_heads_are_the_best_orthogonal_map() -> None:
    x = F.normalize(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    wanted = torch.linalg.qr(torch.randn(9, 6, generator=torch.Generator().manual_seed(1)))[0]
    torch.testing.assert_close(fitted(3 * x, x @ wanted.T), wanted, rtol=0, atol=1e-5)
    noisy = x @ wanted.T + torch.randn(50, 9, generator=torch.Generator().manual_seed(2))
    found = fitted(x, noisy)
    assert_orthonormal(found)
    best = float((x @ found.T - noisy).square().sum())
    for seed in range(200):
        near = torch.linalg.qr(found + 0.05 * torch.randn(9, 6, generator=torch.Generator().manual_seed(seed)))
        other = near[0] * torch.where(near[1].diagonal() < 0, -1.0, 1.0)
        assert float((x @ other.T - noisy).square().sum()) >= best


def test_of_answers_the_tokens_that_both_have_are_fitted() -> None:
    x = F.normalize(torch.randn(8, 5, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    wanted = torch.linalg.qr(torch.randn(9, 6, generator=torch.Generator().manual_seed(1)))[0]
    y = x @ wanted.T
    x[2:, 3:], y[:, 4:] = 0, 0
    y[5] = 0  # the teacher may not teach it
    torch.testing.assert_close(fitted(x, y[:, :4]), wanted, rtol=0, atol=1e-5)


def head_tensors(folder: Path, version: str) -> dict[str, Tensor]:
    saved = load_file(folder / "versions" / version / "task.safetensors")
    return {name: x for name, x in saved.items() if ".heads." in name}


def test_versions_and_increments(tmp_path: Path) -> None:
    """Saved, inherited, and new ones fitted; a change of their kind starts them anew."""
    root = tmp_path / "p"
    make_project(root, teachers={"radio": ("ct", "mri")}, domains=("ct", "mri", "xray"), train=6, held_out=8)
    text = RECIPE.replace("space: heads", "space: heads\nheads: orthogonal").replace("steps: 40", "steps: 12")
    text = text.replace("{name: fd, weight: 1.0}", "{name: vkd, weight: 1.0}")
    (root / "toy.yaml").write_text(text, encoding="utf-8")
    registry = root / "registry.yaml"
    entries = registry.read_text(encoding="utf-8").replace("tolerance: 10", "tolerance: 100")
    registry.write_text(entries.replace("width: 12", "width: 24"), encoding="utf-8")
    with raises_error("KD-DIST-021", where="recipe toy, heads: orthogonal", mentions=("'radio'", "24")):
        distill(open_project(root), Options(cpu=True))
    registry.write_text(entries.replace("width: 12", "width: 8"), encoding="utf-8")
    assert distill(open_project(root), Options(cpu=True)) is not None
    before = head_tensors(root, "v1")
    assert list(before) == ["projections.@radio.heads.image.weight", "projections.@radio.heads.text.weight"]
    train_teacher(["xray"], width=20, seed=5).save(root / "models" / "xr")
    add_teacher(open_project(root), "xr", {"from": "local:models/xr", "loader": "toy", "license": "mit"})
    other = Path(shutil.copytree(root, tmp_path / "other"))
    assert distill(open_project(root), Options(cpu=True, incremental=True)) is not None
    after = head_tensors(root, "v2")
    assert {x.shape for name, x in after.items() if "@xr" in name} == {(20, 8)}
    moved = [float((after[name] - x).abs().max()) for name, x in before.items()]
    assert 0 < max(moved) < 0.2, "six steps away from where they were"
    (other / "toy.yaml").write_text(text.replace("heads: orthogonal", "heads: linear"), encoding="utf-8")
    assert distill(open_project(other), Options(cpu=True, incremental=True)) is not None
    changed = head_tensors(other, "v2")
    assert min(float((changed[name] - x).abs().max()) for name, x in before.items()) > 0.2


SPEAKING = Recipe.model_validate(
    {
        "name": "states",
        "summary": "answers and states",
        "heads": "orthogonal",
        "losses": [{"name": "answer-ce"}, {"name": "answer-vkd"}],
        "trust": {"policy": "all"},
        "optimizer": {"lr": 0.01, "batch_size": 4, "steps": 12},
    }
)


CONFIG: dict[str, Any] = {**cast(dict[str, Any], STUDENT["config"]), "max_answer": 40, "max_tokens": 96}


def speaking(root: Path) -> Project:
    make_project(root, teachers={}, domains=("ct",), train=4, held_out=2)
    registry = root / "registry.yaml"
    entry = json.dumps({"family": "clinkd", "config": CONFIG})
    text = registry.read_text(encoding="utf-8").replace("{family: toy, config: {width: 12}}", entry)
    registry.write_text(text, encoding="utf-8")
    return open_project(root)


def taught_by(project: Project, *, hidden: bool) -> TeachingInventory:
    """By a wider model, which gives its states or does not."""
    sizes = {**CONFIG["sizes"], "hidden": 48}
    teacher = GeneratingTeacher(make(**{**CONFIG, "sizes": sizes}, seed=3), k=4, hidden=hidden)
    assert (teacher.signals[-1].name, teacher.signals[-1].shape) == (
        ("answer_hidden", (40, 48)) if hidden else ("tail", (40, 10))
    )
    return survey_of(project, cast(Any, teacher))


@pytest.mark.parametrize("normalize", ["unit", "standardize"])
def test_states_of_answers_teach_and_a_run_goes_on_bit_for_bit(tmp_path: Path, normalize: str) -> None:
    project = speaking(tmp_path / "p")
    inventory = taught_by(project, hidden=True)
    recipe = SPEAKING.model_copy(update={"targets": SPEAKING.targets.model_copy(update={"normalize": normalize})})
    plan = make_plan(recipe, inventory, None, {}, seed=0)
    run, results = tmp_path / "run", list[tuple[dict[str, Tensor], Any]]()
    for _ in range(2):
        made = build_plan(project, plan, inventory, None, Silent())
        accelerator = Accelerator(cpu=True)
        schedule = BatchSampler(plan.pools, batch_size=plan.batch_size, steps=plan.settings.steps, seed=0)
        progress = train(
            made.task,
            made.dataloader(plan, schedule, accelerator),
            replace(plan.settings, checkpoint_seconds=0),
            accelerator=accelerator,
            checkpoints=Checkpoints(run),
            reporter=Silent(),
        )
        made.inputs.close()
        results.append(({name: x.clone() for name, x in made.task.state_dict().items()}, progress.log))
        shutil.rmtree(max(run.glob("step-*")))  # the second run goes on from the step before
    (once, log), (twice, again) = results
    assert not [name for name in once if not torch.equal(once[name], twice[name])]
    assert log == again
    assert log[-1]["answer-vkd"] < 0.9 * log[0]["answer-vkd"]
    (head,) = (x for x in made.task.modules() if isinstance(x, OrthogonalHead))
    assert head.weight.shape == (48, 32)
    assert_orthonormal(head.projection.detach())
    assert float((head.weight - head.projection).detach().abs().max()) > 1e-3, "it was trained"


def test_states_that_cannot_be_compared_are_an_error(tmp_path: Path) -> None:
    project = speaking(tmp_path / "without")
    inventory = taught_by(project, hidden=False)
    with raises_error("KD-DIST-019", mentions=("answer-vkd", "answer_hidden")):
        build_plan(project, make_plan(SPEAKING, inventory, None, {}, seed=0), inventory, None, Silent())
    project = speaking(tmp_path / "shared")
    inventory = taught_by(project, hidden=True)
    plan = make_plan(SPEAKING.model_copy(update={"space": "shared", "heads": "linear"}), inventory, None, {}, seed=0)
    with raises_error("KD-DIST-020", where="recipe states"):
        build_plan(project, plan, inventory, None, Silent())
