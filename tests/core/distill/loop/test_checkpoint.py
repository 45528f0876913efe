"""Checkpoints: what they hold, and what happens to a damaged one."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import Silent
from kdkit.core.distill.loop.checkpoint import KEEP, SPARE_BYTES, Checkpoints
from kdkit.core.distill.loop.checkpoint_files import Progress, checksum, file_of, write_progress
from kdkit.core.distill.loop.checkpoint_state import (
    changing_bytes,
    changing_tensors,
    checkpoint_bytes,
    load_task_tensors,
    task_tensors,
)
from kdkit.core.distill.loop.optimizer import make_optimizer
from kdkit.core.distill.model.task import DistillTask
from tests.core.distill.model.test_task import SETTINGS, make_task
from tests.errors import raises_error
from tests.toys import ToyEncoder


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def saved(folder: Path, *steps: int) -> Checkpoints:
    """Checkpoints whose parameters all equal the step."""
    checkpoints = Checkpoints(folder)
    for step in steps:
        task = make_task()
        for parameter in task.parameters():
            nn.init.constant_(parameter, float(step))
        checkpoints.save(task, make_optimizer(task, SETTINGS), Progress(step, 1.0, []))
    return checkpoints


@pytest.mark.parametrize("file", [file_of(0), "progress.json"])
@pytest.mark.parametrize("content", [b"", b"\x80" * 64, None], ids=["empty", "garbage", "missing"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, file: str, content: bytes | None
) -> None:
    checkpoints, task, heard = saved(tmp_path, 3, 5), make_task(), Heard()
    path = tmp_path / "step-00000005" / file
    path.unlink() if content is None else path.write_bytes(content)
    progress = checkpoints.restore(task, make_optimizer(task, SETTINGS), reporter=heard)
    assert progress == Progress(3, 1.0, [])
    assert {float(x) for p in task.parameters() for x in p.detach().flatten()} == {3.0}
    assert len(heard.warnings) == 1
    assert all(name in heard.warnings[0] for name in ("step-00000005", "step-00000003"))


def test_one_changed_bit_is_damage(tmp_path: Path) -> None:
    checkpoints, task, heard = saved(tmp_path, 3, 5), make_task(), Heard()
    path = tmp_path / "step-00000005" / file_of(0)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert checkpoints.restore(task, make_optimizer(task, SETTINGS), reporter=heard) == Progress(3, 1.0, [])
    assert "checksum" in heard.warnings[0]


def test_a_checkpoint_without_one_of_its_files_says_how_many_there_were(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    folder = tmp_path / "step-00000005"
    (folder / file_of(0)).rename(folder / file_of(1))
    write_progress(folder, Progress(5, 1.0, []), {file_of(0): "", file_of(1): checksum(folder / file_of(1))})
    with raises_error("KD-DIST-015", mentions=(file_of(0), "2 files")):
        Checkpoints(tmp_path).restore(make_task(), make_optimizer(make_task(), SETTINGS))


def test_a_checkpoint_of_another_task_is_refused(tmp_path: Path) -> None:
    other = nn.Linear(2, 2)
    Checkpoints(tmp_path).save(other, make_optimizer(other, SETTINGS), Progress(5, 1.0, []))
    task = make_task()
    with raises_error("KD-DIST-015", where=str(tmp_path / "step-00000005")):
        Checkpoints(tmp_path).restore(task, make_optimizer(task, SETTINGS))


def test_without_a_readable_checkpoint_the_remedy_is_a_restart(tmp_path: Path) -> None:
    checkpoints, task = saved(tmp_path, 3, 5), make_task()
    for path in tmp_path.rglob(file_of(0)):
        path.write_bytes(b"")
    with raises_error("KD-DIST-015", where=str(tmp_path / "step-00000003"), code=ExitCode.MISSING) as caught:
        checkpoints.restore(task, make_optimizer(task, SETTINGS), reporter=Heard())
    assert "--restart" in caught.value.fix


def test_a_checkpoint_with_foreign_tensors_is_refused() -> None:
    saved = {**task_tensors(make_task()), "student.unknown": torch.zeros(1)}
    with pytest.raises(RuntimeError, match="unexpected"):
        load_task_tensors(make_task(), saved)


def test_frozen_weights_are_not_in_checkpoints_and_stay_as_they_are(tmp_path: Path) -> None:
    def frozen_task(seed: int) -> DistillTask:
        task = make_task(pull=0.1)
        student = cast(ToyEncoder, task.student)
        student.image_tower.requires_grad_(False)
        torch.manual_seed(seed)
        for parameter in task.parameters():
            nn.init.normal_(parameter)
        return task

    task, other = frozen_task(1), frozen_task(2)
    before = {name: x.clone() for name, x in other.state_dict().items()}
    Checkpoints(tmp_path).save(task, make_optimizer(task, SETTINGS), Progress(3, 1.0, []))
    (file,) = tmp_path.rglob(file_of(0))
    assert not [name for name in load_file(file) if "image_tower" in name]
    assert Checkpoints(tmp_path).restore(other, make_optimizer(other, SETTINGS)) == Progress(3, 1.0, [])
    for name, x in other.state_dict().items():
        assert torch.equal(x, before[name] if "image_tower" in name else task.state_dict()[name]), name


def test_a_run_that_the_disk_cannot_hold_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least a checkpoint and the version, usually three checkpoints; those of an interrupted run are there."""
    task, heard, checkpoints = make_task(), Heard(), Checkpoints(tmp_path / "run")
    size, version = checkpoint_bytes(task, averaged=False), changing_bytes(task)
    assert version == sum(tensor.nbytes for tensor in changing_tensors(task).values())

    def with_free(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        checkpoints.require_space(task, averaged=False, reporter=heard)

    with raises_error("KD-DIST-096", code=ExitCode.MISSING):
        with_free(size + version + SPARE_BYTES - 1)
    with_free((KEEP + 1) * size + version + SPARE_BYTES)
    assert heard.warnings == []
    with_free(size + version + SPARE_BYTES)
    assert len(heard.warnings) == 1
    saved(tmp_path / "run", 1, 2)
    with_free((KEEP + 1) * size + version + SPARE_BYTES - 1)
    assert len(heard.warnings) == 1
