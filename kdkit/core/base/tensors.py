"""Safetensors files: a missing or damaged one is one clear error, which names the file and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.downloads import find_damage
from kdkit.core.base.errors import ExitCode, KdkitError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

REMEDY = "restore the file from a copy, or run the command that wrote it again"


@dataclass(frozen=True)
class TensorHeader:
    """What a file says before its data: shapes by name, and metadata."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]

    @property
    def parameters(self) -> int:
        """Number of values of all tensors."""
        from math import prod

        return sum(prod(shape) for shape in self.shapes.values())


def read_tensors(path: Path, *, fix: str = REMEDY) -> dict[str, Tensor]:
    """Name -> tensor, on the CPU.

    Args:
        path: the file.
        fix: the remedy that the error names.

    Raises:
        KdkitError: missing, truncated, or not a safetensors file.
    """
    from safetensors.torch import load_file

    with _readable(path, fix):
        tensors: dict[str, Tensor] = load_file(path)
        return tensors


def read_array(path: Path, name: str, *, fix: str = REMEDY) -> np.ndarray[Any, Any]:
    """One tensor as a NumPy array. Raises: as :func:`read_tensors`, and where there is none of this name."""
    from safetensors import safe_open

    with _readable(path, fix), safe_open(path, framework="np") as file:
        array: np.ndarray[Any, Any] = file.get_tensor(name)
        return array


def read_header(path: Path, *, fix: str = REMEDY) -> TensorHeader:
    """Shapes and metadata; reads no tensor. Raises: as :func:`read_tensors`."""
    from safetensors import safe_open

    with _readable(path, fix), safe_open(path, framework="np") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
        return TensorHeader(shapes, dict(file.metadata() or {}))


def require_readable(folder: Path, *, fix: str = REMEDY) -> None:
    """Check the headers of a folder's files before a library reads them. Raises: as :func:`read_tensors`."""
    for path in sorted(folder.glob("*.safetensors")):
        read_header(path, fix=fix)


@contextmanager
def _readable(path: Path, fix: str) -> Iterator[None]:
    from safetensors import SafetensorError  # derives from Exception alone

    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        missing, damage = not path.exists(), find_damage(path) if path.is_file() else None
        what = f"this file is {damage.what}" if damage else "damaged, or not a safetensors file"
        raise KdkitError(
            "KD-BASE-040",
            "no such file" if missing else what,
            where=str(path),
            why="" if missing else " ".join(str(error).split()),
            fix=damage.fix if damage and fix == REMEDY else fix,
            code=ExitCode.MISSING,
        ) from error
