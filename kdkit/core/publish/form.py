"""What the rest of publishing knows about a kind of student; ``dual_encoder`` makes it for dual encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StudentForm:
    """A student in a release, proved to give the version's features.

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
