"""Connections that another thread can break off while they wait for a reply; those that are still being made wait out
their timeout."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakSet

Opened = Callable[[socket.socket], None]


class Connections:
    """Those of one opener; threads may share it."""

    def __init__(self) -> None:
        self._open: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()
        self._broken = False

    def opener(self, *handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
        """An opener with ``handlers`` whose connections are these."""
        return urllib.request.build_opener(_Handler(self._opened), *handlers)

    def break_off(self) -> None:
        """End every connection, and each one that is opened from now on: whoever waits for a reply gets an error."""
        with self._lock:
            self._broken = True
            for connection in self._open:
                _end(connection)

    def _opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
            if self._broken:
                _end(connection)


def _end(connection: socket.socket) -> None:
    """Closing alone would leave a thread that reads from it waiting."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _PlainConnection(http.client.HTTPConnection):
    def __init__(self, opened: Opened, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._told = opened

    def connect(self) -> None:
        super().connect()
        self._told(self.sock)


class _SecureConnection(_PlainConnection, http.client.HTTPSConnection):
    """Told of when the handshake is done."""


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Takes the place of both of urllib's."""

    def __init__(self, opened: Opened) -> None:
        super().__init__()
        self._told = opened

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_PlainConnection, self._told), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_SecureConnection, self._told), req)
