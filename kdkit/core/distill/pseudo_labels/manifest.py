"""Rows of a manifest that is made of a project's samples: source ``jsonl`` reads them again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.contracts import Sample

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project


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


def data_entry(file: str, root: str) -> str:
    """The line of ``registry.yaml``, under ``data``, that reads a manifest."""
    return f"- {{source: jsonl, path: {file}, options: {{image_root: {root}}}}}"


def count_domains(samples: Sequence[Sample]) -> dict[str, int]:
    """Domain -> how many of the samples, sorted."""
    domains = [sample.domain for sample in samples]
    return {domain: domains.count(domain) for domain in sorted(set(domains))}
