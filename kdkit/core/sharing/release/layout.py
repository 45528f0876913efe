"""The layout of a release: names of its files, and its record ``kdkit.json``. ``push`` writes it, ``pull`` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Len

from kdkit.core.base.json_record import JsonRecord
from kdkit.core.project.lineage import History, Lineage, Origin
from kdkit.core.project.manifest import describe_folder
from kdkit.core.project.registry.lock import FileFact

RECORD = "kdkit.json"
"""sha256 and size of every other file but the card, the lineages, and the outcome of the checks."""
README = "README.md"
"""The card; people may edit it on the Hub."""
RESULTS = "eval/results.json"

KDKIT = "kdkit"
"""The folder with what ``pull`` needs beside the student."""
CARD = f"{KDKIT}/card.md"
"""The card as kdkit computed it; what differs in ``README.md`` was edited."""
TASK = f"{KDKIT}/task.safetensors"
SAMPLES = f"{KDKIT}/samples.safetensors"
REGISTRY = f"{KDKIT}/registry.yaml"
"""Without data; its student and teachers without paths; a recipe that was a file is ``./recipe.yaml``."""
LOCK = f"{KDKIT}/registry.lock"
RECIPE = f"{KDKIT}/recipe.yaml"
"""Only where the recipe was a file of the project."""

GATES = f"{KDKIT}/best-of-n"
"""A file per decision of ``kdkit best-of-n``; only where there are any."""


@dataclass(frozen=True)
class AdapterBase(JsonRecord):
    """The model that adapters belong to, on the Hub."""

    repository: str
    commit: str


@dataclass(frozen=True)
class Record(JsonRecord):
    """``kdkit.json``.

    Attributes:
        kdkit: version of kdkit that wrote it.
        version: name of the version, as in its lineage.
        repository: ``ORG/NAME`` of a release; None in an export.
        license: the student's, normalized; None in an export.
        student: the files, all at the top, that make up the version's student folder; the rest of the top is
            for people (``README.md``) and for transformers.
        history: lineages of all that the version comes from and, last, its own; oldest first.
        checks: library -> ``tolerance`` and, as differences from the version, ``image_difference`` and
            ``text_difference`` of features or ``logit_difference`` of answers; or ``{"missing": why}``.
        environment: versions of the libraries that the checks ran with.
        origin: where the project was pulled from, if it was.
        base: model that published adapters belong to; None for whole weights.
        files: path -> size and hash of every file but the record itself and ``README.md``.
    """

    FORMAT: ClassVar[int] = 3

    kdkit: str
    version: str
    repository: str | None
    license: str | None
    student: tuple[str, ...]
    history: Annotated[History, Len(min_length=1)]
    checks: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str]
    origin: Origin | None
    base: AdapterBase | None = None
    files: Mapping[str, FileFact] = field(default_factory=dict)

    @property
    def lineage(self) -> Lineage:
        """The version's own."""
        return self.history[-1]

    def save(self, folder: Path) -> Record:
        """Write the record of what ``folder`` holds now; returns it with the hashes."""
        record = replace(self, files=describe_folder(folder, without=(RECORD, README)))
        (folder / RECORD).write_bytes(record.to_bytes())
        return record

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read a file that :meth:`save` wrote. Raises: OSError, ValueError."""
        return cls.from_bytes(path.read_bytes())


def below_kdkit(name: str) -> str:
    """``kdkit/registry.lock`` -> ``registry.lock``."""
    return name.removeprefix(f"{KDKIT}/")
