"""What a lineage says of the student's own answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdkit.core.base.json_record import JsonRecord


@dataclass(frozen=True)
class OnPolicyRecord(JsonRecord):
    """Own answers of the student that it learned from; the recipe has their settings.

    Attributes:
        teachers: that gave their distributions along own answers -> how many, about.
        answers: own answers, about.
        drawn: samples that batches drew in all.
    """

    teachers: Mapping[str, int]
    answers: int
    drawn: int
