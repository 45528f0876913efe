"""Errors of the Hub, its client and the network as :class:`KdkitError`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub.retry import is_connection_error

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")
_FROM_CLIENT = ("LFS batch API returned errors", "Internal error", "Malformed response", "Xet headers")
"""How errors begin that the client raises under the names of Python's own."""
_AGAIN = "run the command again; it goes on where it ended"
_FULL = ("quota", "storage limit", "too large", "exceed")


class Endpoint(Protocol):
    """The part of a Hub that its error messages need."""

    @property
    def endpoint(self) -> str: ...

    @property
    def how_to_log_in(self) -> str: ...

    def scrub(self, text: str) -> str: ...


class hub_errors:
    """A context that turns errors of the Hub's client into :class:`KdkitError`, with a remedy and an exit code.

    The token is removed from every message, also where a server echoes it; then the original error is dropped, since
    its traceback would show the token.

    Args:
        where: the object, e.g. ``org/name@v1``.
        hub: the Hub in use.
        page: address of the object, for people; by default the Hub's.
        otherwise: an alternative without the Hub, e.g. ``--from local:DIR``.
    """

    def __init__(self, where: str, hub: Endpoint, *, page: str = "", otherwise: str = "") -> None:
        self.where, self.hub, self.page, self.otherwise = where, hub, page or hub.endpoint, otherwise

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, KdkitError):
            found = self._find(error)
            if found is not None:
                found.where = self.where
                found.what, found.why, found.fix = map(self.hub.scrub, (found.what, found.why, found.fix))
                found.args = (found.headline,)
                leaks = any(self.hub.scrub(str(part)) != str(part) for part in _chain(error))
                raise found from (None if leaks else error)

    def _find(self, error: Exception) -> KdkitError | None:
        """The first error of the chain that comes from the Hub or the network; None without one."""
        from huggingface_hub import errors as client

        for part in _chain(error):
            if isinstance(part, client.OfflineModeIsEnabled):
                fix = self._or_else("unset it and run the command again")
                what = "the Hub is needed, and HF_HUB_OFFLINE says that this is offline"
                return KdkitError("KD-HUB-011", what, fix=fix, code=ExitCode.MISSING)
            if isinstance(part, client.LocalEntryNotFoundError):
                if isinstance(part.__cause__, client.HfHubHTTPError):
                    return self._refused(part.__cause__)
                return self._not_here(part)
            if isinstance(part, client.HfHubHTTPError):
                return self._refused(part)
            if isinstance(part, client.HFValidationError):
                return KdkitError(
                    "KD-HUB-012", "not the name of a repository", why=_line(part), fix="a name is ORG/NAME"
                )
            if match := _XET_STATUS.search(str(part)):
                return self._by_status(int(match[1]), _line(part))
            if is_connection_error(part):
                return self._no_network(part)
            if _says_full(str(part)):
                return self._full(_line(part))
            if isinstance(part, client.XetDownloadError) or str(part).startswith(_FROM_CLIENT):
                return KdkitError(
                    "KD-HUB-013", "the transfer failed", why=_line(part), fix=_AGAIN, code=ExitCode.MISSING
                )
        return None

    def _refused(self, error: HfHubHTTPError) -> KdkitError:
        from huggingface_hub import errors as client

        if isinstance(error, client.GatedRepoError):
            return KdkitError(
                "KD-HUB-014",
                "its owner asks to accept terms before the files can be fetched",
                fix=f"accept the terms at {self.page}, then {self.hub.how_to_log_in}, and run the command again",
                code=ExitCode.DENIED,
            )
        if isinstance(error, client.RevisionNotFoundError):
            why = f"'{self.where.partition('@')[2] or 'main'}' is no branch, tag or commit there"
            return KdkitError("KD-HUB-015", "no such revision", why=why, fix=f"see {self.page}", code=ExitCode.MISSING)
        if isinstance(error, client.DisabledRepoError):
            return KdkitError(
                "KD-HUB-016", "the Hub has disabled this repository", fix=f"see {self.page}", code=ExitCode.DENIED
            )
        if isinstance(error, client.RemoteEntryNotFoundError):
            return KdkitError(
                "KD-HUB-017", "no such file there", why=_server(error), fix=f"see {self.page}", code=ExitCode.MISSING
            )
        if isinstance(error, client.RepositoryNotFoundError) and "invalid credentials" not in _server(error).lower():
            return KdkitError(
                "KD-HUB-018",
                "not found on the Hub",
                why="no such repository, or a private one that this token may not see",
                fix=f"check the name at {self.page}; for a private one {self.hub.how_to_log_in}",
                code=ExitCode.MISSING,
            )
        return self._by_status(error.response.status_code, _server(error) or _line(error))

    def _by_status(self, status: int, said: str) -> KdkitError:
        why = f"{status}: {said}"
        if status == 401:
            return KdkitError(
                "KD-HUB-019",
                "the Hub does not know this token",
                why=why,
                fix=self.hub.how_to_log_in,
                code=ExitCode.DENIED,
            )
        if status in (413, 507) or (status in (400, 402, 403) and _says_full(said)):
            return self._full(why)
        if status == 403:
            return KdkitError(
                "KD-HUB-020",
                "no permission",
                why=why,
                fix=f"use a token of somebody who may do this: {self.hub.how_to_log_in}",
                code=ExitCode.DENIED,
            )
        if status == 429:
            return KdkitError(
                "KD-HUB-021",
                "the Hub asks to wait",
                why=why,
                fix="run the command again in some minutes",
                code=ExitCode.MISSING,
            )
        if status >= 500:
            return KdkitError(
                "KD-HUB-022", "the Hub is in trouble", why=why, fix="run the command again later", code=ExitCode.MISSING
            )
        return KdkitError("KD-HUB-023", "the Hub refused", why=why, fix=f"see {self.page}", code=ExitCode.MISSING)

    def _full(self, why: str) -> KdkitError:
        return KdkitError(
            "KD-HUB-024",
            "no room for this on the Hub",
            why=why,
            fix=f"delete something or get more storage at {self.hub.endpoint}/settings/billing, then run it again",
            code=ExitCode.DENIED,
        )

    def _no_network(self, error: BaseException) -> KdkitError:
        fix = f"check the network or HF_ENDPOINT ({self.hub.endpoint}), then run the command again"
        return KdkitError(
            "KD-HUB-025", "the Hub cannot be reached", why=_line(error), fix=self._or_else(fix), code=ExitCode.MISSING
        )

    def _not_here(self, error: BaseException) -> KdkitError:
        from huggingface_hub import constants

        if not constants.HF_HUB_OFFLINE and "local_files_only" not in str(error):
            return self._no_network(error)
        return KdkitError(
            "KD-HUB-026",
            "not (completely) in the Hub's cache, and this is offline",
            why=f"the cache is {constants.HF_HUB_CACHE}",
            fix=self._or_else("run the command once with network, without --offline and HF_HUB_OFFLINE"),
            code=ExitCode.MISSING,
        )

    def _or_else(self, fix: str) -> str:
        return f"{fix}; {self.otherwise}" if self.otherwise else fix


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it was raised from."""
    part: BaseException | None = error
    while part is not None:
        yield part
        part = part.__cause__ or (None if part.__suppress_context__ else part.__context__)


def _server(error: HfHubHTTPError) -> str:
    """What the server itself said, on one line."""
    return " ".join((error.server_message or "").split())[:300]


def _says_full(said: str) -> bool:
    return any(word in said.lower() for word in _FULL) and "storage" in said.lower()


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
