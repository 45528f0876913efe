"""Whether a teacher's stored tokens are those of the text that the student is taught: boxes have many notations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import AS_IS, BOX_FAMILY, Sample, Student
from kdkit.core.distill.loop.dataloader import Teaching
from kdkit.core.features.extract.answers import TOKENS

if TYPE_CHECKING:
    from kdkit.core.distill.plan.inventory import Survey

COORDINATES = "boxes"
"""The part of a teacher's and a student's identity that says how they write the same box."""
BOXES = "boxes"
"""What ``Sample.extra`` holds where the answer has some."""


def require_same_coordinates(survey: Survey, teachings: Sequence[Teaching], student: Student) -> None:
    """Refuse stored tokens of answers with boxes that the student would write in other coordinates.

    Raises:
        KdkitError: naming teacher, both coordinates and a sample.
    """
    own = dict(student.identity()).get(COORDINATES)
    train = survey.samples("train")
    boxed = train[[bool(survey.table.samples[row].extra.get(BOXES)) for row in train]] if own else train[:0]
    for teaching in teachings:
        column = survey.columns.get(teaching.name)
        theirs = column.header.parts.get(COORDINATES) if column is not None else None
        if own is None or theirs is None or TOKENS not in {spec.name for spec in teaching.raw}:
            continue
        taught = [survey.table.samples[row] for row in boxed[teaching.weight[boxed] > 0]]
        others = [sample for sample in taught if _of(theirs, sample) != _of(own, sample)]
        if not others:
            continue
        example = others[0]
        raise KdkitError(
            "KD-DIST-031",
            f"teacher '{teaching.name}' stored what it says of answers whose boxes the student writes otherwise",
            where=example.origin,
            why=f"{len(others)} samples such as '{example.id}': the teacher's boxes are {theirs}, the student's {own}",
            fix="give the teacher the student's coordinates (its option boxes, with min_pixels and max_pixels "
            "where they are pixels), or other domains ('domains' of its entry); its pseudo-labels are translated",
            code=ExitCode.FOUND,
        )


def _of(coordinates: str, sample: Sample) -> str:
    """Of those who take texts as they are, the sample's own."""
    return str(sample.extra.get(BOX_FAMILY, coordinates)) if coordinates == AS_IS else coordinates
