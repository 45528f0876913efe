"""The files of one checkpoint: tensors in safetensors, one file per writing rank, and ``progress.json``.

``progress.json`` has the step, the loss curve and the checksum of every file. It is written last, and the folder gets
its name after that, so a folder with a name is complete.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from kdkit.core.base.atomic import new_folder
from kdkit.core.base.tensors import read_header
from kdkit.core.distill.loop.sharding import is_part

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

PROGRESS = "progress.json"
_BLOCK = 2**22


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: steps done, those that were skipped included.
        seconds: of training.
        log: the loss curve so far.
        strategy: what the ranks did; not part of a checkpoint.
        skipped: steps that changed nothing, because they were not finite; the last ``skipped_in_a_row`` followed one
            another, and ``skipped_steps`` are the first, as :class:`~kdkit.core.project.training_record.SkippedStep`.
    """

    step: int
    seconds: float
    log: list[dict[str, float]]
    strategy: str = ""
    skipped: int = 0
    skipped_in_a_row: int = 0
    skipped_steps: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The form of a checkpoint."""
        found = {"step": self.step, "seconds": self.seconds, "log": self.log}
        names = ("skipped", "skipped_in_a_row", "skipped_steps") if self.skipped else ()
        return found | {name: getattr(self, name) for name in names}


def file_of(rank: int) -> str:
    """The name of a rank's file."""
    return f"rank-{rank:05d}.safetensors"


def write_whole(folder: Path, state: Mapping[str, Tensor], progress: Progress) -> None:
    """Write a checkpoint of tensors that this rank has as a whole."""
    with new_folder(folder, replace=True) as draft:
        path = draft / file_of(0)
        save_file({name: x.cpu().contiguous() for name, x in state.items()}, path)
        write_progress(draft, progress, {path.name: checksum(path)})


def write_progress(folder: Path, progress: Progress, files: Mapping[str, str]) -> None:
    """Write ``progress.json``; ``files`` maps names to checksums."""
    body = {**progress.to_json(), "files": dict(files)}
    (folder / PROGRESS).write_text(json.dumps(body), encoding="utf-8")


def read_progress(folder: Path) -> tuple[Progress, dict[str, str]]:
    """Progress, and the checksum of each file. Raises OSError, ValueError, TypeError or KeyError if it is damaged."""
    body = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    files = dict(body.pop("files"))
    return Progress(**body), files


def find_damage(folder: Path, rank: int, world: int) -> str:
    """What is wrong with this rank's share of a checkpoint's files; empty if nothing is. All shares are all files."""
    try:
        _, files = read_progress(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{PROGRESS}: {error.strerror if isinstance(error, OSError) else error}"
    for name in [name for name in files if not (folder / name).is_file()]:
        return f"{name} is missing; the checkpoint is in {len(files)} files, and all are needed"
    for name in sorted(files)[rank::world]:
        try:
            found = checksum(folder / name)
        except OSError as error:
            return f"{name}: {error.strerror}"
        if found != files[name]:
            return f"{name} has another checksum than when it was written"
    return ""


def checksum(path: Path) -> str:
    """BLAKE2b of a file's content."""
    state = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def shapes_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a checkpoint's tensors, each as a whole; of sharded ones, the farthest end of their parts."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _tensor_files(folder):
        header = read_header(path)
        offsets = json.loads(header.metadata.get("DCP_SHARDING_INFO", "{}"))
        for name, shape in header.shapes.items():
            start: Sequence[int] = offsets[name]["saved_offsets"] if name in offsets else (0,) * len(shape)
            end = tuple(a + b for a, b in zip(start, shape, strict=True))
            shapes[name] = tuple(map(max, end, shapes.get(name, end)))
    return shapes


def read_into(folder: Path, state: dict[str, Tensor], group: ProcessGroup | None) -> None:
    """Write a checkpoint's values over those of ``state``, each rank over its parts of sharded tensors.

    Args:
        group: of all ranks, if ``state`` is sharded.
    """
    paths = _tensor_files(folder)
    if len(paths) == 1 and not any(is_part(x) for x in state.values()):
        for name, x in load_file(paths[0]).items():
            if name in state:
                state[name].copy_(x)
        return
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader  # slow to import
    from torch.distributed.checkpoint.state_dict_loader import load

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # this rank reads alone
        reader = HuggingFaceStorageReader(str(folder))
        load(dict(state), storage_reader=reader, process_group=group, no_dist=group is None)


def _tensor_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("rank-*.safetensors"))
