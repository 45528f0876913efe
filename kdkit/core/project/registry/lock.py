"""``registry.lock``: measured facts about each teacher of the registry, and the providers of names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.json_record import with_checksum, without_checksum
from kdkit.core.contracts import IMPORTED
from kdkit.core.project.registry.schema import Name, Options

LOCK_VERSION: Literal[1] = 1
NOT_PUBLISHED = "(not published)"
"""Replaces local paths in published files, e.g. ``local:(not published)``."""


def safe_relative(path: str) -> str:
    """``path``, if it stays inside its folder.

    Raises:
        ValueError: it is absolute or leads outside.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError(f"'{path}' leads outside its folder")
    return path


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Relative = Annotated[str, AfterValidator(safe_relative)]


class _Fact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MadeFrom(_Fact):
    """The published file that a file was converted from."""

    file: Relative
    sha256: Sha256


class FileFact(_Fact):
    """One file of a materialized folder; ``size`` in bytes."""

    size: int
    sha256: Sha256
    made_from: MadeFrom | None = None


class LicenseSeen(_Fact):
    """The license stated in the files, and the file that states it."""

    name: str
    evidence: str


class SignalFact(_Fact):
    """Shape and dtype of one row, measured by a probe run."""

    shape: tuple[int, ...]
    dtype: str


class LockedFiles(_Fact):
    """Files of a model and their origin; ``also`` holds further sources of them."""

    provider: str
    source: str
    commit: str | None
    options: Options
    files: dict[Relative, FileFact]
    also: dict[str, str]
    license: LicenseSeen | None
    gated: bool
    locked_at: str


class LockedTeacher(LockedFiles):
    """Facts about one teacher.

    ``fingerprint`` is the key of its features; ``identity`` comes from the loaded model (preprocessing, tokenizer).
    """

    loader: str
    signals: dict[str, SignalFact]
    identity: dict[str, str]
    fingerprint: Sha256

    @property
    def held_by_author(self) -> bool:
        """Its source was a local folder of the author of a published student, so its files are not available."""
        return self.source == f"local:{NOT_PUBLISHED}"

    @property
    def imported(self) -> bool:
        """Its features were imported, so it computes none."""
        return IMPORTED in self.identity

    @property
    def dims(self) -> dict[str, int]:
        """Signal name -> width of the last axis."""
        return {name: signal.shape[-1] for name, signal in self.signals.items()}


class Lock(_Fact):
    """The whole file, immutable."""

    about: str = ""
    lock_version: Literal[1] = LOCK_VERSION
    teachers: dict[Name, LockedTeacher] = {}
    initial_weights: dict[Name, LockedFiles] = {}
    """Models of the catalogue that the student starts from, which are no teachers here."""
    providers: dict[str, dict[Name, str]] = {}
    """Family -> name -> distribution; see :mod:`kdkit.core.project.registry.pins`."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """The lock at ``path``; empty if there is no file.

        Raises:
            KdkitError: it is not a lock, has a newer version, or was edited.
        """
        try:
            raw = json.loads(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (ValueError, RecursionError) as error:
            raise _bad(path, "not a kdkit lock file", f"not JSON: {error}") from None
        if not isinstance(raw, dict) or not isinstance(raw.get("lock_version"), int):
            raise _bad(path, "not a kdkit lock file", "it has no lock_version")
        if raw["lock_version"] > LOCK_VERSION:
            raise KdkitError(
                "KD-REG-012",
                "this lock was written by a newer kdkit",
                where=path.name,
                why=f"it has lock_version {raw['lock_version']}; this kdkit reads up to {LOCK_VERSION}",
                fix="pip install -U kdkit",
            )
        try:
            for part in ("teachers", "initial_weights"):
                if entries := raw.get(part):
                    raw[part] = {name: _checked(name, facts) for name, facts in entries.items()}
            if pinned := "providers" in raw:
                raw["providers"] = _checked("providers", raw["providers"])
            lock = cls.model_validate(raw)
            if not pinned:
                raise ValueError("it has no 'providers'")
            return lock
        except AttributeError:
            raise _bad(path, "not a kdkit lock file", "its entries are no mapping") from None
        except ValidationError as error:
            first = error.errors()[0]
            loc = ".".join(str(part) for part in first["loc"])
            raise _bad(path, "not a kdkit lock file", f"{loc}: {first['msg']}") from None
        except ValueError as error:
            raise _bad(path, "the lock was changed", str(error)) from None

    def teacher(self, name: str) -> LockedTeacher:
        """Raises: KdkitError when ``name`` is not locked."""
        if name not in self.teachers:
            raise KdkitError(
                "KD-REG-013",
                f"teacher '{name}' is not locked",
                where="registry.lock",
                why="its files were not fetched and probed yet",
                fix=f"kdkit lock {name}",
                code=ExitCode.MISSING,
            )
        return self.teachers[name]

    def with_teacher(self, name: str, facts: LockedTeacher) -> Lock:
        """The lock with ``facts`` of ``name``."""
        return self.model_copy(update={"teachers": {**self.teachers, name: facts}})

    def without_teacher(self, name: str) -> Lock:
        """The lock without ``name``."""
        left = {key: facts for key, facts in self.teachers.items() if key != name}
        return self.model_copy(update={"teachers": left})

    def with_initial_weights(self, entries: dict[str, LockedFiles]) -> Lock:
        """The lock with ``entries`` as its initial weights."""
        return self.model_copy(update={"initial_weights": entries})

    def save(self, path: Path) -> None:
        """Write the file, deterministically."""
        content = {
            "about": "Written by kdkit. Edit registry.yaml instead.",
            "lock_version": self.lock_version,
            "providers": with_checksum(self.providers),
            "teachers": _with_checksums(self.teachers),
        }
        if self.initial_weights:
            content["initial_weights"] = _with_checksums(self.initial_weights)
        write_atomically(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def _with_checksums(entries: Mapping[str, LockedFiles]) -> dict[str, Any]:
    return {name: with_checksum(facts.model_dump(mode="json")) for name, facts in entries.items()}


def _checked(name: str, facts: Any) -> dict[str, Any]:
    try:
        return without_checksum(facts)
    except ValueError as error:
        raise ValueError(f"'{name}': {error}") from None


def _bad(path: Path, what: str, why: str) -> KdkitError:
    return KdkitError(
        "KD-REG-014", what, where=path.name, why=why, fix=f"delete {path.name} and run 'kdkit lock' to make it again"
    )
