"""What a run says about steps that are not finite, in a project whose store holds a broken feature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kdkit.core.contracts import Silent
from kdkit.core.data import load_index
from kdkit.core.distill.loop.accelerator import make_accelerator
from kdkit.core.distill.loop.diagnosis import find_causes
from kdkit.core.distill.loop.finite_steps import BadStep
from kdkit.core.distill.loop.parallel import Training
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.features.store.shard import Shard
from kdkit.core.features.store.store import FeatureStore
from kdkit.core.project.versions import Versions
from tests.core.distill.model.test_task import SETTINGS
from tests.core.distill.toy_runs import Heard, recipe, run, weights
from tests.errors import raises_error
from tests.toy_project import open_project


class Root(nn.Module):
    """The square root of the distance to a target, whose gradient at 0 is not a number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.last(self.first(x).sqrt()).square().sum().sqrt()}


def causes(task: nn.Module, x: Tensor) -> list[str]:
    training = Training(task, SETTINGS, make_accelerator("no", cpu=True))
    return find_causes(training, BadStep(0, {}, lambda: ["s0", "s1"]), {"x": x})


def test_the_first_broken_value_is_named() -> None:
    """Of the batch, the weights, the modules in the order of computation, and the gradients."""
    task = Root()
    with torch.no_grad():
        task.first.weight.copy_(torch.eye(2))
        task.first.bias.zero_()
        task.last.weight.copy_(torch.eye(2))
    assert causes(task, torch.tensor([[1.0, 2.0], [torch.inf, 1.0]]))[0] == "'x' of the batch is not finite for s1"
    assert causes(task, torch.tensor([[-1.0, 2.0]])) == ["the first module with an output that is not finite is last"]
    found = causes(task, torch.zeros(2, 2))
    assert found == ["the losses are finite, the gradient of first.weight, first.bias, last.weight is not"]
    with torch.no_grad():
        task.last.weight[0, 0] = torch.nan
    assert causes(task, torch.ones(2, 2)) == ["before the step, last.weight of the weights is not finite"]


def break_a_feature(folder: Path) -> str:
    """Make a value of a training sample's features infinite, as a teacher that kdkit does not check might; its id."""
    project = open_project(folder)
    index = load_index(project, Silent())
    column = FeatureStore(project.features).column("radio")
    row = int(column.locate(index)[int(index.select(split="train", domains=["ct"])[0])])
    (path,) = (shard.path for shard in column.shards)
    shard = Shard(path, writable=True)
    block = row // shard.block_rows
    rows = shard.rows_of(block)
    values = {name: array[rows].copy() for name, array in shard.arrays.items()}
    values["image"][row - rows.start, 0] = np.inf
    shard.commit(block, values, shard.status[rows].copy())
    shard.close()
    return shard.ids[row]


def test_a_broken_feature_is_named_and_its_steps_are_skipped_if_so_chosen(folder: Path) -> None:
    name = break_a_feature(folder)
    recipe(folder, ("steps: 40", "steps: 41"))
    with raises_error("KD-DIST-017") as caught:
        run(open_project(folder), seed=4)
    assert f"teacher 'radio' has image targets that are not finite for {name}" in caught.value.why
    assert Versions(open_project(folder)).names() == ("v1",)
    recipe(folder, ("steps: 40", "steps: 41, on_nan: skip, max_skipped: 41"))
    heard = Heard()
    outcome = distill(open_project(folder), Options(cpu=True, seed=4), reporter=heard)
    assert outcome is not None
    training = outcome.version.lineage.training
    assert 0 < training.skipped < 41
    assert "targets/radio/image" in training.skipped_steps[0].found
    assert any(name in line for line in heard.warnings)
    assert name not in str(training.to_json()), "a lineage is published"
    assert all(bool(x.isfinite().all()) for x in weights(folder, outcome.version.name).values())
