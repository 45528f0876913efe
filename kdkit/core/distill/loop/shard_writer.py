"""Checkpoints of sharded weights, by torch.distributed.checkpoint: each rank writes its parts, in the background."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.storage import WriteResult

from kdkit.core.distill.loop.checkpoint_files import Progress, checksum, file_of, write_progress


def write_parts(folder: Path, state: dict[str, Tensor], progress: Progress, group: ProcessGroup) -> Future[None]:
    """Copy this rank's parts to its CPU memory, and start to write them; a collective call.

    The future of the main process ends when the checkpoint of all ranks has its name. If a rank fails, it raises
    ``CheckpointException`` on all.

    Args:
        group: for this alone, because a thread talks over it while the ranks train.
    """
    return cast("Future[None]", async_save(state, storage_writer=_Writer(folder, progress), process_group=group))


def draft_of(folder: Path) -> Path:
    """Where a checkpoint is until it is complete."""
    return folder.with_name(f".{folder.name}.draft")


class _Writer(HuggingFaceStorageWriter):
    """Writes without a copy in memory, and with checksums; the main process gives the finished folder its name."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder, self._draft, self._progress = folder, draft_of(folder), progress
        super().__init__(str(self._draft), save_distributed=True)  # its reader knows tensors that several files share

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Any:
        """This rank's file. Called by a background thread of each rank."""
        tensors: dict[str, Tensor] = {}
        offsets: dict[str, Any] = {}
        for item in plan.items:
            name, chunk = item.index.fqn, item.tensor_data
            assert chunk is not None  # everything in a checkpoint is a tensor
            tensors[name] = cast(Tensor, planner.resolve_data(item)).contiguous()
            offsets[name] = {"saved_offsets": list(chunk.chunk.offsets)}
        path = self._draft / file_of(cast(dict[str, int], plan.storage_data)["shard_index"] - 1)
        save_file(tensors, path, {"DCP_SHARDING_INFO": json.dumps(offsets), "format": "pt"})
        with path.open("rb") as file:
            os.fsync(file.fileno())
        written = WriteResult(MetadataIndex(path.name), path.stat().st_size, checksum(path))
        future: torch.futures.Future[list[WriteResult]] = torch.futures.Future()
        future.set_result([written])
        return future

    def finish(self, metadata: Metadata, results: Sequence[Sequence[WriteResult]]) -> None:  # noqa: ARG002  # torch's signature
        """Called on the main process, when all ranks have written."""
        files = {part.index.fqn: cast(str, part.storage_data) for parts in results for part in parts}
        for name in files:
            if not (self._draft / name).is_file():
                raise FileNotFoundError(f"{self._draft / name}, which another process wrote, is not here")
        write_progress(self._draft, self._progress, files)
        shutil.rmtree(self._folder, ignore_errors=True)
        os.replace(self._draft, self._folder)
