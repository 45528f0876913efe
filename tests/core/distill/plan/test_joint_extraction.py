"""Two processes of a run extract together: the bytes of one, and if one of them ends, the other one says so."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from kdkit.core.base import locks
from kdkit.core.base.locks import is_alive
from kdkit.core.contracts import Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan import joint_extraction
from kdkit.core.distill.prepare import prepare
from kdkit.core.features.extract import missing, workers
from kdkit.core.features.extract.workers import read_records
from kdkit.core.features.store.shard import Shard
from tests.errors import raises_error
from tests.ranks import run_ranks
from tests.toy_project import make_project, open_project
from tests.toys import ToyEncoder

Hook = Callable[[int], float | None]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    make_project(folder / "whole", teachers={"radio": ("ct",), "scan": ("mri",)}, domains=("ct", "mri"))
    for name in ("joint", "unlocked", "failing", "killed"):
        shutil.copytree(folder / "whole", folder / name)
    run_ranks(_rank, str(folder), world=2)
    return folder


def test_two_processes_store_what_one_does(root: Path) -> None:
    assert all(int((root / f"rows-{rank}").read_text()) for rank in range(2))
    assert _features(root / "joint") == _features(root / "whole")


def test_without_locks_the_first_process_works_alone(root: Path) -> None:
    assert _features(root / "unlocked") == _features(root / "whole")
    assert (root / "waited").exists()


def test_damage_that_no_teacher_repairs_is_seen_by_all(root: Path) -> None:
    plans = [(root / f"plan-{rank}").read_text() for rank in range(2)]
    assert plans[0] == plans[1]


def test_the_other_one_ends_with_the_error(root: Path) -> None:
    assert (root / "failing-said").exists()
    assert (root / "killed-said").exists()


def _features(project: Path) -> dict[str, bytes]:
    folder = project / "features"
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(found) > 4
    return found


def _rank(rank: int, place: str) -> None:
    torch.set_num_threads(1)
    vars(workers)["_BEATS_EVERY"] = 0.0
    vars(joint_extraction)["BLOCK_ROWS"] = 32
    root = Path(place)
    if rank == 0:
        _prepare(root / "whole")
    compare = missing._checked
    if rank == 1:  # the first process compares the checksums of all blocks
        vars(missing)["_checked"] = None
    dist.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=2)

    def count(call: int) -> None:
        (root / f"rows-{rank}").write_text(str(call))
        while rank == 0 and call > 1 and not (root / "rows-1").exists():
            time.sleep(0.02)

    _prepare(root / "joint", count)
    _without_locks(rank, root)
    vars(missing)["_checked"] = compare
    _with_damage(rank, root)

    def wait_for_end(_: int) -> None:
        folder = root / "failing" / "features" / ".workers"
        while rank == 0 and not any(record.error for record in read_records(folder)):
            time.sleep(0.02)

    def nan(_: int) -> float:
        return torch.nan

    with raises_error("KD-FEAT-001" if rank else "KD-FEAT-630", mentions=("NaN",)):
        _prepare(root / "failing", nan if rank else wait_for_end)
    dist.barrier()
    (root / "failing-said").touch()
    (root / f"pid-{rank}").write_text(str(os.getpid()))

    def wait_for_death(_: int) -> None:
        while not (root / "pid-1").exists() or is_alive(int((root / "pid-1").read_text())):
            time.sleep(0.02)

    def die(_: int) -> None:
        os._exit(0)  # suddenly; a signal would end the test

    with raises_error("KD-FEAT-630", mentions=("killed",)):
        _prepare(root / "killed", die if rank else wait_for_death)
    (root / "killed-said").touch()
    os._exit(0)  # gloo's threads of a broken group abort a regular exit


def _with_damage(rank: int, root: Path) -> None:
    """A block is damaged, and its teacher is gone."""
    dist.barrier()
    project = root / "damaged"
    if rank == 0:
        shutil.copytree(root / "joint", project)
        shutil.rmtree(project / "models" / "radio")
        shutil.rmtree(project / ".kdkit" / "artifacts" / "radio")
        (path,) = (project / "features" / "radio").rglob("shard-0000.h5")
        start = Shard(path)._starts["image"]
        with open(path, "r+b") as file:
            file.seek(start)
            file.write(b"damage")
    dist.barrier()
    (root / f"plan-{rank}").write_text(_prepare(project))


def _prepare(project: Path, hook: Hook = lambda _: None) -> str:
    """As a run does; the hook is called before each batch of images, and may give a factor."""
    opened, calls, real = open_project(project), 0, ToyEncoder.encode_image

    def encode_image(model: ToyEncoder, pixels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return real(model, pixels) * (hook(calls) or 1.0)

    setattr(ToyEncoder, "encode_image", encode_image)  # noqa: B010
    try:
        with joint_extraction.main_process_first(opened, "cpu"):
            prepared = prepare(opened, Options(cpu=True), Silent())
            prepared.close()
            return repr(prepared.digests())
    finally:
        setattr(ToyEncoder, "encode_image", real)  # noqa: B010


def _without_locks(rank: int, root: Path) -> None:
    """The second process computes nothing, and prepares after the first one."""
    project, real = root / "unlocked", locks.try_lock
    vars(joint_extraction)["try_lock"] = lambda _: None

    def refuse(_: int) -> None:
        assert rank == 0

    _prepare(project, refuse)
    vars(joint_extraction)["try_lock"] = real
    (root / "waited").touch()
