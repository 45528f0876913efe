"""What the rest of publishing knows about a kind of student: ``dual_encoder`` and ``answering`` make it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdkit.core.contracts import PinnedBase


@dataclass(frozen=True)
class StudentForm:
    """A student in a release, proved to give what the version gives.

    Attributes:
        kind: what it is, for people; begins a sentence.
        task: what its figures measure, for people.
        library, pipeline, tags: the Hub's ``library_name``, ``pipeline_tag`` and ``tags``.
        summary: one line about its size.
        names: the student's own files, at the top of the release.
        text_tower: the name that the config of a Hugging Face text tower came under; None without one.
        lines: library -> the lines that load and use it; they were run.
        checks: library -> differences from the version, or ``{"missing": why}``; see the record.
        environment: versions of the libraries that the lines were run with.
        compared: what was found equal, for people.
        taught, judged: a training sample, and what figures are counted in, for people.
        needs: distributions that the lines import besides the library.
        notes: what a reader of the card must know, each a paragraph.
        base: the model that adapters belong to; None for whole weights.
    """

    kind: str
    task: str
    library: str
    pipeline: str
    tags: tuple[str, ...]
    summary: str
    names: tuple[str, ...]
    text_tower: str | None
    lines: Mapping[str, str]
    checks: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str]
    compared: str = "features"
    taught: str = "image-text pair"
    judged: str = "images"
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    base: PinnedBase | None = None
