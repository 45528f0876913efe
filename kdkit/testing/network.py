"""No network: what works inside works in a hospital."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from unittest import mock

INTERNET = (socket.AF_INET, socket.AF_INET6)


class NetworkUsed(OSError):
    """Code under test tried to use the network."""


@contextmanager
def offline() -> Iterator[None]:
    """Within the block, looking up a name or connecting over IP raises :class:`NetworkUsed`, in every thread."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def look_up(host: Any, *_: Any, **__: Any) -> NoReturn:
        raise _refused(host)

    def refuse_connect(self: socket.socket, address: Any) -> None:
        if self.family in INTERNET:
            raise _refused(address)
        connect(self, address)

    def refuse_connect_ex(self: socket.socket, address: Any) -> int:
        if self.family in INTERNET:
            raise _refused(address)
        return connect_ex(self, address)

    with (
        mock.patch.object(socket, "getaddrinfo", look_up),
        mock.patch.object(socket, "gethostbyname", look_up),
        mock.patch.object(socket.socket, "connect", refuse_connect),
        mock.patch.object(socket.socket, "connect_ex", refuse_connect_ex),
    ):
        yield


def _refused(where: Any) -> NetworkUsed:
    return NetworkUsed(f"attempt to reach {where}; load only from the given folder")
