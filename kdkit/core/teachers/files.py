"""The files of a model: which belong to it, bringing them into a folder, and their hashes."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from kdkit.core.base.downloads import find_damage, find_missing_shards
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hashes import copy_hashed, sha256_of
from kdkit.core.project.registry.lock import FileFact, safe_relative

DESCRIPTIONS = (".json", ".jinja", ".txt", ".model", ".vocab", ".md", ".yaml", ".yml")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".tar")
USUAL_PICKLE = "pytorch_model.bin"
_TENSORS = ".safetensors"
_ARCHIVE = ".tar"
"""Holds weights only where no other file does; else data, such as images."""
_TRAINING = re.compile(r"training_args|optimizer|optim|scheduler|scaler|rng_state(_\d+)?|trainer_state")
"""Stems of pickles beside a model's that hold the state of its training."""
_SHARD = re.compile(r"-\d+-of-\d+$")
LEGAL = ("LICENSE", "LICENCE", "NOTICE", "COPYING")


def select_files(names: Iterable[str], where: str, weights: str | None = None) -> list[str]:
    """Select descriptions, license texts, and weights (safetensors, else pickles); never code.

    Args:
        names: relative POSIX paths; not trusted.
        where: the source, for messages.
        weights: the only file of weights to select, if the source has it: its own name, or that after conversion.

    Raises:
        KdkitError: a path leads outside, no file belongs to a model, ``weights`` is not there, or several pickles could
            be the weights.
    """
    visible = _visible(names, where)
    chosen = [name for name in visible if _is_description(name)]
    named = [name for name in visible if _is_weights(name) and weights in (name, converted_name(name))]
    if weights is not None and _is_weights(weights) and not named:
        raise _no_such_weights(weights, visible, where)
    whole = [name for name in visible if name.endswith(_TENSORS)]
    chosen += named[:1] or whole or _select_pickles(visible, where)
    if all(is_license_or_card(name) for name in chosen):
        raise KdkitError(
            "KD-TEACH-017",
            "no model files found",
            where=where,
            why="a model has .safetensors (or .bin, .pt) and .json files",
            fix="check the folder or the name of the repository",
        )
    return sorted(chosen)


def select_descriptions(names: Iterable[str], where: str) -> list[str]:
    """Select configs and tokenizer files at the top, without weights. Raises: as :func:`select_files`."""
    return sorted(name for name in _visible(names, where) if _is_description(name) and "/" not in name)


def is_license_or_card(name: str) -> bool:
    """Whether the file is a text for people, which no loader reads."""
    path = PurePosixPath(name)
    legal = path.name.upper().startswith(LEGAL) and re.fullmatch(r"\.(txt|md|rst|\d+)|", path.suffix.lower())
    return name.endswith(".md") or bool(legal)


def _is_description(name: str) -> bool:
    return name.endswith(DESCRIPTIONS) or is_license_or_card(name)


def _visible(names: Iterable[str], where: str) -> list[str]:
    """Names without hidden files and ``__pycache__``, each checked to stay inside its folder."""
    visible = []
    for name in names:
        try:
            safe_relative(name)
        except ValueError as error:
            raise KdkitError(
                "KD-TEACH-018",
                "unsafe file name",
                where=where,
                why=str(error),
                fix="use another source: these files may have been tampered with",
            ) from None
        if not any(part.startswith(".") or part == "__pycache__" for part in PurePosixPath(name).parts):
            visible.append(name)
    return visible


def converted_name(name: str) -> str:
    """What a file of weights is called after its conversion to safetensors, as libraries name it."""
    path = PurePosixPath(name)
    return str(path.with_name(path.stem.replace("pytorch_", "") + _TENSORS)) if path.suffix in PICKLES else name


def _is_weights(name: str) -> bool:
    return name.endswith((*PICKLES, _TENSORS))


def _select_pickles(names: list[str], where: str) -> list[str]:
    found = [name for name in names if name.endswith(PICKLES)]
    usual = [name for name in found if name.endswith(USUAL_PICKLE)]
    models = [name for name in found if not _TRAINING.fullmatch(PurePosixPath(name).stem)]
    models = [name for name in models if not name.endswith(_ARCHIVE)] or models
    if not usual and (shards := [name for name in models if _SHARD.search(PurePosixPath(name).stem)]):
        raise KdkitError(
            "KD-TEACH-046",
            "these weights are pickles in several parts, which kdkit does not read",
            where=where,
            why=", ".join(sorted(shards)[:8]),
            fix="ask for .safetensors, or load the model with its library and save it again (save_pretrained)",
        )
    if len(models) > 1 and not usual:
        raise KdkitError(
            "KD-TEACH-019",
            "several files could be the weights",
            where=where,
            why=", ".join(sorted(models)),
            fix=f"put one alone into a folder; or, if the loader has this option: --option weights={min(models)}",
        )
    return usual or models


