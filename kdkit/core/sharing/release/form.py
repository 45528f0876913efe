"""A student in its published form: laid out by its family's publisher, and compared with the version."""

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
        task: what its figures measure; ``pipeline`` is the Hub's ``pipeline_tag`` for it.
        compared: what was found equal.
        taught, judged: a training sample; what figures are counted in.
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
    """A published student whose lines give what the version gives.

    Attributes:
        published: what the publisher made.
        wording: words for its kind.
        checks: library -> differences from the version, or ``{"missing": why}``; see the record.
        environment: versions of the libraries that the lines ran with.
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
    """Lay a saved student out in ``to`` as ``name`` will hold it, and run the lines of its card on that.

    Where the lines fail, the forms for all libraries but the main one are left out and the main one runs again.

    Args:
        student_folder: what ``Student.save`` wrote; ``load`` gives the student itself, in eval mode on the CPU.
        name: a repository, or ``to`` itself for a folder that is loaded by its path.
        merged: whole weights where the student has adapters.

    Raises:
        KdkitError: the family has no publisher; as the publisher and :func:`compare_with_stock`.
    """
    if not spec.publisher:
        raise KdkitError(
            "KD-REL-006",
            f"students of the family '{spec.name}' cannot be published or exported",
            where=str(student_folder),
            why="its StudentSpec names no publisher",
            fix="ask the author of its plugin for one: docs/reference/release.md",
        )
    publisher: Any = resolve(spec.publisher)
    published: Published = publisher(student_folder, to, name, merged=merged, skip={})
    student = load()
    wording = ENCODES if isinstance(student, DualEncoder) else ANSWERS
    try:
        reporter.say(_about(published, wording))
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


def _about(published: Published, wording: Wording) -> str:
    libraries, needs = " and ".join(published.lines), " and ".join(published.needs)
    return f"checking that stock {libraries}{' with ' * bool(needs)}{needs} computes the same {wording.compared}"
