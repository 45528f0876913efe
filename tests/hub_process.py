"""A local Hub in a process of its own, whose state can be saved and restored."""

from __future__ import annotations

import copy
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.local_hub import ALICE, LocalHub, local_hub
from tests.local_hub.store import Store
from tests.local_hub.xet import XetStorage

Digest = Callable[[str, bytes], str]
"""Name and content of a file -> what is compared."""
_FOLDERS = ("store", "xet", "home")
"""Of the Hub, and of its client, which remembers what it has sent."""


class HubProcess:
    """The Hub of :func:`hub_process`; ``environment`` points a command at it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.environment: Mapping[str, str] = pipe.recv()

    def save(self, name: str) -> None:
        """Remember the state under a name."""
        self._ask("save", name)

    def restore(self, name: str) -> None:
        """Return to a remembered state."""
        self._ask("restore", name)

    def files(self) -> dict[str, str]:
        """Repository, branch or tag, number of a commit and file -> digest; the file "" stands for the title."""
        found: dict[str, str] = self._ask("files", "")
        return found

    def end(self) -> None:
        self._pipe.send(None)

    def _ask(self, what: str, name: str) -> Any:
        self._pipe.send((what, name))
        return self._pipe.recv()


@contextmanager
def hub_process(folder: Path, digest: Digest) -> Iterator[HubProcess]:
    """A Hub with Xet storage until the end of the block; ``folder`` is its own."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, folder, digest), daemon=True)
    process.start()
    hub = HubProcess(ours)
    try:
        yield hub
    finally:
        hub.end()
        process.join(60)


def _serve(pipe: Connection, folder: Path, digest: Digest) -> None:
    (folder / "now").mkdir(parents=True)
    with local_hub(folder / "now", xet=True) as hub:
        pipe.send(hub.environment(ALICE))
        memories: dict[str, Any] = {}
        while (request := pipe.recv()) is not None:
            what, name = request
            with hub.lock:
                if what == "save":
                    memories[name] = _memory(hub)
                    shutil.copytree(folder / "now", folder / name)
                elif what == "restore":
                    _restore(hub, copy.deepcopy(memories[name]), folder / name)
                pipe.send(_files(hub, digest) if what == "files" else None)


def _memory(hub: LocalHub) -> Any:
    assert hub.xet is not None
    return copy.deepcopy((hub.repositories, vars(hub.xet)))


def _restore(hub: LocalHub, memory: Any, saved: Path) -> None:
    hub.repositories, xet = memory
    for name in _FOLDERS:
        shutil.rmtree(hub.root / name, ignore_errors=True)
        if (saved / name).exists():
            shutil.copytree(saved / name, hub.root / name)
    hub.store, hub.xet = Store(hub.root / "store"), XetStorage(hub.root / "xet")
    vars(hub.xet).update(xet)


def _files(hub: LocalHub, digest: Digest) -> dict[str, str]:
    found = {}
    for (kind, name), repository in hub.repositories.items():
        for ref, oid in {**repository.refs, **repository.tags}.items():
            for number, commit in enumerate(reversed(repository.history(repository.commits[oid]))):
                place = f"{'private' if repository.private else 'public'} {kind} {name} {ref} {number}"
                found[place] = commit.title
                found |= {f"{place} {path}": digest(path, _content(hub, file)) for path, file in commit.files.items()}
    return found


def _content(hub: LocalHub, file: Any) -> bytes:
    if file.xet is None:
        return hub.store.path(file.sha256 or file.oid).read_bytes()
    assert hub.xet is not None  # the hash stands for the content
    return bytes(file.xet.encode())
