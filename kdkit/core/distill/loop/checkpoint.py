"""Checkpoints of a run: safetensors and JSON, written atomically.

No random state is saved: batches are a function of (seed, step), and the loop seeds torch at every step. Restoring
parameters and optimizer therefore continues bit for bit (on a CPU).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kdkit.core.base.atomic import new_folder
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.result import format_size
from kdkit.core.base.tensors import read_tensors
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.distill.loop.sharding import full_tensor, sharded_like

KEEP = 2
"""Checkpoints in a run's folder: a damaged newest one leaves the one before."""
SPARE_BYTES = 64 * 2**20
"""Of the disk that a run leaves free, for its log, reports and small files."""


@dataclass(frozen=True)
class Progress:
    """Steps done, seconds of training, the loss curve so far, and what the ranks did (not part of a checkpoint)."""

    step: int
    seconds: float
    log: list[dict[str, float]]
    strategy: str = ""


class Checkpoints:
    """The checkpoints in a run's folder, newest last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def save(
        self,
        task: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        average: nn.Module | None = None,
        *,
        write: bool = True,
    ) -> None:
        """Write a checkpoint, with the moving average of the weights if there is one; keep the newest two.

        Sharded weights are gathered: all ranks call it, and only the one with ``write`` gets and writes them.
        """
        tensors = {"task": changing_tensors(task), "optimizer": _flatten(optimizer)}
        if average is not None:
            tensors["average"] = changing_tensors(average)
        if not write:
            return
        with new_folder(self.folder / f"step-{progress.step:08d}", replace=True) as draft:
            for name, part in tensors.items():
                save_file(part, draft / f"{name}.safetensors")
            body = {"step": progress.step, "seconds": progress.seconds, "log": progress.log}
            (draft / "progress.json").write_text(json.dumps(body), encoding="utf-8")
        for old in self._all()[:-KEEP]:
            shutil.rmtree(old)

    def require_space(self, task: nn.Module, *, averaged: bool, reporter: Reporter) -> None:
        """Check, before hours are spent, that the disk takes the checkpoints and a version.

        A disk that takes one checkpoint and the version but no more is a warning.

        Raises:
            KdkitError: not even these fit.
        """
        size, version = checkpoint_bytes(task, averaged=averaged), changing_bytes(task)
        here = sum(file.stat().st_size for old in self._all() for file in old.iterdir())
        folder = self.folder.absolute()
        place = next(path for path in (folder, *folder.parents) if path.is_dir())
        free = shutil.disk_usage(place).free
        least, usual = size + version, max(size, (KEEP + 1) * size - here) + version
        if free < least + SPARE_BYTES:
            raise KdkitError(
                "KD-DIST-096",
                f"the run needs {format_size(least)} on disk at least, and {format_size(SPARE_BYTES)} must stay free; "
                f"{format_size(free)} are free",
                where=str(folder),
                why=f"a checkpoint takes {format_size(size)}, the version {format_size(version)}",
                fix=f"free {format_size(least + SPARE_BYTES - free)} and run the command again",
                code=ExitCode.MISSING,
            )
        if free < usual + SPARE_BYTES:
            reporter.warn(space_warning(folder, usual, free))

    def restore(
        self,
        task: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: nn.Module | None = None,
        reporter: Reporter | None = None,
    ) -> Progress | None:
        """Load the newest checkpoint that can be read; None if there is none.

        Raises:
            KdkitError: no checkpoint can be read, or it belongs to another task.
        """
        folders = self._all()[::-1]
        for folder, before in zip_longest(folders, folders[1:]):
            try:
                task_state, optimizer_state, average_state, progress = _read(folder, average=average is not None)
            except (KdkitError, OSError, ValueError, TypeError) as error:
                if before is None:
                    raise _unusable(folder, error) from None
                (reporter or Silent()).warn(f"{folder} is damaged ({_reason(error)}); continuing from {before.name}")
                continue
            try:
                load_task_tensors(task, task_state)
                _unflatten(optimizer, optimizer_state)
                if average is not None:
                    load_task_tensors(average, average_state)
            except (KeyError, RuntimeError, ValueError) as error:
                raise _unusable(folder, error) from None
            return progress
        return None


def space_warning(where: Path, needed: int, free: int) -> str:
    """The message for a run that may fill the disk."""
    return (
        f"{where}: the run needs about {format_size(needed)} on disk, and {format_size(SPARE_BYTES)} must stay free; "
        f"{format_size(free)} are free: free some space before it starts"
    )


def _read(folder: Path, *, average: bool) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], Progress]:
    """Everything of one checkpoint, before anything is changed by it."""
    return (
        read_tensors(folder / "task.safetensors"),
        read_tensors(folder / "optimizer.safetensors"),
        read_tensors(folder / "average.safetensors") if average else {},
        Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8"))),
    )


def _unusable(folder: Path, error: Exception) -> KdkitError:
    return KdkitError(
        "KD-DIST-015",
        "this checkpoint cannot be continued",
        where=str(folder),
        why=_reason(error),
        fix="start again with 'kdkit distill --restart'",
        code=ExitCode.MISSING,
    )


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def task_tensors(task: nn.Module) -> dict[str, Tensor]:
    """The state dict for safetensors: contiguous, on the CPU, shared tensors once."""
    out: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in task.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            out[name] = full_tensor(tensor).contiguous()
    return out


def changing_tensors(task: nn.Module) -> dict[str, Tensor]:
    """:func:`task_tensors` without the student's frozen weights, which its source files hold (with adapters, nearly
    all weights)."""
    frozen = _frozen(task)
    return {name: x for name, x in task_tensors(task).items() if name not in frozen}


def checkpoint_bytes(task: nn.Module, *, averaged: bool) -> int:
    """Tensors of one checkpoint: what changes, its moving average, and the optimizer's two moments.

    Example:
        >>> task = nn.ModuleDict({"student": nn.Linear(10, 10, bias=False)})
        >>> checkpoint_bytes(task, averaged=False), checkpoint_bytes(task.requires_grad_(False), averaged=True)
        (1200, 0)
    """
    return (1 + averaged) * changing_bytes(task) + 2 * trained_bytes(task)


def trained_bytes(task: nn.Module) -> int:
    """Bytes of the parameters that are trained."""
    return sum(p.numel() * p.element_size() for p in task.parameters() if p.requires_grad)


def changing_bytes(task: nn.Module) -> int:
    """Of :func:`changing_tensors`, without copying them."""
    frozen = _frozen(task)
    tensors = {id(x): x.nbytes for name, x in task.state_dict(keep_vars=True).items() if name not in frozen}
    return sum(tensors.values())


def _frozen(task: nn.Module) -> set[str]:
    named = task.named_parameters(remove_duplicate=False)
    return {name for name, x in named if not x.requires_grad and ".student." in f".{name}"}


def load_task_tensors(task: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of :func:`task_tensors` and :func:`changing_tensors`. Raises RuntimeError if names or shapes differ."""
    state = task.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    aliases = {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
    kept = {name: state[name] for name in _frozen(task)}
    given = {name: sharded_like(tensors[aliases[name]], x) for name, x in state.items() if aliases[name] in tensors}
    task.load_state_dict(kept | given)
    extra = set(tensors) - set(state)
    if extra:
        raise RuntimeError(f"unexpected tensors: {', '.join(sorted(extra)[:3])}")


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{number}/{key}": full_tensor(torch.as_tensor(value)).contiguous()
        for number, values in state.items()
        for key, value in values.items()
    }


def _unflatten(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        number, key = name.split("/")
        state.setdefault(int(number), {})[key] = sharded_like(tensor, parameters[int(number)])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
