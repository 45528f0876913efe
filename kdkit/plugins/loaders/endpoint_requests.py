"""Requests to an endpoint that may be slow, busy or broken: tried again where that helps, counted, then given up."""

from __future__ import annotations

import http.client
import json
import random
import threading
import urllib.error
import urllib.request
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.plugins.loaders.endpoint_connections import Connections

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the second try, doubled every time; and at most, also where the server asks for more."""
LARGEST = 1 << 26
"""Bytes of a reply that are read."""
Read = TypeVar("Read")


class Garbage(Exception):
    """A reply that is not what was asked for."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key goes to the host that the user named, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Requests:
    """Sends JSON to one address; threads may share it.

    Args:
        url: where to.
        key: bearer token; empty for none. It is in no message.
        timeout: seconds to wait for a reply.
        tries: of one request, at most.
    """

    def __init__(self, url: str, *, key: str, timeout: float, tries: int) -> None:
        self._url, self._key, self._timeout, self._tries = url, key, timeout, tries
        self._connections = Connections()
        self._opener = self._connections.opener(_NoRedirects())
        self._failed: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def post(self, body: Any, read: Callable[[Any], Read]) -> Read:
        """What ``read`` makes of the reply.

        Args:
            read: raises :class:`Garbage` for a reply that is to be asked for again.

        Raises:
            KdkitError: a server that refuses; timeouts, broken connections, errors of the server (408, 425, 429 and
                from 500 on) or garbage in every try.
        """
        failed: Counter[str] = Counter()
        content = json.dumps(body).encode()
        for number in range(1, self._tries + 1):
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (number - 1)) * (0.75 + random.random() / 2)
            try:
                return read(self._send(content))
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in (408, 425, 429) and error.code < 500:
                        raise self._refused(error) from None
                    wait = _wait_of(error.headers.get("Retry-After"), wait)
                    why = f"status {error.code}"
            except TimeoutError:
                why = "timeout"
            except Garbage as error:
                why = f"garbage ({str(error)[:80]})"
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                reason = getattr(error, "reason", error)
                why = "timeout" if isinstance(reason, TimeoutError) else f"{type(reason).__name__}"
            except ValueError:
                if not self._stopped.is_set():
                    raise
                why = "stopped"  # a connection under TLS that was broken off while it was read
            failed[why] += 1
            with self._lock:
                self._failed[why] += 1
            if number < self._tries and self._stopped.wait(wait):
                break
        raise KdkitError(
            "KD-LOAD-005",
            f"the endpoint did not answer in {failed.total()} tries",
            where=self._url,
            why=_told(failed),
            fix="is it running, and does it serve this model? The same command, given again, goes on from what it kept",
            code=ExitCode.MISSING,
        )

    def stop(self) -> None:
        """Nobody waits any more, neither for a reply nor for a next try."""
        self._stopped.set()
        self._connections.break_off()

    def tell(self, where: str) -> None:
        """Warn of what had to be tried again, if anything."""
        if self._failed:
            warnings.warn(f"{where}: {self._failed.total()} requests repeated: {_told(self._failed)}", stacklevel=3)

    def _send(self, content: bytes) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(self._url, content, headers, method="POST")
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        with self._opener.open(request, timeout=self._timeout) as reply:
            text = reply.read(LARGEST)
        try:
            return json.loads(text)
        except ValueError as error:
            raise Garbage("no JSON") from error

    def _refused(self, error: urllib.error.HTTPError) -> KdkitError:
        said = error.read(2000).decode(errors="replace")
        said = " ".join((said.replace(self._key, "***") if self._key else said).split())[:300]
        denied = error.code in (401, 403)
        return KdkitError(
            "KD-LOAD-006",
            f"the endpoint refuses (status {error.code})",
            where=self._url,
            why=said,
            fix="does 'key_variable' of endpoint.json name the variable with the right key?" if denied else "",
            code=ExitCode.DENIED if denied else ExitCode.MISSING,
        )


def _wait_of(header: str | None, otherwise: float) -> float:
    """Seconds of ``Retry-After``; a date, or nonsense, is not waited for."""
    try:
        return min(LONGEST_WAIT, max(0.0, float(header or "")))
    except ValueError:
        return otherwise


def _told(failed: Counter[str]) -> str:
    return ", ".join(f"{count} x {why}" for why, count in failed.most_common())