def _no_such_weights(weights: str, names: list[str], where: str) -> KdkitError:
    there = sorted(name for name in names if _is_weights(name))
    near = (difflib.get_close_matches(weights, there, n=1, cutoff=0) or ["NAME"])[0]
    return KdkitError(
        "KD-TEACH-047",
        f"there are no weights '{weights}'",
        where=where,
        why=f"the files of weights are {', '.join(there[:8]) or 'none'}",
        fix=f"--option weights={near}, or leave the option out",
        code=ExitCode.MISSING,
    )


def list_folder(folder: Path, where: str) -> list[str]:
    """Relative POSIX paths of all regular files under ``folder``.

    Raises:
        KdkitError: a link leads outside (or to a folder), so its target may change or vanish.
    """
    root = folder.resolve()
    names = []
    for path in sorted(_walk(folder)):
        if path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(root)):
            raise KdkitError(
                "KD-TEACH-003",
                f"the link '{path.relative_to(folder)}' leads outside the folder",
                where=where,
                why=f"it points to {os.readlink(path)}",
                fix="put the file itself there; for a repository in the Hub's cache use hf:ORG/REPO with --offline",
            )
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
    return names


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent) / name for name in files)
        yield from (Path(parent) / name for name in folders if (Path(parent) / name).is_symlink())


def copy_file(name: str, source: Path, into: Path, *, link: bool) -> str | None:
    """Copy ``source/name`` to ``into/name`` with its times; with ``link``, as a hard link where possible.

    Link only files that are never changed in place, such as those of the Hub's cache.

    Returns:
        sha256 (hex) of a copy; None for a link, which was not read.
    """
    target = into / name
    target.parent.mkdir(parents=True, exist_ok=True)
    origin = (source / name).resolve()
    if link:
        try:
            os.link(origin, target)
        except OSError:  # another file system, or one without links
            pass
        else:
            return None
    return copy_hashed(origin, target)


def describe_files(folder: Path, hashed: Mapping[Path, str] = MappingProxyType({})) -> dict[str, FileFact]:
    """Size and hash of every file under ``folder``; ``hashed`` has hashes that are known already."""
    paths = {name: folder / name for name in list_folder(folder, str(folder))}
    return {
        name: FileFact(size=path.stat().st_size, sha256=hashed.get(path) or sha256_of(path))
        for name, path in paths.items()
    }


def require_whole(folder: Path, where: str) -> None:
    """Raises: KdkitError for a file that a failed or partial download left in place of the model's."""
    for name in list_folder(folder, where):
        damage = None if is_license_or_card(name) else find_damage(folder / name)
        if damage is not None:
            raise KdkitError(
                "KD-TEACH-025",
                f"this file of the model is {damage.what}",
                where=f"{where}: {name}",
                fix=damage.fix,
                code=ExitCode.MISSING,
            )
    if missing := find_missing_shards(folder):
        raise KdkitError(
            "KD-TEACH-150",
            f"the weights of the model are not complete: {missing[0]} is missing",
            where=where,
            why=f"the index of the weights names {len(missing)} files that are not there",
            fix="download the rest of the model",
            code=ExitCode.MISSING,
        )


def require_same_files(folder: Path, expected: Mapping[str, FileFact], where: str, fix: str) -> None:
    """Compare ``folder`` with ``expected``.

    Raises:
        KdkitError: the first file that differs, with both hashes.
    """
    present = set(list_folder(folder, str(folder)))
    for name in sorted(present | set(expected)):
        wanted = expected[name].sha256 if name in expected else "none"
        found = sha256_of(folder / name) if name in present else "missing"
        if found != wanted:
            raise KdkitError(
                "KD-TEACH-002",
                f"the file '{name}' changed since it was locked",
                where=where,
                why=f"registry.lock has sha256 {wanted}; the file has {found}",
                fix=fix,
            )
