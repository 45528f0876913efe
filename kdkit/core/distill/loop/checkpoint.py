"""Checkpoints of a run: safetensors and JSON, written whole or not at all.

Nothing random needs to be saved: batches are a function of (seed, step) and the generators are seeded anew
at every step. Restoring the parameters and the optimizer therefore continues bit for bit (on a CPU).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdkit.core.base.atomic import new_folder
from kdkit.core.base.errors import ExitCode, KdkitError

KEEP = 2


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int
    seconds: float
    log: list[dict[str, float]]


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
    ) -> None:
        """Write a checkpoint (and the moving average of the weights, if there is one); keep the newest two."""
        with new_folder(self.folder / f"step-{progress.step:08d}", replace=True) as draft:
            self._fill(draft, task, optimizer, progress, average)
        for old in self._all()[:-KEEP]:
            shutil.rmtree(old)

    @staticmethod
    def _fill(
        draft: Path,
        task: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        average: nn.Module | None,
    ) -> None:
        save_file(changing_tensors(task), draft / "task.safetensors")
        save_file(_flatten(optimizer), draft / "optimizer.safetensors")
        if average is not None:
            save_file(changing_tensors(average), draft / "average.safetensors")
        body = {"step": progress.step, "seconds": progress.seconds, "log": progress.log}
        (draft / "progress.json").write_text(json.dumps(body), encoding="utf-8")

    def restore(
        self, task: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
    ) -> Progress | None:
        """Load the newest checkpoint into what is given; None when there is none.

        Raises:
            KdkitError: when the checkpoint is of another task.
        """
        found = self._all()
        if not found:
            return None
        newest = found[-1]
        try:
            load_task_tensors(task, load_file(newest / "task.safetensors"))
            _unflatten(optimizer, load_file(newest / "optimizer.safetensors"))
            if average is not None:
                load_task_tensors(average, load_file(newest / "average.safetensors"))
            body = json.loads((newest / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise KdkitError(
                "KD-DIST-015",
                "this checkpoint cannot be continued",
                where=str(newest),
                why=str(error).splitlines()[0],
                fix="start again with 'kdkit distill --restart'",
                code=ExitCode.MISSING,
            ) from None
        return Progress(**body)


def task_tensors(task: nn.Module) -> dict[str, Tensor]:
    """The state dict as safetensors takes it: contiguous, on the CPU, tensors under several names once each."""
    out: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in task.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            out[name] = tensor.detach().cpu().contiguous()
    return out


def changing_tensors(task: nn.Module) -> dict[str, Tensor]:
    """:func:`task_tensors` without the student's frozen weights, which are where it was made from (under adapters,
    nearly all of it)."""
    frozen = _frozen(task)
    return {name: x for name, x in task_tensors(task).items() if name not in frozen}


def _frozen(task: nn.Module) -> set[str]:
    named = task.named_parameters(remove_duplicate=False)
    return {name for name, x in named if not x.requires_grad and ".student." in f".{name}"}


def load_task_tensors(task: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of :func:`task_tensors` and :func:`changing_tensors`. Raises RuntimeError when names or shapes differ."""
    state = task.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    aliases = {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
    kept = {name: state[name] for name in _frozen(task)}
    task.load_state_dict(kept | {name: tensors[aliases[name]] for name in state if aliases[name] in tensors})
    extra = set(tensors) - set(state)
    if extra:
        raise RuntimeError(f"unexpected tensors: {', '.join(sorted(extra)[:3])}")


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{number}/{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for number, values in state.items()
        for key, value in values.items()
    }


def _unflatten(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split("/")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
