"""``offline`` cuts the network off, in every thread, and gives it back."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kdkit.testing import offline
from kdkit.testing.network import NetworkUsed


def connect(address: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        client.connect(address)


def connect_ex(address: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.connect_ex(address)


@pytest.mark.parametrize("reach", [connect, connect_ex, socket.create_connection])
def test_nobody_gets_out_and_afterwards_everybody_does(reach: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with offline(), ThreadPoolExecutor(1) as pool:
            with pytest.raises(NetworkUsed, match=r"127\.0\.0\.1"):
                reach(address)
            with pytest.raises(NetworkUsed):
                pool.submit(reach, address).result()
        reached = reach(address)
        if reached:
            reached.close()


def test_names_are_not_looked_up() -> None:
    with offline():
        for look_up in (lambda: socket.getaddrinfo("localhost", 80), lambda: socket.gethostbyname("localhost")):
            with pytest.raises(NetworkUsed, match="localhost"):
                look_up()


def test_sockets_within_the_machine_work() -> None:
    with offline():
        one, other = socket.socketpair()
        with one, other:
            one.sendall(b"here")
            assert other.recv(4) == b"here"
