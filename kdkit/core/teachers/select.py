"""Which files of a repository or folder make up a model; code and pickles beside safetensors never do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from kdkit.core.base.errors import KdkitError
from kdkit.core.project.registry.lock import safe_relative

DESCRIPTIONS = (".json", ".txt", ".model", ".vocab", ".md", ".yaml", ".yml")
PICKLES = (".bin", ".pt", ".pth")
KNOWN_PICKLES = ("open_clip_pytorch_model.bin", "pytorch_model.bin")
LEGAL = ("LICENSE", "LICENCE", "NOTICE", "COPYING")


def select_files(names: Iterable[str], where: str) -> list[str]:
    """The files to bring: descriptions, license texts, and weights (safetensors, else pickles).

    Args:
        names: relative POSIX paths; not trusted.
        where: the source, for messages.

    Raises:
        KdkitError: a path that leads outside, no file of a model at all, or several pickles of unknown names.
    """
    checked = _checked(names, where)
    chosen = [name for name in checked if is_description(name) or name.endswith(".safetensors")]
    if not any(name.endswith(".safetensors") for name in chosen):
        chosen += _pickles(checked, where)
    if all(is_license_or_card(name) for name in chosen):
        raise KdkitError(
            "KD-TEACH-017",
            "no model here",
            where=where,
            why="a model is made of .safetensors (or .bin, .pt) and .json files, and there is none",
        )
    return sorted(chosen)


def select_descriptions(names: Iterable[str], where: str) -> list[str]:
    """Configs and tokenizer files at the top, without weights. Raises: as :func:`select_files`."""
    return sorted(name for name in _checked(names, where) if is_description(name) and "/" not in name)


def is_description(name: str) -> bool:
    """Text about a model: configs, tokenizer files, cards, licenses."""
    return name.endswith(DESCRIPTIONS) or is_license_or_card(name)


def is_license_or_card(name: str) -> bool:
    """A text for people, which no loader reads."""
    return name.endswith(".md") or PurePosixPath(name).name.upper().startswith(LEGAL)


def _checked(names: Iterable[str], where: str) -> list[str]:
    visible = []
    for name in names:
        try:
            safe_relative(name)
        except ValueError as error:
            raise KdkitError(
                "KD-TEACH-018", "a file name that is not to be trusted", where=where, why=str(error)
            ) from None
        if not any(part.startswith(".") or part == "__pycache__" for part in PurePosixPath(name).parts):
            visible.append(name)
    return visible


def _pickles(names: list[str], where: str) -> list[str]:
    found = [name for name in names if name.endswith(PICKLES)]
    known = [name for name in found if PurePosixPath(name).name in KNOWN_PICKLES]
    if len(found) > 1 and not known:
        raise KdkitError(
            "KD-TEACH-019",
            "which of these files holds the weights?",
            where=where,
            why=", ".join(sorted(found)),
            fix="copy the right one, with its config, into a folder of its own and add that with local:DIR",
        )
    return known or found
