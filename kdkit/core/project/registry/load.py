"""``registry.yaml`` -> :class:`Registry`; errors name the line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.yaml_model import read_model
from kdkit.core.project.registry.schema import Registry


def load_registry(path: Path) -> Registry:
    """Read and check a registry.

    Raises:
        KdkitError: the file is missing, not UTF-8, not YAML, or does not match the schema; with
            ``registry.yaml:LINE`` and the closest known key.
    """
    return check_registry(read_text(path), path.name)


def check_registry(text: str, name: str = "registry.yaml") -> Registry:
    """Parse ``text``. Raises: as :func:`load_registry`."""
    return read_model(Registry, text, name)[0]


def line_of(path: Path, *place: str | int) -> str:
    """``registry.yaml:LINE`` of the value at ``place`` (keys and indices from the top)."""
    return read_model(Registry, read_text(path), path.name)[1].where(place)


@contextmanager
def placed(path: Path, *place: str | int) -> Iterator[None]:
    """Add the registry line to errors that carry no location."""
    try:
        yield
    except KdkitError as error:
        if error.where:
            raise
        raise error.at(line_of(path, *place)) from error


def read_text(path: Path) -> str:
    """The text of ``path`` with its own line endings.

    Raises:
        KdkitError: no such file, or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise KdkitError(
            "KD-REG-010", "no such file", where=str(path), fix="run 'kdkit init' to make one", code=ExitCode.MISSING
        ) from None
    except UnicodeDecodeError as error:
        raise KdkitError(
            "KD-REG-011", "not a UTF-8 text file", where=path.name, why=str(error), fix="save it as UTF-8"
        ) from None
