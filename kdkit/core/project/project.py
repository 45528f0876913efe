"""A project folder: its paths, its files read once, and the lock against concurrent commands."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any, TextIO

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.locks import is_alive, remove_if_free, try_lock

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.registry.lock import Lock
    from kdkit.core.project.registry.schema import Registry

REGISTRY = "registry.yaml"
_HELD: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())
"""Roots of the projects that the running command has locked; empty in other threads."""
_WRITTEN = (
    *(".", ".kdkit", ".kdkit/*", ".kdkit/runs/*", "features", "features/*", "features/*/*", "versions"),
    *("versions/candidates", "reports", "sweeps", "sweeps/*", "sweeps/*/*"),
)
"""Folders in which commands write."""


@dataclass(frozen=True, init=False)
class Project:
    """A folder with ``registry.yaml``, read once: an immutable value.

    The user edits ``registry.yaml``; kdkit writes ``registry.lock``, ``features/`` (the feature store), ``versions/``
    (the student's history), ``reports/``, ``sweeps/`` and ``.kdkit/`` (fetched files, unfinished runs).

    :attr:`registry`, :attr:`lock` and :attr:`catalogue` are read on first use and never change. After files have
    changed, :meth:`reloaded` returns a project that reads them again.
    """

    root: Path

    def __init__(self, root: Path | str = ".") -> None:
        object.__setattr__(self, "root", Path(root))

    def reloaded(self) -> Project:
        """The same folder, to be read again, with the same plugins."""
        from kdkit.core.project.registry.pinned import pinned

        other = Project(self.root)
        if "catalogue" in vars(self):
            vars(other)["catalogue"] = pinned(self.catalogue, other.lock)
        return other

    def with_catalogue(self, catalogue: Catalogue) -> Project:
        """The same project with ``catalogue``."""
        return self._with(catalogue=catalogue)

    def with_registry(self, registry: Registry) -> Project:
        """The same project with ``registry``."""
        return self._with(registry=registry)

    def with_lock(self, lock: Lock) -> Project:
        """The same project with ``lock``; the catalogue keeps its pins."""
        return self._with(lock=lock)

    def with_versions(self, folder: Path) -> Project:
        """The same project with the student's history in another folder."""
        return self._with(versions=folder)

    def _with(self, **resolved: object) -> Project:
        other = Project(self.root)
        vars(other).update({**vars(self), **resolved})
        return other

    @classmethod
    def find(cls, start: Path | str = ".") -> Project:
        """The project in ``start`` or the nearest folder above.

        Raises:
            KdkitError: no ``registry.yaml`` was found.
        """
        here = Path(start).resolve()
        for folder in (here, *here.parents):
            if (folder / REGISTRY).is_file():
                return cls(folder)
        raise KdkitError(
            "KD-PROJ-001",
            "no registry.yaml here or in any folder above",
            where=str(start),
            fix="run 'kdkit init' to make a project in this folder",
        )

    def remove_abandoned_drafts(self) -> None:
        """Remove what killed commands left half written in the project."""
        from kdkit.core.base.atomic import remove_abandoned_drafts

        for pattern in _WRITTEN:
            for folder in [self.root] if pattern == "." else self.root.glob(pattern):
                remove_abandoned_drafts(folder)
        busy = (*self.features.glob("*.busy"), *self.state.glob("*/*.busy"), *self.root.glob("sweeps/*/*.busy"))
        for lock in busy:
            remove_if_free(lock)

    @property
    def registry_path(self) -> Path:
        return self.root / REGISTRY

    @property
    def lock_path(self) -> Path:
        return self.root / "registry.lock"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @cached_property
    def versions(self) -> Path:
        """The student's history."""
        return self.root / "versions"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def state(self) -> Path:
        """Local state; deleting it costs downloads and computation."""
        return self.root / ".kdkit"

    @property
    def artifacts(self) -> Path:
        return self.state / "artifacts"

    def initial_weights(self, name: str) -> Path:
        """Folder of a model that the student starts from, beside those of teachers, whose names hold no ``@``."""
        return self.artifacts / f"{name}@student"

    @property
    def runs(self) -> Path:
        return self.state / "runs"

    @cached_property
    def registry(self) -> Registry:
        """``registry.yaml`` with the default student family, and the options of the family, filled in.

        See :func:`kdkit.core.project.registry.load.load_registry` for errors.
        """
        from kdkit.core.project.registry.load import load_registry

        registry, catalogue = load_registry(self.registry_path), self.catalogue
        family = registry.student.family or catalogue.default_student()
        try:
            options = catalogue.get("student", family).spec.options
        except KdkitError:  # the command that makes the student reports a family that is not installed
            options = {}
        return registry.with_student(family, options)

    @cached_property
    def lock(self) -> Lock:
        """``registry.lock``; see :meth:`kdkit.core.project.registry.lock.Lock.load`."""
        from kdkit.core.project.registry.lock import Lock

        return Lock.load(self.lock_path)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The specs of the installed plugins, with the pins of ``registry.lock``."""
        from kdkit.core.plugin_system.discovery import load_catalogue
        from kdkit.core.project.registry.pinned import pinned

        return pinned(load_catalogue(), self.lock)

    @staticmethod
    def catalogue_at(place: Path | str = ".") -> Catalogue:
        """The catalogue of the project around ``place``; outside of projects, that of all installed plugins."""
        from kdkit.core.plugin_system.discovery import load_catalogue

        try:
            project = Project.find(place)
        except KdkitError:
            return load_catalogue()
        return project.catalogue

    @contextmanager
    def exclusive(self, command: str) -> Iterator[None]:
        """Lock the project for a command that writes. Of a distributed run, rank 0 holds the lock for all ranks.

        Inside the block of a command that holds the lock already, it does nothing.

        Raises:
            KdkitError: another kdkit process holds the lock; or, inside the block, the disk is full or read-only.
        """
        if os.environ.get("RANK", "0") != "0":
            yield
            return
        with self._locked(command, shared=False):
            yield

    @contextmanager
    def shared(self, command: str) -> Iterator[None]:
        """Lock the project as :meth:`exclusive` does, but share the lock with other processes of the same command.

        Every rank of a distributed run shares it.

        Raises:
            KdkitError: as :meth:`exclusive`; on a file system without locks, another process of this command too.
        """
        with self._locked(command, shared=True):
            yield

    @contextmanager
    def _locked(self, command: str, *, shared: bool) -> Iterator[None]:
        from kdkit.core.base.system_errors import system_errors

        held = _HELD.get()
        if self.root.resolve() in held:
            yield
            return
        with system_errors(str(self.root)):
            self.state.mkdir(parents=True, exist_ok=True)
            with open(self.state / "busy", "a+", encoding="utf-8") as handle:
                self._take_lock(handle, shared=shared)
                handle.truncate(0)
                handle.write(json.dumps({"pid": os.getpid(), "host": gethostname(), "command": command}))
                handle.flush()
                token = _HELD.set(held | {self.root.resolve()})
                try:
                    yield
                finally:
                    _HELD.reset(token)
                    handle.truncate(0)

    @contextmanager
    def room(self, name: str) -> Iterator[Path]:
        """``.kdkit/<name>`` as an absent path for temporary files; removed before and after the block."""
        room = self.state / name
        shutil.rmtree(room, ignore_errors=True)
        try:
            yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)

    def _take_lock(self, handle: TextIO, *, shared: bool) -> None:
        """Lock the open file; on a file system without locks, only a living process that it names counts."""
        locked = try_lock(handle, shared=shared)
        if locked:
            return
        holder = _read_holder(handle)
        if locked is None:
            warnings.warn(f"{self.root}: this file system has no locks; run one command at a time here", stacklevel=1)
        if locked is False or (holder.get("host") == gethostname() and is_alive(holder["pid"])):
            raise self._busy(holder)

    def _busy(self, holder: Mapping[str, Any]) -> KdkitError:
        who = f"'{holder['command']}' (process {holder['pid']})" if holder else "another kdkit process"
        return KdkitError(
            "KD-PROJ-002",
            f"{who} is working on this project",
            where=str(self.root),
            fix="wait for it to end, or stop it; it keeps its progress",
            code=ExitCode.FOUND,
        )


def _read_holder(handle: TextIO) -> dict[str, Any]:
    """What the process that holds the lock wrote: pid, host and command; empty if it cannot be read."""
    handle.seek(0)
    try:
        holder = json.loads(handle.read())
        return {"pid": int(holder["pid"]), "host": holder.get("host"), "command": str(holder["command"])}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
