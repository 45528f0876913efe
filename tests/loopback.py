"""HTTP servers on the loopback interface, for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn


class _Server(ThreadingMixIn, TCPServer):
    """Unlike ``http.server`` it looks up no names, and accepts many simultaneous connections."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serving(connection: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[str]:
    """Serve in a thread until the end of the block; gives the server's address, ``http://127.0.0.1:PORT``.

    Args:
        connection: answers the requests, several at a time.
        port: 0 for a free one.
    """
    server = _Server(("127.0.0.1", port), connection)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
