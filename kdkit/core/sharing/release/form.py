"""Publish a student with its family's publisher and compare the result with the version."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import DualEncoder, PinnedBase, Published, Reporter, StudentSpec
from kdkit.core.plugin_system.discovery import resolve
from kdkit.core.sharing.release.compare import compare_with_stock


@dataclass(frozen=True)
class Wording:
    """Words of the card for a kind of student.

    Attributes:
        task: name of the evaluated task; ``pipeline``: the Hub's ``pipeline_tag``.
        compared: outputs that are compared.
        taught, judged: name of a training sample; of evaluated items.
    """

    task: str
    pipeline: str
    compared: str
    taught: str
    judged: str


ENCODES = Wording("zero-shot classification", "zero-shot-image-classification", "features", "image-text pair", "images")
ANSWERS = Wording("answering", "image-text-to-text", "logits", "question-answer pair", "questions")


@dataclass(frozen=True)
class StudentForm:
    """A published student whose stock code reproduces the version.

    Attributes:
        published: result of the publisher.
        wording: words for its kind.
        checks: library -> differences from the version, or ``{"missing": why}``; see the record.
        environment: library versions of the check.
    """

    published: Published
    wording: Wording
    checks: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str]

    @property
    def lines(self) -> Mapping[str, str]:
        """Library -> the lines of the card."""
        return self.published.lines

    @property
    def base(self) -> PinnedBase | None:
        """The model that adapters belong to."""
        return self.published.base


def publish(
    spec: StudentSpec,
    student_folder: Path,
    load: Callable[[], Any],
    to: Path,
    name: str,
    reporter: Reporter,
    *,
    merged: bool = False,
) -> StudentForm:
    """Publish a saved student to ``to`` and run the code of its card on it.

    If the code gives other outputs, only the form for the main library is kept and checked again.

    Args:
        student_folder: written by ``Student.save``; ``load`` returns the student in eval mode on the CPU.
        name: a repository, or ``to`` itself for a folder that is loaded by its path.
        merged: merge adapters into whole weights.

    Raises:
        KdkitError: the family has no publisher; as the publisher and :func:`compare_with_stock`.
    """
    if not spec.publisher:
        raise KdkitError(
            "KD-REL-006",
            f"students of the family '{spec.name}' cannot be published or exported",
            where=str(student_folder),
            why="its StudentSpec names no publisher",
            fix="add a publisher to its plugin: docs/reference/release.md",
        )
    publisher: Any = resolve(spec.publisher)
    published: Published = publisher(student_folder, to, name, merged=merged, skip={})
    student = load()
    wording = ENCODES if isinstance(student, DualEncoder) else ANSWERS
    try:
        libraries, needs = " and ".join(published.lines), " and ".join(published.needs)
        stock = f"{libraries} with {needs}" if needs else libraries
        reporter.say(f"checking that stock {stock} computes the same {wording.compared}")
        compared = compare_with_stock(published, student, where=name, name=name, folder=to)
    except KdkitError as error:
        others = list(published.lines)[1:]
        if error.code != ExitCode.FOUND or not others:
            raise
        reporter.warn(f"{error.what} ({error.why}); trying without a form for {', '.join(others)}")
        shutil.rmtree(to)
        skip = dict.fromkeys(others, f"in it the {wording.compared} differ ({error.why})")
        published = publisher(student_folder, to, name, merged=merged, skip=skip)
        compared = compare_with_stock(published, student, where=name, name=name, folder=to)
    missing = {library: {"missing": why} for library, why in published.missing.items()}
    return StudentForm(published, wording, {**compared.checks, **missing}, compared.environment)
