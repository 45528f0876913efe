"""Rows of a manifest that is made of a project's samples: source ``jsonl`` reads them again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project

LONGEST_ROW = 2**24
"""Bytes of a file's first row that are looked at."""


def image_root(project: Project, table: SampleIndex) -> Path:
    """The folder that all images of the project are below: the project itself, if it can be."""
    root = project.root.resolve()
    folders = [os.path.realpath(sample.image.parent) for sample in table.samples]
    folders += [os.path.realpath(Path(p).parent) for s in table.samples for p in s.extra.get("images", ())]
    return Path(os.path.commonpath([root, *folders]))


def manifest_row(sample: Sample, id: str, text: str, about: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The sample with another text.

    Args:
        id: of the row.
        text: its answer.
        about: added to the sample's ``extra``.
        root: a folder that its images are below.
    """

    def below(path: Path | str) -> str:
        """The folder may lead through a link; the file's own name stays."""
        path = Path(path)
        return os.path.relpath(Path(os.path.realpath(path.parent)) / path.name, root)

    extra = {**sample.extra, **about}
    if "images" in extra:
        extra["images"] = [below(path) for path in extra["images"]]
    row = {"id": id, "image": below(sample.image), "text": text, "domain": sample.domain, "split": sample.split}
    return {**row, **({"label": sample.label} if sample.label else {}), "extra": extra}


def require_replaceable(to: Path, made_here: Callable[[Mapping[str, Any]], bool]) -> None:
    """Before hours of answers are made for ``to``: a place for a file, and no file of somebody else's.

    Args:
        made_here: whether a row is one that the command writes; an earlier file of such rows is replaced.

    Raises:
        KdkitError: a folder; a file whose first row is not of that kind.
    """
    if to.is_dir():
        raise KdkitError("KD-LABEL-011", "this is a folder", where=str(to), fix="--to FILE.jsonl")
    if not to.is_file():
        return
    with open(to, "rb") as file:
        line = file.readline(LONGEST_ROW)
    with suppress(ValueError, AttributeError, TypeError):
        if not line or made_here(json.loads(line)):
            return
    raise KdkitError(
        "KD-LABEL-012", "this file was not made by this command", where=str(to), fix="choose another --to, or remove it"
    )


def write_manifest(to: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace ``to`` by these rows, whole."""
    write_atomically(to, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def data_entry(file: str, root: str) -> str:
    """The line of ``registry.yaml``, under ``data``, that reads a manifest."""
    return f"- {{source: jsonl, path: {file}, options: {{image_root: {root}}}}}"


def count_domains(samples: Sequence[Sample]) -> dict[str, int]:
    """Domain -> how many of the samples, sorted."""
    domains = [sample.domain for sample in samples]
    return {domain: domains.count(domain) for domain in sorted(set(domains))}
