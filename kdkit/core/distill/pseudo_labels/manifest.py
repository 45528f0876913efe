"""Manifests about a project's own samples with other texts; the source ``jsonl`` reads them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdkit.core.contracts import ImageLocation, ImageRef, Sample
from kdkit.core.data.locations import file_of, further_images_of, images_of


class Manifest:
    """A manifest of samples.

    Args:
        path: of the JSON Lines file.
        project: the project's folder.
        samples: all samples of the project.

    Attributes:
        file: relative to the project.
        image_root: relative to the file: a folder that all images are below, the project itself if possible.
    """

    def __init__(self, path: Path, project: Path, samples: Sequence[Sample]) -> None:
        project = project.resolve()
        folders = [os.path.realpath(file_of(ref).parent) for sample in samples for ref in images_of(sample)]
        self._root = Path(os.path.commonpath([project, *folders]))
        self.file = os.path.relpath(path.resolve(), project)
        self.image_root = os.path.relpath(self._root, path.resolve().parent)

    def row(self, sample: Sample, suffix: str, text: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        """The sample with the id ``ID#suffix``, another text and more ``extra``."""
        extra = {**sample.extra, **extra}
        if "images" in extra:
            extra["images"] = [self._place(ref) for ref in further_images_of(sample)]
        row = {
            "id": f"{sample.id}#{suffix}",
            "image": self._place(sample.image),
            "text": text,
            "domain": sample.domain,
            "split": sample.split,
        }
        return {**row, **({"label": sample.label} if sample.label else {}), "extra": extra}

    def _place(self, ref: ImageRef) -> str | dict[str, Any]:
        """The path of an image file, or the object that the source ``jsonl`` reads as an :class:`ImageLocation`."""
        file = self._relative(file_of(ref))
        if isinstance(ref, ImageLocation):
            return {"reader": ref.reader, "file": file, "at": list(ref.at), "name": ref.name}
        return file

    def _relative(self, path: Path) -> str:
        """Links in the folder are resolved; the file keeps its name."""
        return os.path.relpath(Path(os.path.realpath(path.parent)) / path.name, self._root)


def data_entry(file: str, image_root: str) -> list[str]:
    """Lines for people: the entry of registry.yaml that reads a manifest."""
    entry = f"{{source: jsonl, path: {file}, options: {{image_root: {image_root}}}}}"
    return ["", "in registry.yaml, under data:", f"  - {entry}"]


def count_domains(samples: Iterable[Sample]) -> dict[str, int]:
    """Domain -> number of samples, sorted."""
    return dict(sorted(Counter(sample.domain for sample in samples).items()))
