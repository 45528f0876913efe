"""Where a student's weights come from, and how a base model is pinned that is too large to be saved with adapters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.plugins.students.clinkd.download import downloaded_commit, sha256_of
from kdkit.plugins.students.clinkd.network import Sizes

_SNAPSHOT = re.compile(r"models--(?P<repo>.+)/snapshots/(?P<commit>[0-9a-f]{40})")


@dataclass(frozen=True)
class Origin:
    """Exactly one of both: random weights in ``sizes``, or the folder ``init``.

    ``base``: the repository ``ORG/NAME`` that ``init`` is a download of, where a person says it.
    """

    sizes: Sizes | None = None
    init: str | None = None
    base: str | None = None

    def config(self) -> dict[str, Any]:
        """The part of the student's config that says it."""
        if self.sizes is not None:
            return {"sizes": self.sizes.config()}
        return {"init": self.init, **({} if self.base is None else {"base": self.base})}


ORIGIN = tuple(Origin.__dataclass_fields__)
"""Names in a student's config that say where its weights are from; the others are its settings."""


@dataclass(frozen=True)
class Base:
    """A base model that adapters belong to.

    Attributes:
        folder: where it was; None in a student that was published, which then has a repository.
        digest: sha256 over its config and weights.
        repo, commit: on the Hub, if that folder is a snapshot of the Hub's cache, or a download of what a person says.
    """

    folder: str | None
    digest: str
    repo: str | None = None
    commit: str | None = None

    @classmethod
    def of(cls, folder: Path, said: str | None = None) -> Base:
        """Pin ``folder``, reading all of its weights once.

        Args:
            said: the repository that it is a download of, as a person says.

        Raises:
            KdkitError: a repository is said, and the folder is a snapshot of another one, or not the download of any.
        """
        snapshot = _SNAPSHOT.search(folder.resolve().as_posix()) or _SNAPSHOT.search(folder.absolute().as_posix())
        repo, commit = (snapshot["repo"].replace("--", "/", 1), snapshot["commit"]) if snapshot else (None, None)
        if said is not None and repo is None:
            repo, commit = said, downloaded_commit(folder, _weights(folder))
        if said not in (None, repo):
            raise KdkitError(
                "KD-STUD-030",
                f"the base model is said to be {said}, and is {repo}",
                where=str(folder),
                fix=f"say base: {repo}",
            )
        return cls(str(folder.absolute()), weights_digest(folder), repo, commit)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Base:
        """From what ``vars`` of one gave."""
        return cls(**{name: config.get(name) for name in cls.__dataclass_fields__})  # type: ignore[arg-type]

    def find(self, where: str) -> Path:
        """Its folder: where it was, where it is after the student and it were moved together, or in the Hub's cache.

        Args:
            where: the student's folder.

        Raises:
            KdkitError: it is not there, or is not the same any more.
        """
        folder = self._here(Path(where))
        if folder is None:
            was = f", which was in {self.folder}" if self.folder else ""
            get = f"get it: hf download {self.repo} --revision {self.commit}" if self.repo else "put it there"
            raise KdkitError(
                "KD-STUD-031",
                "the base model of these adapters is not there",
                where=where,
                why=f"{self.repo} at {self.commit}{was}" if self.repo else str(self.folder),
                fix=f"{get}; or name its folder as base.folder in clinkd.json; its hash is checked",
                code=ExitCode.MISSING,
            )
        if weights_digest(folder) != self.digest:
            raise KdkitError(
                "KD-STUD-032",
                "the base model is not the one that these adapters were trained on",
                where=str(folder),
                why=f"config and weights should have the hash {self.digest}",
                fix="restore it: adapters on other weights give nonsense",
            )
        return folder

    def _here(self, student: Path) -> Path | None:
        if self.folder and _is_model(Path(self.folder)):
            return Path(self.folder)
        moved = (
            folder for folder in self._moved(student) if _is_model(folder) and weights_digest(folder) == self.digest
        )
        return next(moved, None) or (self._cached() if self.repo else None)

    def _moved(self, student: Path) -> Iterator[Path]:
        """The end of its path below each folder that the student is in, longest end first."""
        parts = Path(self.folder or "").parts
        for start in range(1, len(parts)):
            yield from (above.joinpath(*parts[start:]) for above in student.absolute().parents)

    def _cached(self) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(str(self.repo), "config.json", revision=self.commit)
        return Path(found).parent if isinstance(found, str) else None


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def weights_digest(folder: Path) -> str:
    """``sha256:...`` over ``config.json`` and all safetensors files, with their names."""
    digest = hashlib.sha256()
    for path in _weights(folder):
        digest.update(f"{path.name}\0{sha256_of(path)}\0".encode())
    return f"sha256:{digest.hexdigest()}"


def _weights(folder: Path) -> list[Path]:
    return sorted([folder / "config.json", *folder.glob("*.safetensors")])
