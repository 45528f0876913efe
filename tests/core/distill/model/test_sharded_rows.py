"""Rows that processes make together: each its share, the same as one process alone, all of them there for all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from kdkit.core.distill.model.sharded_rows import ShardedRows, compute_sharded_rows
from tests.errors import raises_error
from tests.ranks import run_ranks

SIZE, COUNT, WORLD = 4, 22, 2
"""Six groups, the last one shorter."""


class Maker:
    """Rows that depend on the group that they are made in, as those of a model do in their last bits."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.told: list[tuple[int, int]] = []

    def rows(self, indices: np.ndarray[Any, Any]) -> Mapping[str, np.ndarray[Any, Any]]:
        self.asked.append(indices.tolist())
        near = indices[:, None] + np.arange(3) + 0.001 * indices[0]
        return {"ids": np.stack([indices, -indices], 1).astype(np.int32), "near": near.astype(np.float16)}

    def progress(self, done: int, total: int) -> None:
        self.told.append((done, total))


def made(folder: Path, count: int = COUNT) -> tuple[ShardedRows, Maker]:
    maker = Maker()
    return compute_sharded_rows(folder, np.arange(count) * 10, maker.rows, size=SIZE, progress=maker.progress), maker


def test_rows_come_back_as_they_were_made(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "rows-0-of-2.npy").write_bytes(b"what a killed run of two processes left")
    files, maker = made(tmp_path / "rows")
    assert [len(group) for group in maker.asked] == [4, 4, 4, 4, 4, 2]
    assert maker.told == [(0, 22), (4, 22), (8, 22), (12, 22), (16, 22), (20, 22), (22, 22)]
    wanted = np.array([21, 0, 5, 5, 16])
    ids, near = files.gather("ids", wanted), files.gather("near", wanted)
    assert (ids.dtype, ids.tolist()) == (np.int32, [[10 * row, -10 * row] for row in wanted])
    assert (near.dtype, near.shape) == (np.float16, (5, 3))
    assert files.shape("near") == (3,)
    assert files.gather("near", wanted[:0]).shape == (0, 3)
    again, idle = made(tmp_path / "rows")
    assert idle.asked == []
    assert np.array_equal(again.gather("near", wanted), near)


def test_processes_need_a_common_disk(tmp_path: Path) -> None:
    made(tmp_path / "rows")
    with raises_error("KD-DIST-026") as caught:
        ShardedRows([tmp_path / "rows" / f"rows-{rank}-of-1.npy" for rank in (0, 1)], SIZE, WORLD)
    assert caught.value.where.endswith("rows-1-of-1.npy")


def _worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/barrier", rank=rank, world_size=WORLD)
    found = {}
    for count in (COUNT, SIZE):
        files, maker = made(Path(folder) / "rows", count)
        found[count] = [files.gather("near", np.arange(count)).tolist(), maker.asked]
        dist.barrier()
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


def test_processes_share_the_work_and_have_the_rows_of_one(tmp_path: Path) -> None:
    run_ranks(_worker, str(tmp_path), world=WORLD)
    for count in (COUNT, SIZE):  # of one group the second process makes nothing
        alone, maker = made(tmp_path / "alone", count)
        expected = alone.gather("near", np.arange(count)).tolist()
        told = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(WORLD)]
        assert [rows for rows, _ in (part[str(count)] for part in told)] == [expected] * WORLD
        assert [asked for _, asked in (part[str(count)] for part in told)] == [
            maker.asked[rank::WORLD] for rank in range(WORLD)
        ]
