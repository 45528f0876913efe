"""The student's history: promoted versions and refused candidates, each with its lineage.

``versions/vN/`` holds ``student/`` (what stock libraries load), ``task.safetensors`` (heads, aligners, losses),
``samples.safetensors`` (digests of its training samples), ``lineage.json``, ``evaluation.json`` and ``manifest.json``.
``versions/current`` names the current one. A candidate that the guard refused lies in ``versions/candidates/vN/``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import new_folder, write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.tensors import read_array
from kdkit.core.contracts import Student, StudentSpec
from kdkit.core.project.lineage import EarlierHistory, Lineage, Origin
from kdkit.core.project.manifest import MANIFEST, STUDENT, Manifest, write_manifest
from kdkit.core.project.project import Project

if TYPE_CHECKING:
    import numpy as np

    from kdkit.core.plugin_system.catalogue import Catalogue

EVALUATION = "evaluation.json"
LINEAGE = "lineage.json"
SAMPLES = "samples.safetensors"
TASK = "task.safetensors"
CANDIDATES = "candidates"
CORRECTIONS = "corrections.jsonl"
"""One row per correction of a training answer."""
HISTORY = "history.json"
"""Lineages of ancestors that are not in the project."""
RESULTS = "results.json"
"""Published figures of a version that was pulled."""
_NAME = re.compile(r"v(0|[1-9][0-9]*)")
IMPORTED = "v0"
"""Name of a version that was imported, not trained."""


def is_version_name(name: str) -> bool:
    """Whether a version may have this name: ``v0`` of an imported student, ``v1``, ``v2`` and so on.

    Example:
        >>> [name for name in ("v0", "v12", "v01", "w1", "v") if is_version_name(name)]
        ['v0', 'v12']
    """
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Version:
    """One state of the student on disk."""

    name: str
    folder: Path

    @property
    def student_folder(self) -> Path:
        return self.folder / STUDENT

    @cached_property
    def manifest(self) -> Manifest:
        """Size and hash of every file."""
        return Manifest.load(self.folder)

    def file(self, name: str) -> Path:
        """The path of a file, checked against the manifest.

        Raises:
            KdkitError: it is missing or was changed.
        """
        return self.manifest.checked(self.folder, name)

    def check(self, *, hidden: bool = False) -> None:
        """See :meth:`Manifest.check`."""
        self.manifest.check(self.folder, hidden=hidden)

    @property
    def refused(self) -> bool:
        """True for a candidate that the guard refused."""
        return self.folder.parent.name == CANDIDATES

    @cached_property
    def lineage(self) -> Lineage:
        """Where its knowledge comes from."""
        return Lineage.load(self.file(LINEAGE))

    @cached_property
    def earlier(self) -> EarlierHistory | None:
        """Lineages of ancestors that are not in the project, of a pulled or bundled version."""
        return EarlierHistory.load(self.file(HISTORY)) if HISTORY in self.manifest.files else None

    def known_samples(self) -> np.ndarray[Any, Any]:
        """(N,) uint64, sorted: content digests of its training samples so far."""
        return read_array(self.file(SAMPLES), "digests").view("uint64")


class Versions:
    """The versions of a project."""

    def __init__(self, project: Project) -> None:
        self.root = project.versions

    def names(self) -> tuple[str, ...]:
        """Promoted versions, oldest first."""
        return self._in(self.root)

    def candidates(self) -> tuple[str, ...]:
        """Refused candidates, oldest first."""
        return self._in(self.root / CANDIDATES)

    @staticmethod
    def _in(folder: Path) -> tuple[str, ...]:
        if not folder.is_dir():
            return ()
        paths = [path for path in folder.iterdir() if is_version_name(path.name)]
        # a partly deleted version has neither file
        found = [path.name for path in paths if (path / LINEAGE).is_file() or (path / MANIFEST).is_file()]
        return tuple(sorted(found, key=lambda name: int(name[1:])))

    def current(self) -> Version | None:
        """The version in use, or None before the first one."""
        pointer = self.root / "current"
        if not pointer.is_file():
            return None
        name = pointer.read_text(encoding="utf-8", errors="replace").strip()
        if name not in self.names():
            raise KdkitError(
                "KD-PROJ-008",
                f"versions/current names '{name}', which does not exist",
                where=str(pointer),
                fix="run 'kdkit rollback VERSION' with one of: " + (", ".join(self.names()) or "none"),
                code=ExitCode.MISSING,
            )
        return Version(name, self.root / name)

    def get(self, name: str | None = None) -> Version:
        """A version by name (a candidate too), or the current one.

        Raises:
            KdkitError: when there is no such version, or no version at all.
        """
        if name is None:
            version = self.current()
            if version is None:
                raise KdkitError(
                    "KD-PROJ-009",
                    "there is no version of the student yet",
                    where=str(self.root),
                    fix="run 'kdkit distill' to make the first one; 'kdkit import-student' keeps one that you have",
                    code=ExitCode.MISSING,
                )
            return version
        if name in self.names():
            return Version(name, self.root / name)
        if name in self.candidates():
            return Version(name, self.root / CANDIDATES / name)
        raise KdkitError(
            "KD-PROJ-010",
            f"there is no version '{name}'",
            fix=did_you_mean(name, [*self.names(), *self.candidates()]),
            code=ExitCode.MISSING,
        )

    def ancestry(self, version: Version) -> list[Version]:
        """The version and its ancestors that still exist, oldest first."""
        known, chain = {*self.names(), *self.candidates()}, [version]
        while (parent := chain[0].lineage.parent) in known and parent not in {v.name for v in chain}:
            chain.insert(0, self.get(parent))
        return chain

    def history(self, version: Version) -> tuple[Lineage, ...]:
        """Lineages of all ancestors, pulled ones too, and of the version itself; oldest first."""
        chain = self.ancestry(version)
        start = max((number for number, item in enumerate(chain) if item.earlier), default=0)
        before = chain[start].earlier
        return (*(before.history if before else ()), *(item.lineage for item in chain[start:]))

    def made_by(self, digest: str, precision: str) -> Version | None:
        """The newest undamaged version or candidate that the plan of this digest made; None without one."""
        for name in sorted([*self.names(), *self.candidates()], key=lambda name: -int(name[1:])):
            with suppress(KdkitError):
                version = self.get(name)
                training = version.lineage.training
                if (training.digest, training.machine.precision) == (digest, precision):
                    version.check()
                    return version
        return None

    def origin(self, version: Version, place: tuple[str, str] | None = None) -> Origin | None:
        """The release that the version continues: the nearest one that an ancestor, or itself, was pulled from.

        Args:
            place: endpoint and repository of a push. A release that is pushed to where it was pulled from does not
                continue itself; it keeps the origin that it had.
        """
        for item in reversed(self.ancestry(version)):
            if (earlier := item.earlier) is not None:
                it = earlier.release
                itself = it is not None and item is version and (it.endpoint, it.repository) == place
                return earlier.origin if it is None or itself else it
        return None

    def next_name(self) -> str:
        """A name that no version or candidate has, partly deleted ones included."""
        left = [*self.root.glob("v*"), *(self.root / CANDIDATES).glob("v*")]
        numbers = [int(path.name[1:]) for path in left if is_version_name(path.name)]
        return f"v{max(numbers, default=0) + 1}"

    @contextmanager
    def writing(self, name: str, *, refused: bool) -> Iterator[Path]:
        """A folder to fill; it gets its manifest and its name when the block ends without an error."""
        with new_folder((self.root / CANDIDATES if refused else self.root) / name) as draft:
            yield draft
            write_manifest(draft)

    def make_current(self, name: str) -> None:
        """Point ``current`` at a promoted version; instant and atomic."""
        if name not in self.names():
            raise KdkitError(
                "KD-PROJ-011",
                f"'{name}' is not a promoted version",
                fix=did_you_mean(name, list(self.names())),
                code=ExitCode.MISSING,
            )
        write_atomically(self.root / "current", f"{name}\n".encode())

    def promote(self, name: str) -> None:
        """Promote a candidate that the guard refused."""
        if name not in self.candidates():
            raise KdkitError(
                "KD-PROJ-012",
                f"'{name}' is not a candidate",
                fix=f"'kdkit rollback {name}' makes a promoted version current"
                if name in self.names()
                else did_you_mean(name, list(self.candidates())),
                code=ExitCode.MISSING,
            )
        self.get(name).check()
        os.replace(self.root / CANDIDATES / name, self.root / name)
        self.make_current(name)

    def rollback(self, name: str | None = None) -> Version:
        """Make ``name``, or the parent of the current version, current. Returns it."""
        if name is None:
            current = self.get()
            name = current.lineage.parent
            if name is None:
                earlier = self.names()[: self.names().index(current.name)]
                raise KdkitError(
                    "KD-PROJ-013",
                    f"{current.name} has no parent to roll back to",
                    fix=f"name one: kdkit rollback {earlier[-1]}" if earlier else "",
                )
        version = self.get(name)
        if version.folder.parent == self.root:
            version.check()
        self.make_current(name)
        return version


def load_student(where: Path | str | Version, catalogue: Catalogue | None = None) -> Student:
    """The student of a version (or of a version's folder), in eval mode, on the CPU.

    ``catalogue`` knows the student's family; by default that of the project that the version lies in, which keeps
    names to the plugins that they were pinned to; elsewhere everything that is installed.

    Raises:
        KdkitError: a file of the version is missing or was changed.
    """
    from kdkit.core.plugin_system.discovery import resolve

    version = where if isinstance(where, Version) else Version(Path(where).name, Path(where))
    version.check()
    catalogue = catalogue or Project.catalogue_at(version.folder)
    student: Any = resolve(catalogue.spec(StudentSpec, version.lineage.student.family).loader)(version.student_folder)
    student.eval()
    return student  # type: ignore[no-any-return]  # factories are import strings: the protocol is checked by tests
