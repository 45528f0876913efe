"""The layout of a release: names of its files, and its record ``kdkit.json``. ``push`` writes it, ``pull`` reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdkit.core.project.lineage import Lineage, Origin

RECORD_FORMAT = 3

RECORD = "kdkit.json"
"""sha256 and size of every other file, the lineages, and the outcome of the checks."""
README = "README.md"
RESULTS = "eval/results.json"

# What open_clip looks for at the top of a repository.
CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
# At the top too: a Hugging Face text tower's config, or that of the whole model's transformers form.
MODEL_CONFIG = "config.json"
TRANSFORMERS_WEIGHTS = "model.safetensors"
TRANSFORMERS_PROCESSOR = "preprocessor_config.json"

KDKIT = "kdkit"
"""The folder with what ``pull`` needs beside the student."""
TASK = f"{KDKIT}/task.safetensors"
SAMPLES = f"{KDKIT}/samples.safetensors"
REGISTRY = f"{KDKIT}/registry.yaml"
"""Without data; its student and teachers without paths; a recipe that was a file is ``./recipe.yaml``."""
LOCK = f"{KDKIT}/registry.lock"
RECIPE = f"{KDKIT}/recipe.yaml"
"""Only where the recipe was a file of the project."""


@dataclass(frozen=True)
class Record:
    """``kdkit.json``.

    Attributes:
        kdkit: version of kdkit that wrote it.
        version: name of the version, as in its lineage.
        repository: ``ORG/NAME`` of a release; None in an export.
        license: the student's, normalized; None in an export.
        student: the files, all at the top, that make up the version's student folder; the rest of the top is
            for people (``README.md``) and for transformers.
        history: lineages of all that the version comes from and, last, its own; oldest first.
        text_tower: the Hugging Face name that the text tower's config came under; None without such a tower.
        checks: library (``open_clip``, ``transformers``, ``peft``) -> ``tolerance`` and, of a dual encoder,
            ``image_difference`` and ``text_difference`` of its features from the version's, of a student that answers
            ``logit_difference``; or ``{"missing": why}``.
        environment: versions of the libraries that the checks ran with.
        origin: where the project was pulled from, if it was.
        base: what published adapters belong to, as ``repository`` and ``commit``; None for whole weights.
        files: path -> ``{"size": bytes, "sha256": hex}`` of every file but the record itself.
    """

    kdkit: str
    version: str
    repository: str | None
    license: str | None
    student: tuple[str, ...]
    history: tuple[Lineage, ...]
    text_tower: str | None
    checks: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str]
    origin: Origin | None
    base: Mapping[str, str] | None = None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def lineage(self) -> Lineage:
        """The version's own."""
        return self.history[-1]

    def to_json(self) -> dict[str, Any]:
        """Plain data; the inverse of :meth:`from_json`."""
        return {
            "format": RECORD_FORMAT,
            "kdkit": self.kdkit,
            "version": self.version,
            "repository": self.repository,
            "license": self.license,
            "student": list(self.student),
            "text_tower": self.text_tower,
            "checks": {name: dict(check) for name, check in self.checks.items()},
            "environment": dict(self.environment),
            "origin": None if self.origin is None else vars(self.origin).copy(),
            "base": None if self.base is None else dict(self.base),
            "history": [lineage.to_json() for lineage in self.history],
            "files": {name: dict(entry) for name, entry in self.files.items()},
        }

    def save(self, folder: Path) -> None:
        """Write the record of the release in ``folder``."""
        (folder / RECORD).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read a file that :meth:`save` wrote. Raises: OSError, and as :meth:`from_json`."""
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Read what :meth:`to_json` wrote; the paths in ``files`` are not trusted here.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: anything else, or a format of another kdkit.
        """
        if data["format"] != RECORD_FORMAT:
            raise ValueError(f"format {data['format']!r}; this kdkit reads {RECORD_FORMAT}")
        if not data["history"]:
            raise ValueError("it has no lineage")
        return cls(
            kdkit=str(data["kdkit"]),
            version=str(data["version"]),
            repository=data["repository"],
            license=data["license"],
            student=tuple(str(name) for name in data["student"]),
            history=tuple(map(Lineage.from_json, data["history"])),
            text_tower=data["text_tower"],
            checks={name: dict(check) for name, check in data["checks"].items()},
            environment=dict(data["environment"]),
            origin=None if data["origin"] is None else Origin(**data["origin"]),
            base=_base(data.get("base")),
            files={name: {"size": int(f["size"]), "sha256": str(f["sha256"])} for name, f in data["files"].items()},
        )


def _base(given: Mapping[str, Any] | None) -> dict[str, str] | None:
    return None if given is None else {name: str(given[name]) for name in ("repository", "commit")}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """As transformers and open_clip lay their configs out."""
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def file_facts(folder: Path) -> dict[str, dict[str, Any]]:
    """Path below ``folder`` -> ``{"size", "sha256"}`` of every file, sorted, the record itself left out."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: {"size": paths[name].stat().st_size, "sha256": _sha256(paths[name])}
        for name in sorted(paths)
        if name != RECORD
    }


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
