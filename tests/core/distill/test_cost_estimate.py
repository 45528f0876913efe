"""The estimates of memory and disk, against what a run writes; students with adapters above all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kdkit.core.base.result import format_size
from kdkit.core.distill import cost_estimate
from kdkit.core.distill.cost_estimate import dry_run, memory_bytes, version_bytes
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.checkpoint_files import Progress
from kdkit.core.distill.loop.checkpoint_state import checkpoint_bytes
from kdkit.core.distill.loop.optimizer import make_optimizer
from kdkit.core.distill.model.previous_version import LABEL
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.project.versions import Versions
from tests.core.distill.model.test_task import SETTINGS
from tests.core.distill.toy_runs import recipe
from tests.core.sharing.release.answering import LORA, make_answering, make_base
from tests.core.teachers.stub import Notes
from tests.toy_project import make_project, open_project

WIDE, RANK = 400, 4


class Adapted(nn.Module):
    """A frozen layer with adapters; like PEFT's, its folder holds the adapters alone."""

    outputs: Mapping[str, int] = {"image": WIDE}
    config: Mapping[str, Any] = {}

    def __init__(self, *, frozen: bool = True) -> None:
        super().__init__()
        self.base = nn.Linear(WIDE, WIDE, bias=False).requires_grad_(not frozen)
        self.down, self.up = nn.Linear(WIDE, RANK, bias=False), nn.Linear(RANK, WIDE, bias=False)

    def forward(self, x: Tensor) -> Any:
        return self.base(x) + self.up(self.down(x))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        kept = {name: x for name, x in self.state_dict().items() if not (name == "base.weight" and self._frozen)}
        save_file(kept, folder / "adapters.safetensors")

    @property
    def _frozen(self) -> bool:
        return not self.base.weight.requires_grad


class Task(nn.Module):
    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student, self.head = student, nn.Linear(WIDE, 8, bias=False)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.student(x)).square().sum()


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_checkpoint_and_a_version_are_as_large_as_estimated(frozen: bool, averaged: bool, tmp_path: Path) -> None:
    student: Any = Adapted(frozen=frozen)
    task = Task(student)
    optimizer = make_optimizer(task, SETTINGS)
    average = AveragedModel(task) if averaged else None
    task(torch.ones(2, WIDE)).backward()
    optimizer.step()
    Checkpoints(tmp_path / "run").save(task, optimizer, Progress(1, 1.0, []), average)
    student.save(tmp_path / "version" / "student")
    save_file({"head.weight": task.head.weight.detach()}, tmp_path / "version" / "task.safetensors")
    assert checkpoint_bytes(task, averaged=averaged) == pytest.approx(size(tmp_path / "run"), abs=3000)
    assert version_bytes(student, task) == pytest.approx(size(tmp_path / "version"), abs=1000)
    adapters, base, head = 4 * 2 * WIDE * RANK, 4 * WIDE * WIDE, 4 * 8 * WIDE
    trained = adapters + head + base * (not frozen)
    assert memory_bytes(task, averaged=averaged) == (1 + averaged) * (adapters + base + head) + 3 * trained


def test_an_estimate_of_a_run_writes_nothing_and_tells_a_small_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    make_project(root, teachers={"radio": ("ct",)}, domains=("ct",))
    dry_run(open_project(root), Options(cpu=True), Notes())  # extracts the features
    before, notes = set(root.rglob("*")), Notes()
    _, estimate, _ = dry_run(open_project(root), Options(cpu=True), notes)[-1]
    assert set(root.rglob("*")) == before
    assert not [warning for warning in notes.warnings if "on disk" in warning]
    distill(open_project(root), Options(cpu=True))
    version = Versions(open_project(root)).get()
    weights = size(version.student_folder) + (version.folder / "task.safetensors").stat().st_size
    assert weights <= estimate.disk <= 11 * weights
    monkeypatch.setattr("kdkit.core.distill.cost_estimate.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    dry_run(open_project(root), Options(cpu=True), notes)
    assert any(f"{format_size(estimate.disk)} on disk" in warning and "1.0 kB" in warning for warning in notes.warnings)


def test_an_estimate_beside_another_one_keeps_its_targets(with_xray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe(with_xray, ("steps: 0.5", "steps: 0.5, previous: {weight: 1.0, loss: fd}"))
    options, progress, nested = Options(cpu=True, incremental=True), cost_estimate._Timer.progress, list[bool]()

    def estimate_again(timer: Any, label: str, done: int, total: int, note: str = "") -> None:
        if label == LABEL and not nested:  # the targets are being written
            nested.append(True)
            with torch.enable_grad():
                dry_run(open_project(with_xray), options, Notes())
        progress(timer, label, done, total, note)

    monkeypatch.setattr(cost_estimate._Timer, "progress", estimate_again)
    _, estimate, _ = dry_run(open_project(with_xray), options, Notes())[-1]
    assert nested
    assert estimate.previous_seconds > 0
    assert not [path for path in (with_xray / ".kdkit").rglob("*") if "previous-version" in path.name]


def test_of_an_answering_student_with_adapters_the_base_is_not_on_the_disk(tmp_path: Path) -> None:
    project = make_answering(tmp_path, init=str(make_base(tmp_path / "base")), lora=LORA)
    version = Versions(project).get()
    base = (tmp_path / "base" / "model.safetensors").stat().st_size
    _, estimate, _ = dry_run(project, Options(cpu=True), Notes())[-1]
    adapters = size(version.student_folder)
    assert adapters <= estimate.disk < 13 * adapters
    assert base < estimate.memory < 2 * base
