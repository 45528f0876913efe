"""The running Hub, and what a test may ask of it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.local_hub import routes
from tests.local_hub.faults import Cut, Fault, Faults
from tests.local_hub.http import Connection, Recorded, Refusal
from tests.local_hub.state import Account, Commit, File, Kind, Repository
from tests.local_hub.store import Store
from tests.local_hub.xet import XetStorage
from tests.loopback import serving

assert routes  # imported for what it registers
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
ALICE = Account("alice", "hf_alice", organizations={"lab": "write"})


class LocalHub:
    """A Hub on the loopback interface.

    Attributes:
        url: its endpoint.
        accounts: token -> account.
        repositories: (kind, ``ORG/NAME``) -> repository.
        requests: everything that was asked, in the order of arrival.
        faults: those still to come; see :meth:`fail`.
        store: contents of small files and of LFS objects.
        xet: Xet storage; None in LFS mode.
        lfs_threshold: bytes above which a file is large.
        page: entries of one page of a listing.
        lock: held while a commit or a repository is checked and made.
    """

    def __init__(self, root: Path, accounts: Sequence[Account], *, xet: bool, lfs_threshold: int, page: int) -> None:
        self.url = ""
        self.accounts = {account.token: account for account in accounts}
        self.repositories: dict[tuple[Kind, str], Repository] = {}
        self.requests: list[Recorded] = []
        self.faults = Faults()
        self.store = Store(root / "store")
        self.xet = XetStorage(root / "xet") if xet else None
        self.root, self.lfs_threshold, self.page = root, lfs_threshold, page
        self.lock = threading.RLock()

    def account_of(self, token: str | None) -> Account | None:
        """Raises: Refusal for an unknown token."""
        if token is None or (self.xet and token == self.xet.token):
            return None
        if token not in self.accounts:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.accounts[token]

    def create(self, name: str, kind: Kind = "model", *, private: bool = True, author: str = "alice") -> Repository:
        """A new repository, as the Hub makes it: with one commit that holds ``.gitattributes``."""
        made = Repository(name, kind, private, author)
        self.store.put_small(ATTRIBUTES)
        made.commit({".gitattributes": File.small(ATTRIBUTES)}, "initial commit", author, "main", None)
        self.repositories[kind, name] = made  # last: visible only with its commit
        return made

    def add(
        self,
        name: str,
        files: Mapping[str, bytes],
        kind: Kind = "model",
        *,
        private: bool = False,
        gated: bool = False,
        title: str = "Upload",
        author: str = "alice",
        branch: str = "main",
    ) -> str:
        """One more commit, with exactly ``files``; makes the repository where there is none. The commit's name."""
        found = self.repositories.get((kind, name)) or self.create(name, kind, private=private, author=author)
        found.gated = gated
        kept = {path: self._keep(path, content) for path, content in files.items()}
        return found.commit(kept, title, author, branch, found.resolve(branch)).oid

    def _keep(self, path: str, content: bytes) -> File:
        if path.endswith(".safetensors") or len(content) > self.lfs_threshold:
            sha256 = hashlib.sha256(content).hexdigest()
            self.store.path(sha256).write_bytes(content)
            return File.large(len(content), sha256)
        self.store.put_small(content)
        return File.small(content)

    def repository(self, name: str, kind: Kind = "model") -> Repository:
        """Raises: KeyError where there is none."""
        return self.repositories[kind, name]

    def head(self, name: str, revision: str = "main", kind: Kind = "model") -> Commit:
        """The commit of a revision. Raises: KeyError where there is none."""
        commit = self.repository(name, kind).resolve(revision)
        if commit is None:
            raise KeyError(revision)
        return commit

    def hashes(self, name: str, revision: str = "main", kind: Kind = "model") -> dict[str, str]:
        """Path -> SHA-256 of the content, without ``.gitattributes``."""
        files = {path: file for path, file in self.head(name, revision, kind).files.items() if path != ".gitattributes"}
        return {
            path: file.sha256 or hashlib.sha256(self.store.path(file.oid).read_bytes()).hexdigest()
            for path, file in files.items()
        }

    def fail(
        self,
        pattern: str,
        *,
        times: int = 1,
        status: int | None = None,
        message: str = "injected fault",
        code: str = "",
        cut: Cut | None = None,
        rate: float | None = None,
    ) -> None:
        """Inject a fault into requests to come; see :class:`Fault`."""
        self.faults.add(Fault(pattern, times, status, message, code, cut, rate))

    def received(self, pattern: str = "^PUT /lfs/") -> int:
        """Bytes of the bodies of all matching requests so far, broken ones too."""
        import re

        return sum(request.received for request in self.requests if re.search(pattern, request.line))

    def downloads(self) -> list[str]:
        """Paths of the files that were fetched, sorted."""
        lines = [request.line for request in self.requests if request.method == "GET"]
        return sorted(line.partition("/resolve/")[2].partition("/")[2] for line in lines if "/resolve/" in line)

    def environment(self, account: Account = ALICE) -> dict[str, str]:
        """Variables that point a process at this Hub, with a cache of its own and without telemetry."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.root / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": account.token,
            "KDKIT_HUB_TOKEN": account.token,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_XET_TELEMETRY_ENABLED": "0",
            "NO_PROXY": "127.0.0.1",
        }


@contextmanager
def local_hub(
    root: Path,
    *,
    accounts: Sequence[Account] = (ALICE,),
    xet: bool = False,
    lfs_threshold: int = 10_000_000,
    page: int = 1000,
    port: int = 0,
) -> Iterator[LocalHub]:
    """A Hub that runs in a thread until the end of the block.

    Args:
        root: a folder of its own; contents go there, what else it knows is forgotten in the end.
        accounts: who may sign in.
        xet: offer Xet storage besides LFS.
        lfs_threshold: bytes above which a file is large whatever its name.
        page: entries of one page of a listing.
        port: 0 for a free one.
    """
    hub = LocalHub(root, accounts, xet=xet, lfs_threshold=lfs_threshold, page=page)
    with serving(type("Connection", (Connection,), {"hub": hub}), port) as hub.url:
        yield hub
