"""Where the weights of an imported version come from: part of its lineage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdkit.core.base.json_record import JsonRecord


@dataclass(frozen=True)
class ImportRecord(JsonRecord):
    """Of a version that is the student's initial weights as they are, without training.

    Attributes:
        files: the files that the weights come from -> sha256. ``NAME/FILE`` of a model of the catalogue or a teacher,
            ``init/FILE`` (of a tower: ``init.image/FILE``) of a folder.
        seed: of parts that these files do not decide, such as a projection between two towers.
    """

    files: Mapping[str, str]
    seed: int
