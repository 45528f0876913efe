"""Known domains in which a new teacher has something to teach: it is better there than the student's last version."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kdkit.core.contracts import TrustTable
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.types import PlannedTeacher
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.project.versions import EVALUATION, Version


def better_teachers(
    inventory: TeachingInventory, teachers: Sequence[PlannedTeacher], parent: Version | None
) -> dict[str, tuple[str, ...]]:
    """Known domain -> the new teachers that are better there than the parent, on calibration samples.

    Better means: significantly. Without an evaluation of the parent (a pulled student), or of the
    teachers by labels, none is.
    """
    if parent is None or EVALUATION not in parent.manifest.files or inventory.trust.by != "label":
        return {}
    student, found = Evaluation.load(parent.file(EVALUATION)).of_role("student"), dict[str, tuple[str, ...]]()
    for place, domain in enumerate(inventory.trust.domains):
        score = student[0].domains.get(domain) if student else None
        known = score.metrics.get("accuracy") if score else None
        if score is None or known is None or domain not in parent.lineage.data.known:
            continue
        names = [
            teacher.name
            for teacher in teachers
            if teacher.new
            and domain in teacher.admitted
            and _exceeds(inventory.trust, teacher.name, place, known, score.count)
        ]
        if names:
            found[domain] = tuple(names)
    return found


def _exceeds(trust: TrustTable, teacher: str, domain: int, accuracy: float, count: int) -> bool:
    """Whether the 95 % interval of the difference of two proportions lies above 0 (Agresti and Caffo, 2000)."""
    own, counted = float(trust.accuracy[trust.teachers.index(teacher), domain]), int(trust.count[domain])
    a, b = (own * counted + 1) / (counted + 2), (accuracy * count + 1) / (count + 2)
    return a - b > 1.96 * math.sqrt(a * (1 - a) / (counted + 2) + b * (1 - b) / (count + 2))
