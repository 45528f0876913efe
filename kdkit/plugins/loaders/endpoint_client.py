"""HTTP client of a chat-completions endpoint: parallel requests, retries with backoff, replies of bounded size."""

from __future__ import annotations

import asyncio
import json
import random
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import httpx2
from anyio.from_thread import start_blocking_portal

from kdkit.core.base.errors import ExitCode, KdkitError

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the second try, doubled for each further one; upper limit, also for ``Retry-After``."""
MAX_BYTES = 1 << 26
"""Size of a reply."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class InvalidReply(Exception):
    """A successful reply whose content cannot be used; the request is repeated."""


class ChatClient:
    """Posts JSON to one address. Redirects are errors, so the key reaches no other host.

    Args:
        url: of the endpoint's ``/chat/completions``.
        key: bearer token, or empty. No message contains it.
        timeout: seconds without data from the server, per request.
        tries: per request, at most.
        parallel: requests in flight, at most.
    """

    def __init__(self, url: str, *, key: str, timeout: float, tries: int, parallel: int) -> None:
        self._url, self._key, self._timeout, self._tries, self._parallel = url, key, timeout, tries, parallel
        self._failures: Counter[str] = Counter()

    def map(self, request: Callable[[Item], Awaitable[Result]], items: Sequence[Item]) -> list[Result]:
        """Results of ``request`` for all items, in order. An exception, Ctrl-C included, cancels the other requests."""
        with start_blocking_portal() as portal:
            return portal.call(self._gather, request, items)

    async def _gather(self, request: Callable[[Item], Awaitable[Result]], items: Sequence[Item]) -> list[Result]:
        slots = asyncio.Semaphore(self._parallel)

        async def limited(item: Item) -> Result:
            async with slots:
                return await request(item)

        async with self._client() as self._http:
            tasks = [asyncio.ensure_future(limited(item)) for item in items]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    def _client(self) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            return httpx2.AsyncClient(headers=headers, timeout=self._timeout, limits=httpx2.Limits())
        except UnicodeEncodeError:
            raise KdkitError(
                "KD-LOAD-060",
                "the endpoint's key has a letter that no key has",
                where=self._url,
                fix="correct the environment variable that 'key_variable' of endpoint.json names",
                code=ExitCode.DENIED,
            ) from None
        except (ImportError, ValueError, OSError) as error:
            raise KdkitError(
                "KD-LOAD-061",
                "no connection can be made with the network settings of the environment",
                where=self._url,
                why=str(error),
                fix="correct or unset ALL_PROXY, HTTPS_PROXY, HTTP_PROXY, SSL_CERT_FILE and SSL_CERT_DIR",
                code=ExitCode.MISSING,
            ) from None

    async def post(self, body: Any, parse: Callable[[Any], Result]) -> Result:
        """The parsed reply to one request; call it inside :meth:`map`.

        Args:
            body: JSON.
            parse: raises :class:`InvalidReply` to have the request repeated.

        Raises:
            KdkitError: a refusal; or timeouts, connection errors, server errors (408, 425, 429, 5xx) and invalid
                replies in every try.
        """
        failures: Counter[str] = Counter()
        wait = 0.0
        for number in range(self._tries):
            await asyncio.sleep(wait)
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2**number) * random.uniform(0.75, 1.25)
            try:
                status, headers, content = await self._send(body)
                if 200 <= status < 300:
                    return parse(json.loads(content))
                if status not in (408, 425, 429) and status < 500:
                    raise self._refusal(status, content)
                failure = f"status {status}"
                wait = _retry_after(headers, default=wait)
            except httpx2.TimeoutException:
                failure = "timeout"
            except (InvalidReply, ValueError, RecursionError) as error:  # json.loads raises ValueError
                failure = f"invalid reply ({str(error)[:80]})"
            except httpx2.RequestError as error:
                failure = type(error).__name__
            failures[failure] += 1
            self._failures[failure] += 1
        raise KdkitError(
            "KD-LOAD-005",
            f"the endpoint did not answer in {failures.total()} tries",
            where=self._url,
            why=_format_counts(failures),
            fix="check that the server is running and serves this model, then run the same command again: it resumes",
            code=ExitCode.MISSING,
        )

    def warn_of_retries(self, where: str) -> None:
        """Warn with the number of requests that had to be repeated, if any."""
        if self._failures:
            repeated = f"{self._failures.total()} requests repeated: {_format_counts(self._failures)}"
            warnings.warn(f"{where}: {repeated}", stacklevel=3)

    async def _send(self, body: Any) -> tuple[int, httpx2.Headers, bytes]:
        content = b""
        async with self._http.stream("POST", self._url, json=body) as reply:
            async for chunk in reply.aiter_bytes():
                content += chunk
                if len(content) > MAX_BYTES:
                    raise InvalidReply(f"more than {MAX_BYTES >> 20} MiB")
        return reply.status_code, reply.headers, content

    def _refusal(self, status: int, content: bytes) -> KdkitError:
        text = content[:2000].decode(errors="replace")
        text = " ".join((text.replace(self._key, "***") if self._key else text).split())[:300]
        denied = status in (401, 403)
        return KdkitError(
            "KD-LOAD-006",
            f"the endpoint refuses (status {status})",
            where=self._url,
            why=text,
            fix="set the environment variable that 'key_variable' of endpoint.json names to a valid key"
            if denied
            else "correct 'endpoint' and 'model' in endpoint.json",
            code=ExitCode.DENIED if denied else ExitCode.MISSING,
        )


def _retry_after(headers: httpx2.Headers, default: float) -> float:
    """Seconds of ``Retry-After``; dates are ignored."""
    try:
        return min(LONGEST_WAIT, max(0.0, float(headers["Retry-After"])))
    except (KeyError, ValueError):
        return default


def _format_counts(failures: Counter[str]) -> str:
    return ", ".join(f"{count} x {failure}" for failure, count in failures.most_common())
