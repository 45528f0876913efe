"""The origin of a student's weights, and the pinned base model of adapters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.plugins.students.clinkd.download import downloaded_commit, sha256_of
from kdkit.plugins.students.clinkd.network import Sizes

_SNAPSHOT = re.compile(r"models--(?P<repo>.+)/snapshots/(?P<commit>[0-9a-f]{40})")


@dataclass(frozen=True)
class Origin:
    """Random weights of ``sizes``, or the folder ``init``; ``base``: its stated repository ``ORG/NAME``."""

    sizes: Sizes | None = None
    init: str | None = None
    base: str | None = None

    def config(self) -> dict[str, Any]:
        """The fields of the student's config."""
        if self.sizes is not None:
            return {"sizes": self.sizes.config()}
        return {"init": self.init, **({} if self.base is None else {"base": self.base})}


ORIGIN = tuple(Origin.__dataclass_fields__)
"""Fields of a student's config that are not settings."""


@dataclass(frozen=True)
class Base:
    """A base model that adapters belong to.

    Attributes:
        folder: its folder at training time; None in a published student, which has a repository.
        digest: sha256 over its config and weights.
        repo, commit: on the Hub, of a snapshot in its cache or of a stated download.
    """

    folder: str | None
    digest: str
    repo: str | None = None
    commit: str | None = None

    @classmethod
    def of(cls, folder: Path, stated: str | None = None) -> Base:
        """Pin ``folder``, reading all of its weights once.

        Args:
            stated: the repository that it was downloaded from.

        Raises:
            KdkitError: the folder is not a download of ``stated``.
        """
        snapshot = _SNAPSHOT.search(folder.resolve().as_posix()) or _SNAPSHOT.search(folder.absolute().as_posix())
        repo, commit = (snapshot["repo"].replace("--", "/", 1), snapshot["commit"]) if snapshot else (None, None)
        if stated is not None and repo is None:
            repo, commit = stated, downloaded_commit(folder, _weights(folder))
        if stated not in (None, repo):
            raise KdkitError(
                "KD-STUD-030",
                f"base is {stated}, but this folder is a snapshot of {repo}",
                where=str(folder),
                fix=f"write base: {repo}",
            )
        return cls(str(folder.absolute()), weights_digest(folder), repo, commit)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Base:
        """The inverse of ``vars``."""
        return cls(**{name: config.get(name) for name in cls.__dataclass_fields__})  # type: ignore[arg-type]

    def find(self, where: str) -> Path:
        """Its folder: the recorded one, one moved together with the student, or one in the Hub's cache.

        Args:
            where: the student's folder.

        Raises:
            KdkitError: it is missing or was changed.
        """
        folder = self._here(Path(where))
        if folder is None:
            was = f", formerly in {self.folder}" if self.folder else ""
            get = f"get it: hf download {self.repo} --revision {self.commit}" if self.repo else "put it there"
            raise KdkitError(
                "KD-STUD-031",
                "the base model of these adapters is missing",
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
                fix="restore it: adapters do not fit other weights",
            )
        return folder

    def _here(self, student: Path) -> Path | None:
        if self.folder and _is_model(Path(self.folder)):
            return Path(self.folder)
        parts = Path(self.folder or "").parts
        for start in range(1, len(parts)):  # suffixes of its path below each parent of the student, longest first
            for above in student.absolute().parents:
                folder = above.joinpath(*parts[start:])
                if _is_model(folder) and weights_digest(folder) == self.digest:
                    return folder
        return self._cached() if self.repo else None

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
