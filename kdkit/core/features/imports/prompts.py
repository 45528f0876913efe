"""Features of prompts: read from a file, compared with those of an earlier import, and which are missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import TEXT
from kdkit.core.data.prompts import project_prompts
from kdkit.core.features.imports.check import CheckedRows, check_rows, first_ids
from kdkit.core.features.imports.open import open_rows
from kdkit.core.features.imports.rows import ReadOptions, unreadable
from kdkit.core.features.store.column import Column

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project


def read_prompts(path: Path | None, widths: Mapping[str, int]) -> dict[str, NDArray[np.float32]]:
    """Prompt -> (D,), from a file of the same formats whose ids are the prompts."""
    if path is None:
        return {}
    if path.suffix.lower() == ".npy":
        fix = "save 'ids' (the prompts) and 'text' with numpy.savez, or make a folder of ids.txt and text.npy"
        raise unreadable(str(path), "a .npy file does not say which prompts it holds", fix)
    rows = open_rows([path], ReadOptions())
    checked = check_rows(rows, "float32", str(path))
    width = next(iter(widths.values()))
    if set(checked.widths.values()) != {width}:
        raise KdkitError(
            "KD-FEAT-032",
            "the prompts have another width than the features",
            where=str(path),
            why=f"{next(iter(checked.widths.values()))} and {width}",
            fix="give the vectors of the same model's text tower",
        )
    signal = TEXT if TEXT in checked.widths else next(iter(checked.widths))
    return {
        id_: np.asarray(row, np.float32)
        for part in rows.parts()
        for id_, row in zip(part.ids, part.values[signal], strict=True)
    }


def new_prompts(
    column: Column | None, prompts: Mapping[str, NDArray[np.float32]], *, replace: bool, where: str
) -> dict[str, NDArray[np.float32]]:
    """Prompts whose features the column lacks, or has otherwise.

    Raises:
        KdkitError: the column has other features of a prompt, and these are not to be replaced.
    """
    stored = column.texts if column else {}
    others = [text for text in prompts if text in stored and not np.array_equal(stored[text], prompts[text])]
    if others and not replace:
        raise KdkitError(
            "KD-FEAT-034",
            f"other features of {len(others)} prompts were imported before",
            where=where,
            why=first_ids(others),
            fix="replace them: --replace",
            code=ExitCode.FOUND,
        )
    return {text: row for text, row in prompts.items() if text not in stored or text in others}


def missing_prompts(
    project: Project, index: SampleIndex, column: Column | None, checked: CheckedRows, prompts: Mapping[str, Any]
) -> tuple[str, ...]:
    """Prompts that zero-shot classification needs and the teacher lacks; none without text vectors."""
    if TEXT not in checked.widths:
        return ()
    known = {*prompts, *(column.texts if column else ())}
    return tuple(text for text in project_prompts(project.registry, index) if text not in known)
