"""Converts weights from pickles, which are read without running code, to safetensors."""

from __future__ import annotations

from pathlib import Path

from kdkit.core.base.checkpoints import read_weights
from kdkit.core.base.hashes import sha256_of
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.project.registry.lock import MadeFrom
from kdkit.core.teachers.files import PICKLES, converted_name


def convert_pickles(folder: Path, where: str, reporter: Reporter | None = None) -> dict[str, MadeFrom]:
    """Replace each pickle under ``folder`` by safetensors; returns new name -> original file.

    Raises:
        KdkitError: a pickle contains code, or no tensors.
    """
    from safetensors.torch import save_file

    reporter = reporter or Silent()
    made = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix in PICKLES):
        source = path.relative_to(folder).as_posix()
        target = converted_name(source)
        made[target] = MadeFrom(file=source, sha256=sha256_of(path))
        weights = read_weights(path, f"{where}: {source}")
        if weights.notes:
            reporter.say(f"{source}: {', '.join(weights.notes)}")
        # Tied weights share memory, which safetensors does not allow: each name gets its own copy.
        tensors = {name: value.detach().clone().contiguous() for name, value in weights.tensors.items()}
        save_file(tensors, folder / target)
        path.unlink()
    return made
