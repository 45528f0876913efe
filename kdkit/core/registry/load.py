"""``registry.yaml`` -> :class:`Registry`, every complaint with its line."""

from __future__ import annotations

from pathlib import Path

from kdkit.core.errors import ExitCode, KdkitError
from kdkit.core.registry.schema import Registry
from kdkit.core.yaml_model import read_model


def load_registry(path: Path) -> Registry:
    """Read and check a registry.

    Raises:
        KdkitError: the file is missing, not UTF-8, not YAML, or holds something that the schema does not
            know; with ``registry.yaml:LINE`` and what was probably meant.
    """
    return check_registry(read_text(path), path.name)


def check_registry(text: str, name: str = "registry.yaml") -> Registry:
    """The registry that ``text`` means. Raises: as :func:`load_registry`."""
    return read_model(Registry, text, name)[0]


def entry_lines(path: Path) -> dict[str, str]:
    """Teacher -> ``registry.yaml:LINE`` of its entry."""
    registry, located = read_model(Registry, read_text(path), path.name)
    return {name: located.where(("teachers", name)) for name in registry.teachers}


def read_text(path: Path) -> str:
    """The text of ``path`` with its own line endings.

    Raises:
        KdkitError: no such file, or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise KdkitError(
            "no such file", where=str(path), fix="run 'kdkit init' to make one", code=ExitCode.MISSING
        ) from None
    except UnicodeDecodeError as error:
        raise KdkitError("not a UTF-8 text file", where=path.name, why=str(error)) from None
